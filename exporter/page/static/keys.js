// Keys: / to the search, j and k from row to row, Enter opens (as of any link), g and a letter to a section, Escape leaves a field.

const SECTIONS = { o: "/", v: "/vms", n: "/nodes", m: "/migrations", e: "/events" };
let going = false;

function step(by) {
  const links = [...document.querySelectorAll("tbody tr td:first-child a, tbody tr td:nth-child(2) a")].filter((link) => link.offsetParent);
  if (!links.length) return;
  const now = links.indexOf(document.activeElement);
  links[Math.min(Math.max(now + by, 0), links.length - 1)].focus();
}

export function start() {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (going) {
      going = false;
      if (event.key in SECTIONS) location.assign(SECTIONS[event.key]);
      return;
    }
    if (event.key === "/") {
      const field = document.querySelector('input[type="search"]');
      if (field) {
        event.preventDefault();
        field.focus();
        field.select();
      }
    } else if (event.key === "j") step(1);
    else if (event.key === "k") step(-1);
    else if (event.key === "g") going = true;
  });
}
