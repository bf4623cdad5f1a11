"""Charts of the fleet page that scripts have drawn: where the mouse goes, what it reads there, and which colours are on the canvas."""

from __future__ import annotations

import re
from typing import Final

from playwright.sync_api import Locator, Page, expect

_COUNTED: Final = """(place, [from, to, red, green, blue]) => {
  const [canvas, over] = [place.querySelector("canvas"), place.querySelector(".u-over")];
  const copy = Object.assign(document.createElement("canvas"), { width: canvas.width, height: canvas.height });
  const ink = copy.getContext("2d", { willReadFrequently: true });
  ink.drawImage(canvas, 0, 0);
  const scale = canvas.width / canvas.clientWidth;
  const [left, width, height] = [over.offsetLeft, over.clientWidth, over.clientHeight].map((each) => each * scale);
  const area = ink.getImageData(left + from * width, over.offsetTop * scale, Math.max((to - from) * width, 1), height).data;
  let found = 0;
  for (let at = 0; at < area.length; at += 4) {
    const far = Math.abs(area[at] - red) + Math.abs(area[at + 1] - green) + Math.abs(area[at + 2] - blue);
    if (far < 24 && area[at + 3] > 200) found += 1;
  }
  return found;
}"""


class ChartShown:
    """A chart by its title, within a part of a page."""

    def __init__(self, page: Page, within: str, title: str) -> None:
        """``within`` is a selector."""
        self.page = page
        self.place: Locator = page.locator(within).get_by_role("img", name=re.compile(f"^{title}: "))
        self.under: Locator = self.place.locator("xpath=following-sibling::output")
        expect(self.place.locator("canvas")).to_be_visible()

    def point(self, part: float) -> str:
        """Moves the mouse to a part of the plot's width, 0 at its left end; what is read there."""
        x, y = self.at(part)
        self.page.mouse.move(x, y)
        expect(self.under).to_be_visible()
        return self.under.inner_text()

    def drag(self, first: float, last: float) -> None:
        """Drags the mouse from one part of the width to another."""
        self.page.mouse.move(*self.at(first))
        self.page.mouse.down()
        self.page.mouse.move(*self.at((first + last) / 2))
        self.page.mouse.move(*self.at(last))
        self.page.mouse.up()

    def at(self, part: float) -> tuple[float, float]:
        """Where that is on the screen."""
        self.place.scroll_into_view_if_needed()
        box = self.place.locator(".u-over").bounding_box()
        assert box
        # Its very ends belong to the frame.
        return box["x"] + min(max(part * box["width"], 0.25), box["width"] - 0.25), box["y"] + box["height"] / 2

    def pixels(self, colour: str, first: float = 0.0, last: float = 1.0) -> int:
        """Pixels of the colour ``#rrggbb`` between two parts of the plot's width."""
        found: int = self.place.evaluate(_COUNTED, [first, last, *bytes.fromhex(colour.removeprefix("#"))])
        return found
