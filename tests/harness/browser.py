"""The live page as its reader sees it: Debian's Chromium without a window, driven from the test's own thread.

What the page must never do is watched all the time: ask another host, fail in a script, or break its own policy.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, expect, sync_playwright

__all__ = ["DESKTOP", "PHONE", "LivePage", "OpenPage", "expect", "is_installed", "running_browser"]

#: What the fixture `open_page` gives: called with an OdsProcess, it returns the LivePage that it serves.
OpenPage = Callable[..., "LivePage"]

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
#: How long the page may take to show something; it fails a test that hangs, nothing else. Milliseconds.
PATIENCE = 30_000
expect.set_options(timeout=PATIENCE)
DESKTOP, PHONE = (1440, 900), (390, 844)
#: What Chromium says when there is nobody to connect to: that is part of the tests.
EXPECTED_COMPLAINTS = re.compile(r"Failed to load resource: net::ERR_|503 \(Service Unavailable\)")

#: For each visible text: the contrast to what it stands on (WCAG 2.2), the least first. Of a gradient each colour.
CONTRASTS = """
(within, level) => {
  if (level !== null) within.dataset.level = level;
  const parse = (text) => (text.match(/rgba?\\([^)]*\\)/g) ?? []).map((colour) => colour.match(/[\\d.]+/g).map(Number));
  const luminance = ([r, g, b]) => [r, g, b]
    .map((part) => part / 255)
    .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4))
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const grounds = (element) => {
    for (let at = element; at !== null; at = at.parentElement) {
      const { backgroundColor, backgroundImage } = getComputedStyle(at);
      const found = parse(backgroundImage === "none" ? backgroundColor : backgroundImage);
      const solid = found.filter((colour) => colour[3] !== 0);
      if (solid.length > 0) return solid;
    }
    return [[255, 255, 255]];
  };
  const found = [];
  for (const element of [within, ...within.querySelectorAll("*")]) {
    const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
    if (!own || !element.checkVisibility() || element.closest(".unseen")) continue;
    const ink = luminance(parse(getComputedStyle(element).color)[0]);
    for (const ground of grounds(element).map(luminance)) {
      const contrast = (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
      found.push([contrast, element.textContent.trim().slice(0, 40)]);
    }
  }
  return found.sort(([one], [other]) => one - other);
}
"""


def is_installed() -> bool:
    """Tell whether there is a browser to start."""
    return shutil.which(CHROMIUM) is not None


@contextlib.contextmanager
def running_browser() -> Iterator[Browser]:
    """Start Chromium, past any proxy."""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS, env=environment)
        try:
            yield browser
        finally:
            browser.close()


class LivePage:
    """The page in a window of its own."""

    def __init__(self, browser: Browser, url: str, *, size: tuple[int, int] = DESKTOP, scheme: Any = "light") -> None:
        self.url = url
        self.faults: list[str] = []
        self.context: BrowserContext = browser.new_context(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
        )
        self.context.set_default_timeout(PATIENCE)
        self.context.on("request", lambda request: self._check_request(request.url))
        self.page: Page = self.context.new_page()
        self.page.on("console", self._check_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"a script failed: {error}"))

    def open(self, address: str = "/") -> "LivePage":
        """Load it, and mark this load: a reload would take the mark away."""
        self.page.goto(self.url + address)
        self.page.evaluate("window.isMarked = true")
        return self

    @property
    def was_reloaded(self) -> bool:
        return not self.page.evaluate("window.isMarked === true")

    def find(self, selector: str) -> Locator:
        return self.page.locator(selector)

    def value(self, name: str) -> Locator:
        """The tile of a value."""
        return self.find(f'#values li[data-name="{name}"]')

    def pod(self, name: str) -> Locator:
        """The card of a pod."""
        return self.find("#pods li[data-pod]").filter(has=self.pod_button(name))

    def pod_button(self, name: str) -> Locator:
        """What chooses a pod."""
        return self.page.get_by_role("button", name=name, exact=True)

    def expect_level(self, *levels: str) -> None:
        """Return when the sentence is of one of these levels."""
        expect(self.find("#sentence")).to_have_attribute(
            "data-level", re.compile("|".join(levels)), timeout=2 * PATIENCE
        )

    def expect_text(self, selector: str, pattern: str) -> None:
        """Return when the text of an element matches."""
        expect(self.find(selector)).to_have_text(re.compile(pattern, re.DOTALL))

    def expect_contact(self, is_there: bool) -> None:
        """Return when the page says whether it has contact with ODS."""
        contact = expect(self.find("#contact"))
        contact.to_be_hidden() if is_there else contact.to_be_visible()

    def wait_for(self, expression: str, argument: object = None) -> Any:
        """Return the first true value of a JavaScript function."""
        return self.page.wait_for_function(expression, arg=argument, timeout=PATIENCE).json_value()

    def figures(self, selector: str) -> dict[str, int]:
        """The whole numbers of a list of figures, by their names; what is no number is left out."""
        pairs = self.find(selector).evaluate(
            "(list) => [...list.children].map((one) => [one.dataset.figure, one.querySelector('dd').textContent])"
        )
        numbers = ((name, re.sub(r"[\s\u202f]", "", text)) for name, text in pairs)
        return {name: int(text) for name, text in numbers if text.isdecimal()}

    def painted(self, name: str) -> int:
        """How many pixels of a value's chart are painted."""
        return int(
            self.value(name).evaluate(
                """(tile) => {
                  const canvas = tile.querySelector("canvas");
                  if (canvas === null) return 0;
                  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                  return data.filter((_, at) => at % 4 === 3 && data[at] > 0).length;
                }"""
            )
        )

    def contrasts(self, selector: str, *, level: str | None = None) -> list[tuple[float, str]]:
        """The contrasts of all text in an element, the least first, with what it says.

        With `level` as if it were of that level: the status that comes next sets the true one again.
        """
        return [(contrast, text) for contrast, text in self.find(selector).evaluate(CONTRASTS, level)]

    def overflowing(self, selector: str) -> list[str]:
        """The elements whose content is wider than they are, by their text."""
        return self.find(selector).evaluate_all(
            "(all) => all.filter((one) => one.scrollWidth > one.clientWidth + 1).map((one) => one.textContent)"
        )

    def hidden_width(self) -> int:
        """How many pixels of its width have to be scrolled for."""
        return int(self.page.evaluate("document.documentElement.scrollWidth - innerWidth"))

    def close(self) -> None:
        """Close the window. Raises AssertionError where the page did what it must never do."""
        self.context.close()
        assert not self.faults, self.faults[:5]

    def _check_request(self, url: str) -> None:
        if urlsplit(url).netloc != urlsplit(self.url).netloc:
            self.faults.append(f"asked another host: {url}")

    def _check_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not EXPECTED_COMPLAINTS.search(message.text):
            self.faults.append(f"console: {message.text}")
