"""The live page and the sensor file: a label and a unit for each value, and a colour, with words, beyond a limit."""

import re
from pathlib import Path

import pytest
from harness.browser import OpenPage, expect
from harness.influx_server import InfluxServer
from harness.ods_process import StartOds, run_command
from harness.pod_client import PodClient
from harness.runs import send
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(120, long=900), method="signal")

#: Notes each colour that one value gets, also those that a look from here would miss.
WATCH = """
(name) => {
  window.tones = [];
  const note = ({ target }) => {
    if (target.dataset.name === name && target.dataset.limit !== window.tones.at(-1)) {
      window.tones.push(target.dataset.limit);
    }
  };
  new MutationObserver((changes) => changes.forEach(note))
    .observe(document.querySelector(".tiles"), { subtree: true, attributeFilter: ["data-limit"] });
}
"""
SENSORS = """
[accel_x]
label = "Acceleration, <b>forward</b>"
unit = "m/s²"
warning = {low = -12, high = 12}
danger = {low = -20, high = 20}
"""


def test_a_value_has_its_label_and_unit_and_is_coloured_beyond_its_limits(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage, tmp_path: Path
) -> None:
    """A label is text, whatever stands in it; a name that the file does not have looks as ever."""
    file = tmp_path / "sensors.toml"
    file.write_text(SENSORS, encoding="utf-8")
    ods = start_ods(influx, "--sensors", str(file))
    with PodClient(ods.port).read_replies() as pod:
        send(pod, b"POD2accel_x 1.5", b"POD2other 3")
        page = open_page(ods)
        tile, other = page.value("accel_x"), page.value("other")
        expect(tile.locator(".now")).to_have_text("1.5")
        expect(tile.locator(".unit")).to_have_text("m/s²")
        expect(tile.locator(".label")).to_have_text("Acceleration, <b>forward</b>")
        expect(tile).to_have_attribute("data-limit", "")
        calm = tile.evaluate("tile => getComputedStyle(tile).backgroundColor")

        send(pod, b"POD2accel_x 25")
        expect(tile).to_have_attribute("data-limit", "danger")
        expect(tile.locator(".limit")).to_have_text("▲ above danger 20 m/s²")
        assert tile.evaluate("tile => getComputedStyle(tile).backgroundColor") != calm
        page.expect_text("#sentence .notes", r"Beyond a danger limit: 127\.0\.2\.1 accel_x \(above 20 m/s²\)")
        assert min(contrast for contrast, _ in page.contrasts(".tiles")) >= 4.5

        send(pod, b"POD2accel_x -13")
        expect(tile.locator(".limit")).to_have_text("▼ below warning \u221212 m/s²")
        send(pod, b"POD2accel_x 0")
        expect(tile.locator(".limit")).to_have_text("was above danger 20 m/s²")
        expect(tile).to_have_attribute("data-limit", "was-danger")
        expect(tile.locator(".limit")).to_be_hidden()

        expect(other.locator(".label")).to_be_hidden()
        expect(other.locator(".unit")).to_have_text("")
        expect(other).to_have_attribute("data-limit", "")


def test_a_spike_that_is_over_is_seen_all_the_same(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage, tmp_path: Path
) -> None:
    file = tmp_path / "sensors.toml"
    file.write_text(SENSORS, encoding="utf-8")
    ods = start_ods(influx, "--sensors", str(file))
    with PodClient(ods.port).read_replies() as pod:
        send(pod, b"POD2accel_x 0")
        page = open_page(ods)
        expect(page.value("accel_x").locator(".now")).to_have_text("0")
        send(pod, b"POD2accel_x 0", b"POD2accel_x 99", b"POD2accel_x 0")
        expect(page.value("accel_x").locator(".limit")).to_have_text("was above danger 20 m/s²")


def test_a_limit_crossed_by_the_simulator_is_an_event_a_line_and_a_colour_once(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage, tmp_path: Path
) -> None:
    """A team rehearses, with the sensor file that comes with ODS: beyond a warning, beyond a danger, and back."""
    ods = start_ods(influx, "--pod", "127.0.1.2=rehearsal")
    page = open_page(ods, "/#pod=rehearsal")
    page.page.evaluate(WATCH, "brake_temperature_1")
    words = ["--fault", "limit", "--seconds", "4", "--host", "127.0.0.1", "--port", str(ods.port)]
    done = run_command("simulate", *words, home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ods.wait_until_settled()
    expected = [
        ("limit_crossed", "above warning 200 °C"),
        ("limit_crossed", "above danger 260 °C"),
        ("limit_cleared", "no longer above danger 260 °C, but above warning 200 °C"),
        ("limit_cleared", "inside its limits again; it was above warning 200 °C"),
    ]

    def events() -> list[tuple[str, str]]:
        found = [(event, detail) for _, _, event, detail in influx.events(ods.database) if event.startswith("limit_")]
        return [(event, re.sub(r"^brake_temperature_1 [0-9.]+ ", "", detail)) for event, detail in found]

    wait_until(lambda: len(events()) >= len(expected), timeout_seconds=15, what="the events", state=events)
    assert events() == expected
    assert [len(ods.lines_with(f"{level}.*limit:")) for level in ("WARNING", "ERROR")] == [1, 1]
    page.wait_for("() => window.tones.includes('was-danger')")
    # What lasts a fifth of a second may fall between two looks of the page; that it was, and the worst of it, may not.
    tones = [tone for tone in page.page.evaluate("window.tones") if tone]
    assert (tones[-1], tones.count("was-danger")) == ("was-danger", 1)
    assert set(tones) <= {"warning", "danger", "was-danger"}
