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
