// Charts with axes, the value under the cursor and zoom, by uPlot, in place of the pictures that the server has drawn.
// uPlot is loaded where a page has such pictures, and they stay where it can't be loaded.

import { shown } from "./formats.js";
import { draw, summary } from "./sparkline.js";

const SCRIPT = "/static/vendor/uPlot.iife.min.js";
const STYLE = "/static/vendor/uPlot.min.css";
const FONT = '12px system-ui, "Liberation Sans", sans-serif';
const HEIGHT = 150;
const POINT_SECONDS = 60;
const POINTS = 60;
const DAY = 86400;
const TICK_PIXELS = 28;
// The highest value of an axis, at least: what formats.js tells apart.
const TOPS = { cores: 0.05, latency: 5e-6, size: 4, rate: 4 };
const BINARY = Array.from({ length: 61 }, (_, power) => 2 ** power);
const DECIMAL = Array.from({ length: 60 }, (_, place) => [1, 2, 5][place % 3] * 10 ** (Math.floor(place / 3) - 6));
const HINT = "Drag to zoom; on the keyboard +, − and the arrows. A double-click or Escape shows all.";

let loading = null;

function put(name, attributes) {
  const made = Object.assign(document.createElement(name), attributes);
  return new Promise((resolve, reject) => {
    made.addEventListener("load", resolve);
    made.addEventListener("error", reject);
    document.head.append(made);
  });
}

// Calls `then` with uPlot, never where it can't be loaded: the browser says why.
function withLibrary(then) {
  loading ??= Promise.all([put("script", { src: SCRIPT }), put("link", { rel: "stylesheet", href: STYLE })]).catch(() => null);
  loading.then((found) => found && then(globalThis.uPlot));
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function element(name, attributes) {
  const made = document.createElement(name);
  for (const [attribute, value] of Object.entries(attributes)) made.setAttribute(attribute, value);
  return made;
}

function timeTexts(plot, ticks, axis, space, step) {
  return ticks.map((at) => {
    const text = shown("clock", at);
    if (step >= 28 * DAY) return text.slice(0, 7);
    if (at % DAY === 0) return text.slice(5, 10);
    return step < 60 ? text.slice(11) : text.slice(11, 16);
  });
}

function valueTicks(format, top, pixels) {
  const steps = format === "size" || format === "rate" ? BINARY : DECIMAL.filter((step) => format !== "cores" || step >= 0.01);
  const step = steps.find((each) => top / each <= Math.max(pixels / TICK_PIXELS, 2)) ?? top;
  return Array.from({ length: Math.floor(top / step) + 1 }, (_, place) => place * step);
}

function widthOf(plot, texts, axis, cycle) {
  // Once it has been found it stays, or the layout would be looked for again and again.
  if (cycle > 1) return plot.axes[axis]._size;
  plot.ctx.font = plot.axes[axis].font[0];
  const widest = Math.max(0, ...(texts ?? []).map((text) => plot.ctx.measureText(text).width));
  return Math.ceil(widest / devicePixelRatio) + 10;
}

// A value between two unknown ones is a point: no line goes to it.
function lonePoints(plot, series) {
  const values = plot.data[series];
  const found = [];
  values.forEach((value, place) => {
    if (value !== null && (values[place - 1] ?? null) === null && (values[place + 1] ?? null) === null) found.push(place);
  });
  return found.length ? found : null;
}

function drawMarks(plot, marks) {
  const { ctx, bbox } = plot;
  ctx.save();
  ctx.strokeStyle = colour("--busy");
  ctx.lineWidth = 2 * Math.round(devicePixelRatio);
  ctx.setLineDash([4 * devicePixelRatio, 3 * devicePixelRatio]);
  for (const [at] of marks) {
    const x = Math.round(plot.valToPos(at, "x", true));
    if (x < bbox.left || x > bbox.left + bbox.width) continue;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
  }
  ctx.restore();
}

// The charts of one section: they show the same times, and the cursor is at the same time in all of them.
class Group {
  constructor(uPlot, grid, step, hint) {
    this.uPlot = uPlot;
    this.step = step;
    this.charts = [];
    this.key = `group-${++Group.made}`;
    this.button = element("button", { type: "button", class: "whole-range", hidden: "" });
    this.button.textContent = "Whole range";
    this.button.addEventListener("click", () => {
      this.showAll();
      this.charts[0].place.focus({ preventScroll: true });
    });
    const line = element("p", { class: "counted" });
    line.append(hint, " ", this.button);
    grid.before(line);
  }

  get times() {
    return this.charts[0].plot.data[0];
  }

  get zoomed() {
    const { min, max } = this.charts[0].plot.scales.x;
    return min > this.times[0] || max < this.times.at(-1);
  }

  show(min, max) {
    for (const { plot } of this.charts) plot.setScale("x", { min, max });
  }

  showAll() {
    this.show(this.times[0], this.times.at(-1));
  }

  // Halves or doubles the time that is shown, around `at`.
  zoom(at, factor) {
    const { min, max } = this.charts[0].plot.scales.x;
    const length = Math.max((max - min) * factor, 4 * this.step);
    const first = Math.max(Math.min(at - length / 2, this.times.at(-1) - length), this.times[0]);
    this.show(first, Math.min(first + length, this.times.at(-1)));
  }
}
Group.made = 0;

const groups = new WeakMap();
const byPlace = new WeakMap();
const all = new Set();

class Chart {
  // Takes the place of `replaced`; `place` is what is focused and described, the value under the cursor stands beside it.
  constructor(group, replaced, { format, label, marks = [], data }) {
    this.group = group;
    this.format = format;
    this.label = label;
    this.marks = marks;
    this.place = element("div", { role: "img", tabindex: "0", class: "axes" });
    this.under = element("output", { class: "under-cursor", "aria-live": "off", hidden: "" });
    const frame = element("div", { class: "zoomable" });
    frame.append(this.place, this.under);
    replaced.replaceWith(frame);
    this.plot = new group.uPlot(this.options(), data, this.place);
    group.charts.push(this);
    byPlace.set(this.place, this);
    all.add(this);
    sizes.observe(this.place);
    this.place.addEventListener("keydown", (event) => this.pressed(event));
    // What the mouse is over is not read out; where somebody goes by keyboard is.
    this.place.addEventListener("focus", () => this.under.setAttribute("aria-live", "polite"));
    this.place.addEventListener("blur", () => this.under.setAttribute("aria-live", "off"));
  }

  options() {
    const axis = { stroke: () => colour("--soft"), font: FONT, grid: { stroke: () => colour("--line"), width: 1 }, ticks: { show: false } };
    return {
      width: this.place.clientWidth || 300,
      height: HEIGHT,
      padding: [8, null, 0, 0],
      legend: { show: false },
      cursor: { y: false, drag: { x: true, y: false, dist: 5 }, sync: { key: this.group.key, scales: ["x", null] } },
      tzDate: (at) => this.group.uPlot.tzDate(new Date(at * 1000), "UTC"),
      scales: { y: { range: (plot, least, most) => [0, Math.max((most ?? 0) * 1.05, TOPS[this.format] ?? 1)] } },
      axes: [
        { ...axis, space: 60, size: 24, gap: 4, values: timeTexts },
        {
          ...axis,
          size: widthOf,
          gap: 4,
          splits: (plot, _, least, top) => valueTicks(this.format, top, plot.bbox.height / devicePixelRatio),
          values: (plot, ticks) => ticks.map((value) => shown(this.format, value)),
        },
      ],
      series: [{}, { stroke: () => colour("--part"), width: 1.5, points: { show: false, filter: lonePoints, fill: () => colour("--part") } }],
      hooks: {
        draw: [(plot) => drawMarks(plot, this.marks)],
        setCursor: [() => this.tell()],
        setScale: [(plot, key) => this.scaled(key)],
      },
    };
  }

  scaled(key) {
    if (key === "x" && this.group.charts[0] === this) this.group.button.hidden = !this.group.zoomed;
  }

  // The value under the cursor, and what is marked there.
  tell() {
    const { left, idx } = this.plot?.cursor ?? {};
    this.under.hidden = !(left >= 0) || idx === null || idx === undefined;
    if (this.under.hidden) return;
    const [times, values] = this.plot.data;
    this.under.textContent = `${shown("clock", times[idx])} UTC · ${shown(this.format, values[idx])}`;
    for (const [at, what] of this.marks) {
      if (at <= times[idx] - this.group.step || at > times[idx]) continue;
      const words = element("bdi", {});
      words.textContent = what;
      this.under.append(" · ", words);
    }
  }

  set(data) {
    const { min, max } = this.plot.scales.x;
    const [times] = data;
    const zoomed = this.group.zoomed && min < times.at(-1) && max > times[0];
    this.plot.setData(data, !zoomed);
    if (zoomed) this.plot.setScale("x", { min, max });
    this.tell();
  }

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { plot, group } = this;
    const [first, last] = plot.series[0].idxs;
    const now = plot.cursor.left >= 0 ? plot.cursor.idx : null;
    const moves = { ArrowLeft: (now ?? last + 1) - 1, ArrowRight: (now ?? first - 1) + 1, Home: first, End: last };
    if (event.key in moves) {
      const place = Math.min(Math.max(moves[event.key], first), last);
      plot.setCursor({ left: plot.valToPos(plot.data[0][place], "x"), top: 0 }, true, true);
    } else if (event.key === "+" || event.key === "-") {
      group.zoom(now === null ? (plot.scales.x.min + plot.scales.x.max) / 2 : plot.data[0][now], event.key === "+" ? 0.5 : 2);
    } else if (event.key === "Escape") {
      plot.setCursor({ left: -10, top: -10 }, true, true);
      group.showAll();
    } else return;
    event.preventDefault();
  }
}

const sizes = new ResizeObserver((entries) => {
  for (const { target, contentRect } of entries) {
    if (contentRect.width > 0) byPlace.get(target).plot.setSize({ width: Math.floor(contentRect.width), height: HEIGHT });
  }
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => all.forEach(({ plot }) => plot.redraw(false)));

function groupOf(uPlot, grid, step, hint = HINT) {
  if (!groups.has(grid)) groups.set(grid, new Group(uPlot, grid, step, hint));
  return groups.get(grid);
}

function hourData(values, end) {
  const known = values.length ? values : Array(POINTS).fill(null);
  return [known.map((_, place) => end - (known.length - 1 - place) * POINT_SECONDS), known];
}

// Shows a column of the last hour, whose newest point is of the time `end`, in the server's picture or in the chart that took its place.
export function showHour(place, values, end) {
  const { spark, format, label } = place.dataset;
  const chart = byPlace.get(place);
  if (chart) {
    chart.set(hourData(values, end));
    chart.place.setAttribute("aria-label", `${label}: ${summary(values, format)}`);
    return;
  }
  draw(place, values);
  withLibrary((uPlot) => {
    if (!place.isConnected) return;
    const group = groupOf(uPlot, place.closest(".charts"), POINT_SECONDS, `${HINT} Times are UTC.`);
    const described = place.getAttribute("aria-label");
    const made = new Chart(group, place, { format, label, data: hourData(values, end) }).place;
    Object.assign(made.dataset, { spark, format, label });
    made.setAttribute("aria-label", described);
  });
}

// Makes charts of the pictures of the long history, whose values are with them.
export function showHistory(section) {
  const grid = section?.querySelector(".history-charts");
  for (const chart of all) {
    if (chart.place.isConnected) continue;
    chart.plot.destroy();
    sizes.unobserve(chart.place);
    all.delete(chart);
  }
  if (!grid) return;
  withLibrary((uPlot) => {
    if (!grid.isConnected) return;
    const { start, step, marks } = grid.dataset;
    const group = groupOf(uPlot, grid, Number(step));
    for (const picture of grid.querySelectorAll("svg[data-values]")) {
      const { format, label, values } = picture.dataset;
      const known = JSON.parse(values);
      const times = known.map((_, place) => Number(start) + place * step);
      const plot = picture.closest(".plot");
      plot.nextElementSibling.remove();
      const made = new Chart(group, plot, { format, label, marks: JSON.parse(marks), data: [times, known] }).place;
      made.setAttribute("aria-label", picture.getAttribute("aria-label"));
    }
  });
}
