// The last hour as a small SVG: the same as page/sparkline.py.

import { shown } from "./formats.js";

const EDGE = 2;
export const SVG = "http://www.w3.org/2000/svg";

const tenth = (value) => Math.floor(value * 10 + 0.5) / 10;

export function path(values, width, height) {
  const known = values.filter((value) => value !== null);
  const top = (known.length ? Math.max(...known) : 0) || 1;
  const step = (width - 2 * EDGE) / Math.max(values.length - 1, 1);
  let words = "";
  let drawn = false;
  values.forEach((value, place) => {
    if (value === null) {
      drawn = false;
      return;
    }
    const x = EDGE + place * step;
    const y = height - EDGE - (value / top) * (height - 2 * EDGE);
    words += `${drawn ? "L" : "M"}${tenth(x)} ${tenth(y)}${drawn ? "" : "h0.1"}`;
    drawn = true;
  });
  return words;
}

export function summary(values, form) {
  const known = values.filter((value) => value !== null);
  if (!known.length) return "nothing known of the last hour";
  return `now ${shown(form, known.at(-1))}, at most ${shown(form, Math.max(...known))} in the last hour`;
}

// Draws `values` into the picture that is there.
export function draw(picture, values) {
  const { format, label } = picture.dataset;
  picture.firstElementChild.setAttribute("d", path(values, picture.width.baseVal.value, picture.height.baseVal.value));
  picture.setAttribute("aria-label", `${label}: ${summary(values, format)}`);
}

export function small(form, label) {
  const picture = document.createElementNS(SVG, "svg");
  for (const [name, value] of Object.entries({ class: "spark small", viewBox: "0 0 80 20", width: 80, height: 20, role: "img" })) {
    picture.setAttribute(name, value);
  }
  picture.dataset.format = form;
  picture.dataset.label = label;
  picture.append(document.createElementNS(SVG, "path"));
  return picture;
}
