// One patch, large: probability against the threshold, flags in words, the explanation over it.

import { explain } from "./api.js";
import { byId, make, meter, percent } from "./dom.js";
import { draw } from "./preview.js";
import { flagName, flagReason, isAbstained, pointName, verdictOf } from "./words.js";

let opacity = 0.7;
let isCentreShown = true;

export function showDetail(item) {
  const box = byId("detail");
  box.replaceChildren(make("h3", {}, item.file.name), stage(item));
  if (item.refused) return box.append(refusal(item.refused));
  if (!item.reply) return box.append(make("p", { class: "quiet" }, "Not scored yet."));
  return box.append(...verdict(item.reply), controls(item), facts(item.reply));
}

function stage(item) {
  const picture = draw(item.bitmap, "patch") ?? make("p", { class: "words quiet" }, "The browser cannot show this file; the endpoint can read it.");
  const centre = make("span", { class: "centre", hidden: !isCentreShown || !item.bitmap, "aria-hidden": "true" });
  return make("div", { class: "stage", role: "img", "aria-label": description(item) }, picture, overlay(item), centre);
}

function description(item) {
  const { reply } = item;
  if (!reply) return `Patch ${item.file.name}`;
  const shown = isAbstained(reply) ? "no verdict" : `${verdictOf(reply).words}, ${percent(reply.probability)}`;
  return `Patch ${item.file.name}: ${shown}${item.map ? "; explanation shown over it" : ""}`;
}

function overlay(item) {
  if (!item.map) return null;
  const image = make("img", { class: "overlay", src: item.map.url, alt: "" });
  image.style.opacity = String(opacity);
  return image;
}

function refusal({ message, expected, remedy }) {
  const lines = [message, expected && `Expected: ${expected}.`, remedy && `What to do: ${remedy}.`].filter(Boolean);
  return make("div", { class: "why" }, ...lines.map((line) => make("p", {}, line)));
}

function verdict(reply) {
  const { kind, words, sign } = verdictOf(reply);
  const chip = make("span", { class: `chip ${kind}` }, make("span", { "aria-hidden": "true" }, sign), words);
  const why = (reply.flags ?? []).map((flag) => make("div", { class: "why" }, make("strong", {}, `${flagName(flag)}. `), flagReason(flag)));
  if (isAbstained(reply)) {
    return [make("p", { class: "big" }, chip), ...why];
  }
  const bar = make("div", { class: kind }, meter(reply.probability, reply.threshold));
  const against = `threshold ${percent(reply.threshold)} (${pointName(reply.operating_point)})`;
  return [make("p", { class: "big" }, make("span", { class: "percent" }, percent(reply.probability)), chip), bar, make("p", { class: "quiet" }, against), ...why];
}

function controls(item) {
  const box = make("div");
  const centre = make("input", { type: "checkbox", id: "centre", checked: isCentreShown, onchange: (event) => {
    isCentreShown = event.target.checked;
    showDetail(item);
    byId("centre").focus();
  } });
  box.append(make("p", {}, centre, " ", make("label", { for: "centre" }, "Frame the central 32 x 32 pixels, which the verdict is about")));
  // A probability that is withheld is not explained either.
  if (item.reply && isAbstained(item.reply)) return box;
  if (!item.map) {
    const ask = make("button", { type: "button", id: "explain", disabled: item.isExplaining }, item.isExplaining ? "Being explained …" : "Explain this probability");
    ask.addEventListener("click", () => explained(item));
    box.append(make("p", { class: "controls" }, ask), make("p", { class: "quiet", role: "status", id: "explain-status" }, item.unexplained ?? ""));
    return box;
  }
  const range = make("input", { type: "range", id: "opacity", min: 0, max: 100, value: 100 * opacity, oninput: (event) => {
    opacity = event.target.value / 100;
    for (const image of document.querySelectorAll(".overlay")) image.style.opacity = String(opacity);
  } });
  box.append(
    make("div", { class: "controls" }, make("label", { for: "opacity" }, "Overlay"), range),
    make("p", { class: "legend" },
      make("span", { class: "for" }, make("i"), "speaks for tumour"), make("span", { class: "against" }, make("i"), "speaks against")),
    make("p", { class: "quiet" }, `Occlusion: hiding a part in full colour moves the logit by ${item.map.scale.toFixed(2)}. It shows what the model used, not where tumour is.`),
  );
  return box;
}

async function explained(item) {
  item.isExplaining = true;
  item.unexplained = undefined;
  showDetail(item);
  try {
    const { png, scale } = await explain(item.file, item.reply.bundle);
    item.map = { url: URL.createObjectURL(png), scale };
  } catch (error) {
    item.unexplained = `No explanation: ${error.message}`;
  }
  item.isExplaining = false;
  if (item.button.getAttribute("aria-current") === "true") {
    showDetail(item);
    (byId("opacity") ?? byId("explain")).focus();
  }
}

function facts(reply) {
  const rows = [
    ["Operating point", pointName(reply.operating_point)],
    ["Bundle", make("span", { class: "mono" }, reply.bundle)],
    ["Time", `${(reply.timing_ms.wait + reply.timing_ms.decode + reply.timing_ms.inference).toFixed(1)} ms in the endpoint`],
  ];
  return make("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}
