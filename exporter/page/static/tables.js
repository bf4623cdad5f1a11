// Fills tables with rows of the API: the same cells as page/tables.py. Text only ever goes in as text.

import { ABSENT, shown } from "./formats.js";
import { SVG, draw, small } from "./sparkline.js";

const KEYS = ["uuid", "node", "id", "device", "vcpu", "mountpoint", "address", "state", "why"];
const BAR_WIDTH = 48;

export function keyOf(row) {
  if ("kind" in row && "id" in row && "time" in row) return String(row.id);
  const key = KEYS.find((name) => name in row);
  return key ? String(row[key]) : "";
}

export function classOf(row) {
  const words = [...(row.flags ?? [])];
  if (row.up === false) words.push("down");
  if (row.hung_calls) words.push("hung");
  if (["failed", "cancelled", "incomplete"].includes(row.result)) words.push("failed");
  return words.join(" ");
}

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  if (text !== null) made.textContent = text;
  return made;
}

function link(text, href) {
  const made = element("a", null, { href });
  made.append(element("bdi", text));
  return made;
}

// As Python's quote: encodeURIComponent leaves some characters as they are.
function nodeAddress(node) {
  return `/nodes/${encodeURIComponent(node).replace(/[!'()*]/g, (mark) => `%${mark.charCodeAt(0).toString(16).toUpperCase()}`)}`;
}

function runbook(alert, docs) {
  if (!alert || !docs) return shown("text", alert);
  return element("a", alert, { href: `${docs}/runbooks/${encodeURIComponent(alert)}.md`, rel: "noreferrer noopener" });
}

function vmLink(row) {
  if (!row.uuid) return link(row.node || ABSENT, row.node ? nodeAddress(row.node) : "/nodes");
  const made = link(row.name || row.uuid, `/vms/${encodeURIComponent(row.uuid)}`);
  if (row.title) made.title = row.title;
  return made;
}

export function flags(words) {
  return words.map((flag) => element("span", flag.replaceAll("_", " "), { class: `flag ${flag}` }));
}

function bar(value) {
  const picture = document.createElementNS(SVG, "svg");
  const filled = Math.round(Math.min(value ?? 0, 1) * BAR_WIDTH);
  for (const [name, text] of Object.entries({ class: "bar", viewBox: `0 0 ${BAR_WIDTH} 6`, width: BAR_WIDTH, height: 6, "aria-hidden": "true" })) {
    picture.setAttribute(name, text);
  }
  for (const [kind, width] of [["whole", BAR_WIDTH], ["part", filled]]) {
    const part = document.createElementNS(SVG, "rect");
    part.setAttribute("class", kind);
    part.setAttribute("width", width);
    part.setAttribute("height", 6);
    picture.append(part);
  }
  return [element("span", shown("percent", value)), picture];
}

function cell(column, row) {
  const value = row[column.field];
  switch (column.format) {
    case "vm":
      return [vmLink(row), ...flags(row.flags ?? [])];
    case "node":
      return value ? [link(value, nodeAddress(value))] : [ABSENT];
    case "project":
      return value ? [link(value, `/vms?${new URLSearchParams({ project: value })}`)] : [ABSENT];
    case "runbook":
      return [runbook(value, column.form)];
    case "state":
      return [element("span", shown("word", value), { class: `state ${value}` })];
    case "vmstate":
      return [element("a", shown("word", value), { href: `/vms?${new URLSearchParams({ state: value })}` })];
    case "bar":
      return bar(value);
    case "spark": {
      const picture = small(column.form, column.title);
      draw(picture, value ?? []);
      return [picture];
    }
    case "clock":
      return value === null ? [ABSENT] : [element("time", shown("clock", value))];
    case "text":
      return value ? [element("bdi", String(value))] : [ABSENT];
    default:
      return [shown(column.format, value)];
  }
}

function mark(place, classes) {
  if (classes) place.className = classes;
  else place.removeAttribute("class");
}

function fill(line, columns, row) {
  line.dataset.key = keyOf(row);
  mark(line, classOf(row));
  columns.forEach((column, place) => {
    const place_ = line.cells[place] ?? line.insertCell();
    mark(place_, column.classes);
    const made = document.createElement("td");
    made.append(...cell(column, row));
    // What is equal stays: nothing flickers, and a link keeps the keyboard's focus.
    if (made.innerHTML !== place_.innerHTML) place_.replaceChildren(...made.childNodes);
  });
}

// Shows `rows` in the table; lines of rows that stay are used again.
export function show(table, rows) {
  const columns = [...table.tHead.rows[0].cells].map((head) => ({
    field: head.dataset.field,
    format: head.dataset.format,
    form: head.dataset.form,
    title: head.dataset.title,
    classes: head.className,
  }));
  const body = table.tBodies[0];
  const old = new Map([...body.rows].map((line) => [line.dataset.key, line]));
  const focused = document.activeElement?.closest("tr");
  const focusedLink = document.activeElement;
  rows.forEach((row, place) => {
    const line = old.get(keyOf(row)) ?? document.createElement("tr");
    old.delete(keyOf(row));
    fill(line, columns, row);
    if (body.rows[place] !== line) body.insertBefore(line, body.rows[place] ?? null);
  });
  for (const line of old.values()) line.remove();
  if (focused && body.contains(focused) && body.contains(focusedLink)) focusedLink.focus({ preventScroll: true });
  const region = table.closest(".scrolls");
  region.hidden = !rows.length;
  region.nextElementSibling.hidden = Boolean(rows.length);
}
