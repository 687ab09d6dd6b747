// The list of patches: one button each, so that keyboard and screen reader have them for nothing.

import { byId, make, meter, percent } from "./dom.js";
import { draw } from "./preview.js";
import { flagName, isAbstained, verdictOf } from "./words.js";

export function row(item, onChoose) {
  item.button = make("button", { type: "button", class: "result", onclick: () => onChoose(item) });
  item.element = make("li", {}, item.button);
  fill(item);
  return item.element;
}

export function fill(item) {
  const { file, reply, refused, bitmap } = item;
  const thumb = make("span", { class: "thumb" }, draw(bitmap) ?? (bitmap === null ? "no preview" : ""));
  const name = make("span", { class: "name", title: file.name }, file.name);
  if (!reply) {
    const words = refused ? refused.message : item.isAsked ? "Being scored …" : "Waiting";
    const chip = make("span", { class: refused ? "chip caution" : "chip plain" }, refused ? "! Refused" : words);
    item.button.replaceChildren(thumb, name, make("span"), make("span", { class: "low" }, chip, refused ? make("span", { class: "quiet" }, words) : ""));
    item.button.className = "result";
    return;
  }
  const verdict = verdictOf(reply);
  const chips = (reply.flags ?? []).map((flag) => make("span", { class: "chip caution" }, flagName(flag)));
  const shown = isAbstained(reply) ? "–" : percent(reply.probability);
  item.button.className = `result ${verdict.kind}`;
  item.button.replaceChildren(
    thumb, name, make("span", { class: "percent", "aria-label": isAbstained(reply) ? "no verdict" : shown }, shown),
    make("span", { class: "low" },
      make("span", { class: `chip ${verdict.kind}` }, make("span", { "aria-hidden": "true" }, verdict.sign), verdict.words),
      ...chips, isAbstained(reply) ? null : meter(reply.probability, reply.threshold)),
  );
}

export function ordered(items, order) {
  const score = (item) => item.reply?.probability ?? -1;
  const doubt = (item) => (item.refused || (item.reply && isAbstained(item.reply)) ? 1 : 0);
  const by = { high: (a, b) => score(b) - score(a), unsure: (a, b) => doubt(b) - doubt(a) || score(b) - score(a) };
  return by[order] ? [...items].sort(by[order]) : items;
}

export function summarise(items) {
  const count = { tumour: 0, negative: 0, caution: 0, refused: 0, waiting: 0 };
  for (const { reply, refused } of items) count[refused ? "refused" : reply ? verdictOf(reply).kind : "waiting"] += 1;
  const parts = [
    [count.tumour, "tumour"], [count.negative, "negative"], [count.caution, "without verdict"],
    [count.refused, "refused"], [count.waiting, "to come"],
  ].filter(([number]) => number).map(([number, what]) => `${number} ${what}`);
  return `${items.length} ${items.length === 1 ? "patch" : "patches"}: ${parts.join(", ")}`;
}

export function arrowKeys(list) {
  list.addEventListener("keydown", (event) => {
    const buttons = [...list.querySelectorAll("button")];
    const at = buttons.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: buttons.length - 1 }[event.key];
    if (at < 0 || to === undefined || !buttons[to]) return;
    event.preventDefault();
    buttons[to].focus();
  });
}

export function csv(items) {
  const cell = (value) => {
    const text = String(value ?? "");
    // A name that starts like a formula must stay a name in a spreadsheet.
    const safe = /^[=+\-@\t\r]/.test(text) && typeof value === "string" ? `'${text}` : text;
    return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  };
  const rows = items.map(({ file, reply, refused }) => [
    file.name, reply?.probability, reply && isAbstained(reply) ? "no verdict" : reply?.verdict, (reply?.flags ?? []).join(" "),
    reply?.operating_point, reply?.threshold, reply?.bundle, refused?.message,
  ]);
  const head = ["file", "probability", "verdict", "flags", "operating_point", "threshold", "bundle", "refused"];
  return [head, ...rows].map((line) => line.map(cell).join(",")).join("\r\n") + "\r\n";
}

export function save(text, name) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  const link = make("a", { href: url, download: name });
  link.click();
  URL.revokeObjectURL(url);
}

export const show = (items) => byId("results").replaceChildren(...items.map((item) => item.element));
