"""The files of the live page: local, small, and such that a strict Content-Security-Policy suits them."""

import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "ods" / "page"
UPLOT = PAGE / "uplot"
#: Our own; uPlot is taken as it was released.
OWN = sorted(path for path in PAGE.iterdir() if path.is_file())
#: An address that is a name, and is never asked.
NAMES = {"http://www.w3.org/2000/svg"}
#: What would turn text into markup or into code.
DANGEROUS = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|\bnew Function\b|srcdoc|DOMParser"
MOST_LINES = 300
#: The stylesheet is no module.
MOST_LINES_OF_STYLE = 450


class _Tags(HTMLParser):
    """Every tag of a page with its attributes, and what stands between those of a script or a style."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.inline: list[str] = []
        self._within = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within in ("script", "style") and data.strip():
            self.inline.append(data)


@pytest.fixture(scope="module")
def index() -> _Tags:
    tags = _Tags()
    tags.feed((PAGE / "index.html").read_text(encoding="utf-8"))
    return tags


def test_uplot_is_the_released_one() -> None:
    """Its README tells the checksums: who brings a newer release tells the new ones."""
    told = dict(re.findall(r"^\| `(.+?)` \| `([0-9a-f]{64})` \|$", (UPLOT / "README.md").read_text(), re.MULTILINE))
    found = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in UPLOT.iterdir()}
    del found["README.md"]
    assert found == told
    assert b"uPlot (v1.6.32)" in (UPLOT / "uPlot.iife.min.js").read_bytes()[:100]


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_nothing_is_taken_from_elsewhere(path: Path) -> None:
    """Control points have no internet."""
    addresses = re.findall(r"""(?:https?:)?//[\w.-]+\.[a-z]{2,}[^\s"'`<>)]*""", path.read_text(encoding="utf-8"))
    assert set(addresses) <= NAMES


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_what_pods_send_cannot_become_markup(path: Path) -> None:
    assert not re.findall(DANGEROUS, path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_file_says_first_what_it_is_for_and_is_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".js":
        assert text.startswith("// ")
    assert len(text.splitlines()) <= (MOST_LINES_OF_STYLE if path.suffix == ".css" else MOST_LINES)


def test_the_page_has_no_script_and_no_style_within(index: _Tags) -> None:
    assert not index.inline
    attributes = [name for _, attributes in index.tags for name in attributes]
    assert not [name for name in attributes if name == "style" or name.startswith("on")]


def test_every_file_that_the_page_names_is_there(index: _Tags) -> None:
    named = [attributes.get("src") or attributes.get("href") for _, attributes in index.tags]
    assets = [name.removeprefix("/page/") for name in named if name and name.startswith("/page/")]
    assert {"main.js", "page.css", "theme.js"} <= set(assets)
    assert not [name for name in assets if not (PAGE / name).is_file()]


def test_every_module_that_a_module_imports_is_there() -> None:
    imported = {
        name
        for path in PAGE.glob("*.js")
        for name in re.findall(r'^import .* from "\./(.+)";$', path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    modules = {path.name for path in PAGE.glob("*.js")}
    assert imported == modules - {"main.js", "theme.js"}, "one is missing, or nobody needs it"
