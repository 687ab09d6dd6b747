// Elements from code. Text is always set as text, never as markup: names of files come from anywhere.

export const byId = (id) => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const percent = (probability) =>
  probability > 0.999 ? "> 99.9 %"
    : probability < 0.001 && probability > 0 ? "< 0.1 %"
      : `${(100 * probability).toFixed(1)} %`;

export function meter(probability, threshold) {
  const bar = make("i"), mark = make("b");
  bar.style.width = `${100 * probability}%`;
  mark.style.left = `${100 * threshold}%`;
  const words = `${percent(probability)}; the threshold is ${percent(threshold)}`;
  return make("span", { class: "meter", role: "img", "aria-label": words, title: words }, bar, mark);
}

// To be called before lists are drawn anew; what it returns, after: a button that had the focus has it again, by its place
// in its list. Where its row is gone, the one that took its place has it; where none is left, instead.
export function heldFocus(lists, instead) {
  const button = document.activeElement, list = lists.find((one) => one.contains(button));
  if (!list) return () => {};
  const row = [...list.children].findIndex((one) => one.contains(button));
  const at = [...list.children[row].querySelectorAll("button")].indexOf(button);
  return () => (list.children[Math.min(row, list.children.length - 1)]?.querySelectorAll("button")[at] ?? instead).focus();
}
