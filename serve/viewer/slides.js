// The slides' view: what to read first, the slide with its heat map, its lesions, and a pathologist's corrections.

import * as api from "./api.js";
import { byId, heldFocus, make, percent } from "./dom.js";
import { Stage, boundsOf } from "./stage.js";
import { slideCautions } from "./words.js";

const LENGTH = "Longest diameter um", SCORE = "Score", TUMOUR = "Tumor", HEALTHY = "Ignore*";
let name = null, stage = null, version = "", lesions = [], marks = new Map(), areas = [], chosen = null, isChanged = false;
let openings = 0, edits = 0, isSaving = false;

// Shows the tab where the endpoint has slides; onTrouble(error) tells what went wrong.
export async function connectSlides(onTrouble) {
  trouble = onTrouble;
  try {
    const listing = await api.slides();
    byId("tab-slides").hidden = false;
    byId("correcting").hidden = !listing.corrections;
    byId("worklist-outdated").hidden = listing.worklist !== "outdated";
    list(listing.slides);
  } catch (error) {
    byId("tab-slides").hidden = true;
    if (error.status !== 404) throw error;
  }
}
let trouble = () => {};

const counted = (number) => `${number} ${number === 1 ? "lesion" : "lesions"}`;
// The first line, without the folders of the slide: all of it is in the title.
const whyNot = (reason) => `failed: ${reason.split("\n")[0].replace(/\S*\//g, "")}`;

function list(slides) {
  byId("slide-list").replaceChildren(...slides.map(({ rank, group, why, score }) => {
    const isDone = score.status === "done", cautions = slideCautions(score);
    const words = isDone ? `score ${score.score?.toFixed(3) ?? "unknown"}, ${counted(score.lesions)}, ${score.node_class ?? "no class"}` : whyNot(score.reason);
    const button = make("button", { type: "button", disabled: !isDone, title: isDone ? why : score.reason, onclick: () => open(score.slide, button) },
      make("b", {}, `${rank}. ${score.slide}`), make("span", {}, words), group ? make("span", { class: "group" }, group) : null,
      cautions ? make("span", { class: "flags" }, cautions) : null);
    return make("li", {}, button);
  }));
}

const unsaved = () => isChanged || stage?.points?.length > 0;
const mayLeave = () => !unsaved() || confirm("Corrections of this slide are not saved. Leave them?");
const work = () => `${edits} ${stage?.points?.length ?? 0}`;

async function open(slide, button) {
  if (!mayLeave()) return;
  const left = work();
  const opening = ++openings;
  // A store may be slow: where another slide was chosen meanwhile, this one is not shown any more.
  const isLate = () => opening !== openings;
  try {
    trouble(null);
    say(`Opening ${slide} …`);
    const [shown, heat, found, corrected] = await Promise.all(
      [api.slide(slide), api.heatMap(slide), api.lesions(slide), byId("correcting").hidden ? null : api.corrections(slide)]);
    await Stage.ready();
    if (isLate()) return;
    // What was judged while this slide was loading was not asked about.
    if (work() !== left && !mayLeave()) return say("");
    finish(false);
    stage?.close();
    byId("slide-work").hidden = false;
    for (const one of document.querySelectorAll("#slide-list [aria-current]")) one.removeAttribute("aria-current");
    button.setAttribute("aria-current", "true");
    byId("slide-name").textContent = slide;
    stage = new Stage(byId("stage"), slide, shown, () => say("A part of the slide could not be read and is coarse or empty here: open the slide again."));
    [name, chosen, isChanged] = [slide, null, false];
    lesions = found.features.map((feature, at) => ({ ...feature, number: Number(/\d+$/.exec(feature.properties.name)?.[0] ?? at + 1) }));
    take(corrected ?? { geojson: { features: [] }, version: "" });
    say(counted(lesions.length));
    refresh();
    await stage.addHeat(heat, Number(byId("heat-opacity").value) / 100);
  } catch (error) {
    if (isLate()) return;
    say("");
    trouble(error);
  }
}

function take({ geojson, version: latest }) {
  version = latest;
  marks = new Map();
  areas = [];
  for (const { geometry, properties } of geojson.features) {
    const mark = properties.sentinode ?? { action: "draw" };
    // Scored anew, lesion 1 may be another one: what was judged is the outline, and it stays as it was.
    if (lesions.some((lesion) => lesion.number === mark.lesion && isSameOutline(lesion.geometry, geometry))) marks.set(mark.lesion, mark);
    else areas.push({ geometry, label: properties.classification.name, mark, measurements: properties.measurements });
  }
}
const isSameOutline = (one, other) => JSON.stringify(one.coordinates) === JSON.stringify(other.coordinates);
const titleOf = (area, at) => `${{ accept: "Accepted before", reject: "Rejected before" }[area.mark.action] ?? `Drawn ${at + 1}`}: ${{ [TUMOUR]: "tumour", [HEALTHY]: "healthy" }[area.label] ?? area.label}`;

const stateOf = (lesion) => marks.get(lesion.number)?.action;

function refresh() {
  const giveFocusBack = heldFocus([byId("lesions"), byId("areas")], byId("draw-tumour"));
  byId("lesions").replaceChildren(...lesions.map((lesion) => {
    const { properties } = lesion, state = stateOf(lesion), measured = properties.measurements ?? {};
    const judge = (action, word) => make("button",
      { type: "button", "aria-pressed": String(state === action), onclick: () => mark(lesion, action) }, word);
    return make("li", { class: state ?? "" },
      make("button", { type: "button", class: "jump", "aria-current": lesion === chosen ? "true" : undefined, onclick: () => jump(lesion) },
        make("b", {}, `${lesion.number}. ${properties.classification?.name ?? ""}`),
        make("span", {}, `${percent(measured[SCORE] ?? 0)}, ${Math.round(measured[LENGTH] ?? 0)} µm`)),
      byId("correcting").hidden ? null : make("span", { class: "judge", role: "group", "aria-label": `Lesion ${lesion.number}` },
        judge("accept", "Accept"), judge("reject", "Reject")));
  }));
  byId("areas").replaceChildren(...areas.map((area, at) => make("li", {},
    make("button", { type: "button", class: "jump", onclick: () => stage.jump(boundsOf(area.geometry)) }, titleOf(area, at)),
    make("button", { type: "button", onclick: () => { areas.splice(at, 1); changed(); } }, "Remove"))));
  giveFocusBack();
  byId("save-corrections").disabled = !isChanged || isSaving;
  byId("no-lesions").hidden = lesions.length > 0;
  stage.outline([
    ...lesions.map((lesion) => ({ geometry: lesion.geometry, kind: stateOf(lesion) ?? "found", isChosen: lesion === chosen })),
    ...areas.map((area) => ({ geometry: area.geometry, kind: { [TUMOUR]: "accept", [HEALTHY]: "reject" }[area.label] ?? "other" })),
  ]);
}

function jump(lesion) {
  chosen = lesion;
  stage.jump(boundsOf(lesion.geometry));
  refresh();
  byId("lesions").querySelector("[aria-current]")?.focus();
}

function mark(lesion, action) {
  if (stateOf(lesion) === action) marks.delete(lesion.number);
  else marks.set(lesion.number, { action, lesion: lesion.number });
  changed();
}

function changed() {
  isChanged = true;
  edits += 1;
  refresh();
}

function draw(isTumour) {
  byId("drawing").hidden = false;
  byId("drawing-what").textContent = `Drawing ${isTumour ? "tumour" : "healthy tissue"}: click point after point, or move the slide by the arrow keys, + and −, and press Enter for a point at its centre.`;
  stage.draw((ring) => {
    areas.push({ geometry: { type: "Polygon", coordinates: [ring] }, label: isTumour ? TUMOUR : HEALTHY, mark: { action: "draw" } });
    changed();
  });
  byId("stage").focus();
}

function finish(isKept) {
  if (!stage?.points) return;
  const points = stage.finish(isKept);
  byId("drawing").hidden = true;
  if (isKept && points < 3) say("An outline needs at least three points: nothing was drawn.");
}

function collection() {
  const feature = (geometry, label, mark, title, measurements) => ({
    type: "Feature", geometry,
    properties: { objectType: "annotation", name: title, classification: { name: label }, measurements, sentinode: mark },
  });
  return {
    type: "FeatureCollection",
    features: [
      ...lesions.filter((lesion) => marks.has(lesion.number)).map((lesion) => {
        const mark = marks.get(lesion.number);
        return feature(lesion.geometry, mark.action === "accept" ? TUMOUR : HEALTHY, mark, lesion.properties.name, { [SCORE]: lesion.properties.measurements?.[SCORE] ?? 0 });
      }),
      ...areas.map((area, at) => feature(area.geometry, area.label, area.mark, area.mark.lesion ? `lesion ${area.mark.lesion}` : `drawn ${at + 1}`, area.measurements ?? {})),
    ],
  };
}

async function save() {
  const slide = name, before = edits;
  // What is judged while a slow store takes its time is not part of what was sent.
  const isSame = () => slide === name && before === edits;
  isSaving = true;
  refresh();
  say("Saving …");
  try {
    const latest = await api.saveCorrections(slide, collection(), version);
    if (slide === name) {
      version = latest;
      isChanged = !isSame();
      say(isChanged ? "Corrections saved, but for the last ones." : "Corrections saved.");
    }
    trouble(null);
    const kept = await api.corrections(slide);
    if (isSame()) take(kept);
  } catch (error) {
    if (slide === name && isChanged) say("Corrections are not saved.");
    trouble(error);
  }
  isSaving = false;
  refresh();
}

const say = (words) => { byId("slide-said").textContent = words; };

byId("heat-opacity").addEventListener("input", (event) => stage?.setOpacity(Number(event.target.value) / 100));
byId("zoom-in").addEventListener("click", () => stage?.zoom(1.6));
byId("zoom-out").addEventListener("click", () => stage?.zoom(1 / 1.6));
byId("zoom-home").addEventListener("click", () => stage?.zoom(0));
byId("draw-tumour").addEventListener("click", () => draw(true));
byId("draw-healthy").addEventListener("click", () => draw(false));
byId("draw-done").addEventListener("click", () => finish(true));
byId("draw-stop").addEventListener("click", () => finish(false));
byId("save-corrections").addEventListener("click", save);
// While an outline is drawn OpenSeadragon takes neither mouse nor keys.
const MOVES = {
  ArrowLeft: () => stage.pan(-0.05, 0), ArrowRight: () => stage.pan(0.05, 0), ArrowUp: () => stage.pan(0, -0.05), ArrowDown: () => stage.pan(0, 0.05),
  "+": () => stage.zoom(1.6), "-": () => stage.zoom(1 / 1.6), Enter: () => stage.pointAtCentre(),
};
byId("stage").addEventListener("keydown", (event) => {
  if (stage?.points && MOVES[event.key]) MOVES[event.key]();
  else if (event.key === "Escape") finish(false);
  else return;
  event.preventDefault();
});
addEventListener("beforeunload", (event) => { if (isChanged) event.preventDefault(); });
