// The page: files in, verdicts out. It talks to the endpoint that served it and to nobody else.

import * as api from "./api.js";
import { showCard } from "./card.js";
import { showDetail } from "./detail.js";
import { byId, make } from "./dom.js";
import { previewOf } from "./preview.js";
import { connectSlides } from "./slides.js";
import { arrowKeys, csv, fill, ordered, row, save, show, summarise } from "./results.js";

const AT_ONCE = 4;
const LARGEST_BYTES = 50 * 2 ** 20;
let items = [];
let chosen = null;
let stopper = new AbortController();
let working = 0;

function trouble(error) {
  const box = byId("trouble");
  box.hidden = !error;
  if (!error) return;
  const isKey = error.status === 401 || error.status === 403;
  const remedy = isKey ? "Enter an API key above." : error.remedy ? `What to do: ${error.remedy}` : "";
  box.replaceChildren(make("p", {}, error.message), ...(remedy ? [make("p", {}, remedy)] : []));
  if (error.status === 401) byId("key").focus();
}

async function connect() {
  try {
    const { bundle } = await api.health();
    byId("model").textContent = `Bundle ${bundle.slice(0, 12)}`;
    const card = await api.card(bundle);
    byId("model").textContent = `${card.name}, bundle ${bundle.slice(0, 12)}`;
    byId("mpp-help").textContent = `The model expects ${card.mpp_um_px}.`;
    showCard(card, bundle);
    await connectSlides(trouble);
    trouble(null);
  } catch (error) {
    trouble(error);
  }
}

function add(files) {
  const fresh = [...files].map((file) => ({ file, mpp: byId("mpp").value }));
  for (const item of fresh) {
    row(item, choose);
    if (item.file.size > LARGEST_BYTES) item.refused = new api.Refused(413, "The file is too large for a patch.");
    previewOf(item.file).then((bitmap) => {
      item.bitmap = bitmap;
      fill(item);
      if (item === chosen) showDetail(item);
    });
  }
  items = [...items, ...fresh];
  refresh();
  if (!chosen && items.length) choose(items[0], false);
  for (let free = AT_ONCE - working; free > 0; free -= 1) work();
}

async function work() {
  working += 1;
  for (let item; (item = items.find((one) => !one.isAsked && !one.refused && !one.reply));) await ask(item);
  working -= 1;
  refresh();
}

async function ask(item) {
  item.isAsked = true;
  fill(item);
  try {
    item.reply = await api.predict(item.file, item.mpp, stopper.signal);
  } catch (error) {
    item.refused = error.name === "AbortError" ? new api.Refused(0, "Stopped before it was scored.") : error;
    if (error.status === 401 || error.status === 403) trouble(error);
  }
  if (!items.includes(item)) return;
  fill(item);
  if (item === chosen) showDetail(item);
  refresh();
}

let isDue = false;
let shown = "";
function refresh() {
  // Thousands of replies a second must not be thousands of layouts.
  if (isDue) return;
  isDue = true;
  requestAnimationFrame(() => {
    isDue = false;
    byId("bar").hidden = byId("work").hidden = !items.length;
    byId("summary").textContent = items.length ? summarise(items) : "";
    byId("stop").hidden = !working;
    // Read out once, not at every patch.
    if (!working) byId("announce").textContent = byId("summary").textContent;
    const order = working ? "given" : byId("order").value;
    const wanted = order === "given" ? `given ${items.length} ${items[0]?.file.name}` : "";
    if (wanted && wanted === shown) return;
    shown = wanted;
    const focused = document.activeElement;
    show(ordered(items, order));
    if (focused?.classList.contains("result")) focused.focus();
  });
}

function choose(item, byUser = true) {
  chosen?.button.removeAttribute("aria-current");
  chosen = item;
  item.button.setAttribute("aria-current", "true");
  showDetail(item);
  if (byUser && matchMedia("(max-width: 900px)").matches) byId("detail").scrollIntoView({ block: "start" });
}

function clear() {
  stopper.abort();
  stopper = new AbortController();
  for (const item of items) {
    if (item.map) URL.revokeObjectURL(item.map.url);
    item.bitmap?.close?.();
  }
  items = [];
  chosen = null;
  byId("detail").replaceChildren();
  refresh();
  byId("choose").focus();
}

function dropping() {
  const zone = byId("drop");
  const over = (event, isOver) => {
    event.preventDefault();
    zone.classList.toggle("over", isOver);
  };
  // Anywhere on the page: a file that misses the zone must not make the browser leave it.
  addEventListener("dragover", (event) => over(event, true));
  addEventListener("dragleave", (event) => over(event, false));
  addEventListener("drop", (event) => {
    over(event, false);
    if (event.dataTransfer.files.length) add(event.dataTransfer.files);
  });
  byId("choose").addEventListener("click", () => byId("files").click());
  byId("files").addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = "";
  });
}

function tabs() {
  const all = [...document.querySelectorAll('[role="tab"]')];
  const select = (tab) => {
    for (const one of all) {
      const isOn = one === tab;
      one.setAttribute("aria-selected", String(isOn));
      one.tabIndex = isOn ? 0 : -1;
      byId(one.getAttribute("aria-controls")).hidden = !isOn;
    }
  };
  all.forEach((tab) => {
    tab.addEventListener("click", () => select(tab));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const shown = all.filter((one) => !one.hidden);
      const next = shown[(shown.indexOf(tab) + step + shown.length) % shown.length];
      select(next);
      next.focus();
    });
  });
}

byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey(byId("key").value);
  for (const item of items.filter((one) => one.refused?.status === 401 || one.refused?.status === 403)) {
    Object.assign(item, { refused: undefined, isAsked: false });
  }
  connect();
  for (let free = AT_ONCE - working; free > 0; free -= 1) work();
});
for (const input of document.querySelectorAll('[name="theme"]')) {
  input.addEventListener("change", () => {
    document.documentElement.dataset.theme = input.value;
  });
}
byId("order").addEventListener("change", refresh);
byId("clear").addEventListener("click", clear);
byId("stop").addEventListener("click", () => {
  stopper.abort();
  stopper = new AbortController();
  for (const item of items) if (!item.isAsked) item.refused = new api.Refused(0, "Stopped before it was scored.");
  items.forEach(fill);
});
byId("save").addEventListener("click", () => save(csv(items), "sentinode.csv"));
arrowKeys(byId("results"));
dropping();
tabs();
connect();
