// Keeps what the page shows current: every element with data-source is filled from that answer of the API.

import { showHour } from "./charts.js";
import { shown } from "./formats.js";
import { flags, show } from "./tables.js";

const API = "/api/v1/";
const EVERY_MILLISECONDS = 5000;
const SOON_MILLISECONDS = 500;

function at(answer, path) {
  return path.split(".").reduce((value, name) => (value === null || value === undefined ? null : value[name]), answer);
}

function rowsAt(answer, path) {
  const found = at(answer, path) ?? [];
  // VMs by state are an object.
  return Array.isArray(found) ? found : Object.entries(found).map(([state, vms]) => ({ state, vms }));
}

function fill(root, answer) {
  for (const table of root.querySelectorAll("table[data-rows]")) show(table, rowsAt(answer, table.dataset.rows));
  for (const place of root.querySelectorAll("[data-value]")) {
    const value = at(answer, place.dataset.value);
    const text = shown(place.dataset.format, value);
    if (place.textContent !== text) place.textContent = text;
    place.classList.toggle("zero", value === 0);
  }
  for (const place of root.querySelectorAll("[data-spark]")) showHour(place, at(answer, place.dataset.spark) ?? [], answer.hour_end);
}

let round = 0;
let timer = 0;
let problem = "";

function tell(text, bad) {
  const place = document.getElementById("live");
  if (place.textContent !== text) place.textContent = text;
  place.classList.toggle("bad", bad);
}

export async function refresh() {
  const mine = ++round;
  clearTimeout(timer);
  const roots = [...document.querySelectorAll("[data-source]")];
  const sources = [...new Set(roots.map((root) => root.dataset.source))];
  try {
    const answers = await Promise.all(
      sources.map(async (source) => {
        const reply = await fetch(API + source, { headers: { Accept: "application/json" } });
        return reply.ok ? reply.json() : Promise.reject(new Error(`${reply.status}`));
      }),
    );
    // A newer round, or another page, has begun meanwhile.
    if (mine !== round) return;
    const bySource = new Map(sources.map((source, place) => [source, answers[place]]));
    for (const root of roots) if (root.isConnected) fill(root, bySource.get(root.dataset.source));
    for (const place of document.querySelectorAll("[data-flags]")) {
      const answer = bySource.get(place.closest("main").querySelector("[data-source]").dataset.source);
      place.replaceChildren(...flags(at(answer, place.dataset.flags) ?? []));
    }
    problem = "";
    tell("Live", false);
  } catch (error) {
    if (mine !== round) return;
    problem = error.message === "404" ? "No longer there" : "No answer, trying again";
    tell(problem, true);
  }
  document.documentElement.dataset.rounds = String(round);
  plan(EVERY_MILLISECONDS);
}

function plan(milliseconds) {
  clearTimeout(timer);
  if (!document.hidden) timer = setTimeout(refresh, milliseconds);
}

let pending = 0;

function soon() {
  if (pending) return;
  pending = setTimeout(() => {
    pending = 0;
    if (!document.hidden) refresh();
  }, SOON_MILLISECONDS);
}

let stream = null;

// The stream of events tells when something has happened; it goes on by itself after a break.
function listen() {
  if (document.hidden) {
    stream?.close();
    stream = null;
    return;
  }
  if (stream) return;
  stream = new EventSource(`${API}events`);
  const kinds = [
    "vm_appeared", "vm_vanished", "vm_state", "vm_moved", "vm_stuck", "vm_answers", "vm_conflict", "vm_conflict_over",
    "migration_started", "migration_ended", "node_appeared", "node_down", "node_up", "node_forgotten", "lost",
  ];
  for (const kind of kinds) stream.addEventListener(kind, soon);
}

export function start() {
  document.addEventListener("visibilitychange", () => {
    listen();
    if (document.hidden) clearTimeout(timer);
    else refresh();
  });
  listen();
  refresh();
}
