// The long history within a VM's page: the charts of the page that a range links to are put in, and the range is kept in the address.

import { showHistory } from "./charts.js";

const ID = "long-history";
let wanted = 0;

async function load(address) {
  const mine = ++wanted;
  document.getElementById(ID).setAttribute("aria-busy", "true");
  let found = null;
  let why = "This exporter does not answer.";
  try {
    const reply = await fetch(address, { headers: { Accept: "text/html" } });
    found = new DOMParser().parseFromString(await reply.text(), "text/html").getElementById(ID);
    if (!found) why = `The history can't be shown: ${reply.status}.`;
  } catch {
    // said below
  }
  if (mine !== wanted) return;
  const here = document.getElementById(ID);
  if (found) {
    const focused = here.contains(document.activeElement) ? document.activeElement.getAttribute("href") : null;
    here.replaceWith(document.importNode(found, true));
    showHistory(document.getElementById(ID));
    if (focused) document.querySelector(`#${ID} a[href="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
    return;
  }
  here.removeAttribute("aria-busy");
  const line = document.createElement("p");
  line.className = "missing";
  line.textContent = why;
  here.lastElementChild.replaceWith(line);
}

export function start() {
  const first = document.querySelector(`#${ID} a[data-load]`);
  if (first) load(first.href);
  else showHistory(document.getElementById(ID));
  document.addEventListener("click", (event) => {
    const chosen = event.target.closest?.(`#${ID} .ranges a`);
    if (!chosen || event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    history.pushState(null, "", `${location.pathname}${new URL(chosen.href).search}`);
    load(chosen.href);
  });
}
