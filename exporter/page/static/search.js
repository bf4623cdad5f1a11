// Search, order and pages without a load of the whole page: the address changes as it would without scripts, and its results are put in.

import { refresh } from "./live.js";

const TYPING_MILLISECONDS = 250;
let wanted = 0;

async function go(address, { push }) {
  const mine = ++wanted;
  let text;
  try {
    const reply = await fetch(address, { headers: { Accept: "text/html" } });
    text = await reply.text();
  } catch {
    location.assign(address);
    return;
  }
  if (mine !== wanted) return;
  const there = new DOMParser().parseFromString(text, "text/html").getElementById("results");
  const here = document.getElementById("results");
  if (!there || !here) {
    location.assign(address);
    return;
  }
  const sorted = document.activeElement?.dataset?.sort;
  here.replaceWith(document.importNode(there, true));
  if (push) history.pushState(null, "", address);
  else history.replaceState(null, "", address);
  keepOrder(address);
  if (sorted) document.querySelector(`#results a[data-sort="${CSS.escape(sorted)}"]`)?.focus({ preventScroll: true });
  refresh();
}

// The form sends the order that counts now.
function keepOrder(address) {
  const form = document.querySelector('form[role="search"]');
  const order = new URL(address, location.href).searchParams.get("sort");
  let field = form?.elements.namedItem("sort");
  if (!form || !order) return;
  if (!field) {
    field = document.createElement("input");
    field.type = "hidden";
    field.name = "sort";
    form.append(field);
  }
  field.value = order;
}

function addressOf(form) {
  const filled = [...new FormData(form)].filter(([, value]) => value !== "");
  const words = new URLSearchParams(filled).toString();
  return form.action.split("?")[0] + (words ? `?${words}` : "");
}

export function start() {
  const form = document.querySelector('form[role="search"]');
  let timer = 0;
  form?.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    go(addressOf(form), { push: true });
  });
  form?.addEventListener("input", () => {
    clearTimeout(timer);
    timer = setTimeout(() => go(addressOf(form), { push: false }), TYPING_MILLISECONDS);
  });
  document.addEventListener("click", (event) => {
    const chosen = event.target.closest?.("#results thead a, #results .pager a");
    if (!chosen || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    chosen.focus({ preventScroll: true });
    go(chosen.href, { push: true });
  });
  addEventListener("popstate", () => location.reload());
}
