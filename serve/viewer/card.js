// The model's card: what it is, what its thresholds gave on validation, what it was made from, where its limits are.

import { byId, make } from "./dom.js";
import { pointName } from "./words.js";

const share = (value) => `${(100 * value).toFixed(1)} %`;
const NAMES = {
  auroc: "AUROC", auroc_delong: "AUROC (DeLong)", average_precision: "Average precision", brier: "Brier score", ece: "Expected calibration error",
  npv: "NPV", ppv: "PPV", f1: "F1", mcc: "Matthews correlation", cohens_kappa: "Cohen's kappa",
};
const SPLITS = { valid: "validation", test: "test" };
const measureName = (name) => NAMES[name] ?? pointName(name).replace(/^./, (first) => first.toUpperCase());
const figure = (value) => (Math.abs(value) < 10 && !Number.isInteger(value) ? value.toFixed(3) : String(value));
const isInterval = (value) => Array.isArray(value) && value.length === 3 && value.every(Number.isFinite);

export function showCard(card, digest) {
  byId("view-card").replaceChildren(
    make("h2", {}, card.name),
    make("p", { class: "quiet mono" }, digest),
    make("h2", {}, "Limits"), limits(card),
    make("h2", {}, "Operating points"), points(card),
    make("p", { class: "quiet" }, "Sensitivity and specificity are those of the validation split, where the thresholds were chosen."),
    ...measures(card),
    make("h2", {}, "Made from"), origin(card),
  );
}

function limits(card) {
  const lines = [
    card.notice,
    `For H&E patches of ${card.patch_px} x ${card.patch_px} pixels at about ${card.mpp_um_px} µm per pixel; it says nothing about a slide or a patient.`,
    "Figures hold for patches like those of its data set; another scanner, laboratory or staining may differ.",
    card.stain ? `Patches whose stain is far from that of ${card.stain.patches} training patches get no verdict.` : "The card does not know how training was stained: unfamiliar stain is not noticed.",
    card.test_uses > 1 ? `Measured on its test split ${card.test_uses} times, which flatters it.` : null,
    card.metrics.test ? null : "Never measured on a test split.",
  ].filter(Boolean);
  return make("div", { class: "box" }, make("ul", {}, ...lines.map((line) => make("li", {}, line))));
}

function points(card) {
  const rows = card.operating_points.map((point) => make("tr", {},
    make("th", { scope: "row" }, pointName(point.name), point.name === card.default_operating_point ? " (default)" : ""),
    make("td", {}, point.threshold.toFixed(4)), make("td", {}, share(point.sensitivity)), make("td", {}, share(point.specificity)),
    make("td", { class: "words" }, point.guarantee?.words || point.chosen_by)));
  return table(["Name", "Threshold", "Sensitivity", "Specificity", "Promise"], rows, "Operating points");
}

function measures(card) {
  const heads = ["Measure", "Value", "95 % interval"];
  return Object.entries(card.metrics).flatMap(([split, values]) => {
    // "balanced/ppv" is a measure at an operating point; those without a point come first, the others folded.
    const groups = new Map([["", []], ...card.operating_points.map(({ name }) => [name, []])]);
    for (const [name, value] of Object.entries(values)) {
      if (!isInterval(value) && !Number.isFinite(value)) continue;
      const point = name.includes("/") ? name.split("/")[0] : "";
      groups.set(point, [...(groups.get(point) ?? []), measure(name.slice(point && point.length + 1), value)]);
    }
    const tables = [...groups].filter(([, rows]) => rows.length).map(([point, rows]) => (point
      ? make("details", {}, make("summary", {}, `At the operating point ${pointName(point)}`), table(heads, rows, `Measures on ${split}, ${pointName(point)}`))
      : table(heads, rows, `Measures on ${split}`)));
    return tables.length ? [make("h2", {}, `Measured on ${SPLITS[split] ?? split}`), ...tables] : [];
  });
}

function measure(name, value) {
  return make("tr", {},
    make("th", { scope: "row" }, measureName(name)),
    make("td", {}, figure(isInterval(value) ? value[0] : value)),
    make("td", {}, isInterval(value) ? `${figure(value[1])} to ${figure(value[2])}` : "–"));
}

function origin(card) {
  const { training } = card;
  const rows = [
    ["Data set", training.dataset], ["Manifest", training.manifest_digest], ["Run", training.run_name], ["Code", training.code_commit],
    ["Calibration", card.calibration.kind], ["Licence", card.licence],
  ];
  return make("div", { class: "box" }, make("dl", { class: "facts" }, ...rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)])));
}

function table(heads, rows, label) {
  const head = make("tr", {}, ...heads.map((name) => make("th", { scope: "col", class: name === "Promise" ? "words" : false }, name)));
  // What can be scrolled must be reachable by keyboard.
  return make("div", { class: "table", tabindex: 0, role: "region", "aria-label": label }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
}
