// A slide on the screen: OpenSeadragon for pixels and heat map, an SVG above it for outlines, in pixels of level 0.

import * as api from "./api.js";
import { make } from "./dom.js";

const SVG = "http://www.w3.org/2000/svg";
let library;

function load() {
  library ??= new Promise((resolve, reject) => {
    const script = make("script", { src: "viewer/openseadragon.js", onload: resolve, onerror: () => reject(new Error("openseadragon.js is missing")) });
    document.head.append(script);
  });
  return library;
}

export const drawn = (tag, attributes) => {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
};

export class Stage {
  // To be awaited before a stage is made.
  static ready() {
    return load();
  }

  // place: the element; shown: sizes as the endpoint tells them; onGap() is told of tiles that do not come.
  constructor(place, name, shown, onGap) {
    this.shown = shown;
    this.points = null;
    place.replaceChildren();
    const url = `v1/slides/${encodeURIComponent(name)}`;
    this.viewer = OpenSeadragon({
      element: place,
      showNavigationControl: false,
      drawer: "canvas",
      animationTime: matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 0.4,
      maxZoomPixelRatio: 4,
      gestureSettingsMouse: { clickToZoom: false },
      tileRetryMax: 2,
      loadTilesWithAjax: true,
      ajaxHeaders: api.credentials(),
      tileSources: {
        width: shown.width_px, height: shown.height_px, tileSize: shown.tile_px, tileOverlap: 0, minLevel: 0, maxLevel: shown.max_level,
        getTileUrl: (level, column, row) => `${url}/tiles/${level}/${column}_${row}.jpg`,
      },
    });
    this.layer = drawn("g", {});
    this.svg = drawn("svg", { class: "outlines", "aria-hidden": "true" });
    this.svg.append(this.layer, drawn("circle", { class: "centre", cx: "50%", cy: "50%", r: 9 }), drawn("circle", { class: "centre", cx: "50%", cy: "50%", r: 1 }));
    this.bar = make("div", { class: "scale-bar" });
    this.viewer.canvas.append(this.svg, this.bar);
    this.viewer.addHandler("tile-load-failed", onGap);
    for (const event of ["open", "update-viewport", "resize"]) this.viewer.addHandler(event, () => this.follow());
    this.svg.addEventListener("pointerdown", (event) => this.point(event));
    this.opened = new Promise((resolve) => this.viewer.addOnceHandler("open", resolve));
  }

  async addHeat(blob, opacity) {
    await this.opened;
    const { heat_columns, cell_px, width_px } = this.shown;
    await new Promise((resolve, reject) => {
      this.viewer.addSimpleImage({
        url: URL.createObjectURL(blob), x: 0, y: 0, width: (heat_columns * cell_px) / width_px, opacity, loadTilesWithAjax: false,
        success: (event) => { this.heat = event.item; resolve(); },
        error: (event) => reject(new Error(event.message)),
      });
    });
  }

  setOpacity(opacity) {
    this.heat?.setOpacity(opacity);
  }

  zoom(by) {
    if (by === 0) this.viewer.viewport.goHome();
    else this.viewer.viewport.zoomBy(by).applyConstraints();
  }

  // By shares of what is seen; the centre stays on the slide.
  pan(right, down) {
    const { viewport } = this.viewer, { width, height } = viewport.getBounds(), { x, y } = viewport.getCenter();
    const within = (value, most) => Math.min(Math.max(value, 0), most);
    viewport.panTo(new OpenSeadragon.Point(within(x + right * width, 1), within(y + down * height, this.shown.height_px / this.shown.width_px)));
  }

  jump([left, top, right, bottom]) {
    const { viewport } = this.viewer;
    const margin = Math.max(0.15 * Math.max(right - left, bottom - top), 200);
    viewport.fitBounds(this.viewer.world.getItemAt(0).imageToViewportRectangle(
      left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin));
  }

  outline(shapes) {
    this.layer.replaceChildren(...shapes.map(({ geometry, kind, isChosen }) =>
      drawn("path", { d: pathOf(geometry), class: `${kind}${isChosen ? " chosen" : ""}` })), ...(this.sketch ? [this.sketch] : []));
    this.follow();
  }

  // What is drawn goes to done(ring) when it is closed.
  draw(done) {
    this.points = [];
    this.done = done;
    this.svg.classList.add("sketching");
    this.viewer.setMouseNavEnabled(false);
  }

  point(event) {
    if (!this.points) return;
    const box = this.svg.getBoundingClientRect();
    this.add(event.clientX - box.left, event.clientY - box.top);
  }

  pointAtCentre() {
    const box = this.svg.getBoundingClientRect();
    this.add(box.width / 2, box.height / 2);
  }

  add(x, y) {
    const at = this.viewer.world.getItemAt(0).viewerElementToImageCoordinates(new OpenSeadragon.Point(x, y));
    const last = this.points.at(-1);
    if (last && last[0] === at.x && last[1] === at.y) return;
    this.points.push([at.x, at.y]);
    this.sketch ??= this.layer.appendChild(drawn("path", { class: "sketch" }));
    this.sketch.setAttribute("d", `M${this.points.map((p) => p.join(" ")).join("L")}`);
  }

  finish(isKept) {
    const points = this.points;
    this.points = null;
    this.sketch?.remove();
    this.sketch = undefined;
    this.svg.classList.remove("sketching");
    this.viewer.setMouseNavEnabled(true);
    if (isKept && points?.length > 2) this.done([...points, points[0]]);
    return points?.length ?? 0;
  }

  follow() {
    const item = this.viewer.world.getItemAt(0);
    if (!item) return;
    const from = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(0, 0));
    const to = item.imageToViewerElementCoordinates(new OpenSeadragon.Point(1000, 0));
    this.layer.setAttribute("transform", `translate(${from.x} ${from.y}) scale(${(to.x - from.x) / 1000})`);
    this.measure((this.shown.um_px * 1000) / (to.x - from.x));
  }

  // The bar: 1, 2 or 5 times a power of ten, as long as there is room for.
  measure(umAPixel) {
    const most = 160 * umAPixel, power = 10 ** Math.floor(Math.log10(most));
    const um = power * [5, 2, 1].find((step) => step * power <= most);
    this.bar.style.width = `${um / umAPixel}px`;
    this.bar.textContent = um >= 1000 ? `${um / 1000} mm` : `${um} µm`;
  }

  close() {
    this.viewer.destroy();
  }
}

const rings = (geometry) =>
  geometry.type === "Polygon" ? geometry.coordinates : geometry.type === "MultiPolygon" ? geometry.coordinates.flat() : [];
const pathOf = (geometry) => rings(geometry).map((ring) => `M${ring.map(([x, y]) => `${x} ${y}`).join("L")}Z`).join("");

export function boundsOf(geometry) {
  const all = rings(geometry).flat();
  const xs = all.map(([x]) => x), ys = all.map(([, y]) => y);
  return [Math.min(...xs), Math.min(...ys), Math.max(...xs), Math.max(...ys)];
}
