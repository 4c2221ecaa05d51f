"""How the live page looks: safe with any text, readable in any light and at any width. And its pictures."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from faults.behaviours import Delay, Pass
from faults.proxy import Proxy
from harness.browser import DESKTOP, PHONE, LivePage, OpenPage, expect
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.pictures import packed
from harness.pod_client import PodClient
from harness.runs import fill_buffer, lose_points, send, simulated_run
from harness.sizes import sized

pytestmark = pytest.mark.timeout(sized(180, long=900), method="signal")

POD = "127.0.2.1"
NARROW = (320, 600)
SCHEMES = ("light", "dark")
LEVELS = ("live", "buffering", "draining", "losing")
#: WCAG 2.2: what text needs, and what must be read at arm's length in the sun.
CONTRAST, CONTRAST_OF_SENTENCE = 4.5, 7.0
#: What a hostile pod, or an operator's joke, would have the page run.
HOSTILE = "<img src=x onerror=isTakenOver=1><script>isTakenOver=1</script>"
#: Names that mean something to JavaScript.
TRAPS = ("__proto__", "constructor", "toString", "hasOwnProperty")
LONG_NAME = "x" * 63
#: Where `make screenshots` wants the pictures.
SCREENSHOTS = os.environ.get("ODS_SCREENSHOTS")
SCREENSHOT_POINTS = 150_000
SCREENSHOT_PODS = ("--pod", "127.0.1.1=pod-a", "--pod", "127.0.1.2=pod-b")
#: A value has been drawn for so long on the pictures. Seconds.
DRAWN_SECONDS = 40


def test_what_pods_send_stays_text(start_ods: StartOds, influx: InfluxServer, open_page: OpenPage) -> None:
    """In log messages, in names given by the operator, and in names of values that mean something to JavaScript."""
    ods = start_ods(influx, "--pod", f"{POD}={HOSTILE}")
    page = open_page(ods)
    with PodClient(ods.port).read_replies() as pod:
        send(pod, *[f"POD2{name} {number}".encode() for number, name in enumerate(TRAPS, 1)])
        send(pod, f"POD1[ERROR] {HOSTILE}".encode())
        expect(page.pod_button(HOSTILE)).to_have_text(HOSTILE)
        expect(page.find("#pods .log")).to_contain_text(HOSTILE)
        expect(page.find("#values > .log")).to_contain_text(HOSTILE)
        expect(page.find("#values h2")).to_contain_text(HOSTILE)
        for number, name in enumerate(TRAPS, 1):
            expect(page.value(name).locator(".now")).to_have_text(str(number))
        assert page.find("main script, main img").count() == 0
        assert page.page.evaluate("window.isTakenOver") is None
        assert page.hidden_width() <= 0
    expect(page.find("#boot")).to_contain_text(HOSTILE)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_text_stands_out_from_its_ground(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage, scheme: str
) -> None:
    """In every state of the page, stale values and a lost contact included."""
    ods = start_ods(influx, "--pod", "127.0.2.9=missing", "--allow", "127.0.2.0/24")
    page = open_page(ods, scheme=scheme)
    expect(page.find("#boot li").first).to_be_visible()
    expect_contrast(page, "body", CONTRAST)
    with PodClient(ods.port).read_replies() as pod:
        send(pod, b"POD2height 1.25", b"POD1[WARN]  unsteady", b"POD1[ERROR] checksum", b"nonsense")
        expect(page.value("height")).to_have_attribute("data-stale", "true")
        expect_contrast(page, "body", CONTRAST)
        page.value("height").get_by_role("button").click()
        expect_contrast(page, "dialog", CONTRAST)
        page.page.keyboard.press("Escape")
        for level in LEVELS:
            least = page.contrasts("#sentence", level=level)[0]
            assert least[0] >= CONTRAST_OF_SENTENCE, (level, least)
    ods.pause()
    page.expect_contact(False)
    expect_contrast(page, "body", CONTRAST)
    expect_contrast(page, "#contact", CONTRAST_OF_SENTENCE)
    ods.resume()


def expect_contrast(page: LivePage, selector: str, least: float) -> None:
    found = page.contrasts(selector)
    assert found
    assert found[0][0] >= least, found[:5]


@pytest.mark.parametrize("size", [PHONE, NARROW, DESKTOP], ids=["phone", "narrow", "desktop"])
def test_nothing_has_to_be_scrolled_for_sideways(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage, size: tuple[int, int]
) -> None:
    """However long names and messages are, and wherever the page is in its life."""
    ods = start_ods(influx, "--pod", f"127.0.2.9={LONG_NAME}", "--allow", "127.0.2.0/24")
    page = open_page(ods, size=size)
    expect(page.find("#boot li").first).to_be_visible()
    assert page.hidden_width() <= 0
    with PodClient(ods.port).read_replies() as pod:
        send(
            pod,
            f"POD2{LONG_NAME} -123456.789".encode(),
            b"POD1[NOTE]  " + b"W" * 500,
            b"POD2b -1.234e-30",
            b"POD2c -123456789",
        )
        expect(page.value(LONG_NAME)).to_be_visible()
        expect(page.find("#values > .log")).to_contain_text("WWW")
        assert page.hidden_width() <= 0
        assert not page.overflowing("#values .tiles > li, #pods .cards > li, .panel")
        page.value(LONG_NAME).get_by_role("button").click()
        expect(page.find("dialog canvas")).to_be_visible()
        assert page.hidden_width() <= 0
        assert not page.overflowing("dialog")
    ods.pause()
    page.expect_contact(False)
    assert page.hidden_width() <= 0
    ods.resume()


def test_the_colours_are_the_system_s_until_the_reader_chooses(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage
) -> None:
    """The choice is kept by the browser."""
    ods = start_ods(influx)
    page = open_page(ods, scheme="dark")
    assert is_dark(page)
    button = page.page.get_by_role("button", name="Theme")
    button.click()
    expect(button).to_have_text("Theme: light")
    assert not is_dark(page)
    page.page.reload()
    expect(button).to_have_text("Theme: light")
    assert not is_dark(page)
    button.click()
    button.click()
    expect(button).to_have_text("Theme: automatic")
    assert is_dark(page)


def is_dark(page: LivePage) -> bool:
    return bool(page.page.evaluate("getComputedStyle(document.documentElement).colorScheme === 'dark'"))


@contextlib.contextmanager
def scene(level: str, start_ods: StartOds, influx: InfluxServer) -> Iterator[OdsProcess]:
    """An ODS beside a run of two pods, at this level."""
    with Proxy(influx.port) as proxy:
        limit = "4MiB" if level == "losing" else "10GiB"
        ods = start_ods(proxy, *SCREENSHOT_PODS, "--pod", "10.0.0.23=pod-c", "--buffer-limit", limit)
        with simulated_run(ods, seconds=DRAWN_SECONDS * 4):
            ods.wait_for_status(
                lambda status: status["uptime_seconds"] > DRAWN_SECONDS,
                what="curves",
                timeout_seconds=2 * DRAWN_SECONDS,
            )
            if level != "live":
                influx.kill()
                ods.wait_for_status(lambda status: status["state"] == "buffering", what="an outage")
            if level in ("buffering", "draining"):
                fill_buffer(ods, SCREENSHOT_POINTS)
            if level == "losing":
                lose_points(ods)
            if level == "draining":
                proxy.behave(Delay(1.0))
                influx.start()
            yield ods
            proxy.behave(Pass())


def take_picture(page: LivePage, name: str) -> None:
    folder = Path(SCREENSHOTS or "")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.png").write_bytes(packed(page.page.screenshot()))


@pytest.mark.skipif(SCREENSHOTS is None, reason="pictures are made by `make screenshots`")
@pytest.mark.parametrize("level", LEVELS)
def test_pictures(start_ods: StartOds, own_influx: InfluxServer, open_page: OpenPage, level: str) -> None:
    with scene(level, start_ods, own_influx) as ods:
        pages = {
            (device, scheme): open_page(ods, size=size, scheme=scheme)
            for device, size in (("desktop", DESKTOP), ("phone", PHONE))
            for scheme in SCHEMES
        }
        for (device, scheme), page in pages.items():
            page.expect_level(level)
            page.wait_for("() => document.querySelector('#values canvas') !== null || innerWidth < 500")
            take_picture(page, f"{level}-{device}-{scheme}")
        if level == "live":
            page.find("#values").evaluate("(values) => values.scrollIntoView({ behavior: 'instant' })")
            page.wait_for("() => document.querySelectorAll('#values canvas').length > 3")
            take_picture(page, "values-phone-dark")
            ods.pause()
            for device in ("desktop", "phone"):
                pages[device, "light"].expect_contact(False)
                take_picture(pages[device, "light"], f"no-contact-{device}-light")
            ods.resume()
