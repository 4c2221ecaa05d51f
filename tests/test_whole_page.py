"""The live page in a real browser, beside a real ODS: it follows all that happens without being loaded again."""

import json
import re

import pytest
from faults.behaviours import Delay, Pass
from faults.proxy import Proxy
from harness.browser import LivePage, OpenPage, expect
from harness.influx_server import InfluxServer
from harness.ods_process import OdsProcess, StartOds
from harness.pod_client import PodClient
from harness.runs import fill_buffer, lose_points, send, simulated_run
from harness.sizes import sized
from harness.wait import wait_until

pytestmark = pytest.mark.timeout(sized(120, long=900), method="signal")

POD = "127.0.2.1"
#: Answers that come so late make a drain that one can watch. Seconds.
SLOW_ANSWERS = Delay(0.4)
BACKLOG = 100_000
NUMBER = re.compile(r"^\S+$")
#: What is counted of each pod and of all of them.
FATES = ("received", "stored", "pending", "dropped", "invalid", "torn")
#: Notes every level and every step of the progress, also those that a look from here would miss.
WATCH = """
() => {
  window.levels = [];
  window.progress = [];
  const sentence = document.getElementById("sentence");
  const bar = document.getElementById("drain-progress");
  new MutationObserver(() => window.levels.push(sentence.dataset.level))
    .observe(sentence, { attributeFilter: ["data-level"] });
  new MutationObserver(() => window.progress.push(bar.value)).observe(bar, { attributeFilter: ["value"] });
}
"""


def expect_figures(page: LivePage, selector: str, ods: OdsProcess, *, pod: str | None = None) -> None:
    """Return when the page shows the counts that ODS tells, of a pod or of all."""

    def told() -> dict[str, int]:
        counts = ods.totals() if pod is None else ods.pod_status(pod)
        return {fate: counts[fate] for fate in FATES}

    wait_until(
        lambda: told().items() <= page.figures(selector).items(),
        timeout_seconds=30,
        what=f"the figures in {selector} to be those of the status",
        state=lambda: f"{page.figures(selector)}\n{told()}",
    )


def test_the_page_follows_an_outage_and_its_drain_without_reload(
    start_ods: StartOds, own_influx: InfluxServer, open_page: OpenPage
) -> None:
    """InfluxDB is killed and restarted under a run: the sentence, the counts, the charts and the progress follow."""
    with Proxy(own_influx.port) as proxy:
        ods = start_ods(proxy)
        page = open_page(ods, f"/#pod={POD}")
        with simulated_run(ods), PodClient(ods.port).read_replies() as pod:
            send(pod, b"POD2probe 1")
            page.expect_level("live")
            expect(page.value("probe").locator(".now")).to_have_text("1")
            page.page.evaluate(WATCH)

            own_influx.kill()
            page.expect_level("buffering")
            page.expect_text("#outages", "Since .* for .*goes on")
            send(pod, b"POD2probe 1234.5")
            expect(page.value("probe").locator(".now")).to_have_text("1\u202f234.5")
            expect(page.value("probe").locator(".span")).to_have_text("1 … 1\u202f234.5")
            assert page.painted("probe"), "charts are drawn without InfluxDB"
            fill_buffer(ods, BACKLOG)
            wait_until(
                lambda: page.figures("[data-figures=buffer]").get("waiting", 0) >= BACKLOG,
                timeout_seconds=30,
                what="the page to show the backlog",
            )

            proxy.behave(SLOW_ANSWERS)
            own_influx.start()
            page.expect_level("draining")
            page.expect_text("#drain-text", r"\d+ % · .* of .* points drained")
            page.wait_for("() => window.progress.filter((part) => part > 0 && part < 1).length >= 2")
            proxy.behave(Pass())
            page.expect_level("live")
        ods.wait_until_settled()
        page.expect_text("#outages", "lasted .*drained at")
        expect_figures(page, "[data-figures=totals]", ods)
        progress, levels = page.page.evaluate("[window.progress, window.levels]")
    assert progress[-1] > progress[0]
    assert [level for at, level in enumerate(levels) if level not in levels[:at]] == ["buffering", "draining", "live"]
    assert not page.was_reloaded


def test_each_pod_shows_its_counts_and_its_last_words(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage
) -> None:
    """Tapping on a pod shows its values; the page's address then names it, so that a reload keeps it."""
    ods = start_ods(influx, "--pod", f"{POD}=levitator")
    with PodClient(ods.port).read_replies() as first, PodClient(ods.port, address="127.0.2.2").read_replies() as second:
        send(first, b"POD2height 1.25", b"POD1[WARN]  ride height unsteady", b"nonsense")
        send(second, b"POD2speed 99")
        page = open_page(ods)
        expect(page.value("speed")).to_be_visible()  # of the first one that is connected, by its name
        expect(page.pod("levitator")).to_contain_text("WARN ride height unsteady")
        expect(page.pod("levitator")).to_contain_text("Connected since")
        page.pod_button("levitator").click()
        expect(page.value("height").locator(".now")).to_have_text("1.25")
        expect(page.value("speed")).to_have_count(0)
        expect(page.find("#values > .log")).to_contain_text("ride height unsteady")
        expect_figures(page, "#pods li[data-pod=levitator] .figures", ods, pod="levitator")
        shown = page.figures("#pods li[data-pod=levitator] .figures")
        assert shown == shown | {"received": 2, "stored": 2, "invalid": 1}
        page.page.reload()
        expect(page.value("height")).to_be_visible()
    expect(page.pod("levitator")).to_contain_text("Gone since")


def test_a_value_that_is_old_looks_old(start_ods: StartOds, influx: InfluxServer, open_page: OpenPage) -> None:
    """Beside one that is fresh; and a chart can be had large."""
    ods = start_ods(influx)
    with simulated_run(ods, pods=1), PodClient(ods.port, address="127.0.1.1").read_replies() as pod:
        send(pod, b"POD2once 7")
        page = open_page(ods)
        expect(page.value("once")).to_have_attribute("data-stale", "true")
        expect(page.value("once").locator(".age")).to_contain_text("old")
        expect(page.value("accel_x")).to_have_attribute("data-stale", "false")
        page.value("accel_x").get_by_role("button").click()
        expect(page.find("dialog canvas")).to_be_visible()
        expect(page.find("dialog [data-figure=now] dd").first).to_have_text(NUMBER)
        page.find("dialog").get_by_role("button", name="Close").click()
        expect(page.find("dialog")).to_be_hidden()


def test_the_page_says_that_it_has_lost_contact_and_finds_ods_again(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage
) -> None:
    """Stopped, killed and frozen: a page that cannot know says so at once, and connects again by itself."""
    ods = start_ods(influx)
    page = open_page(ods)
    page.expect_level("live")
    page.expect_contact(True)
    for take_away, bring_back in ((ods.stop, ods.start), (ods.kill, ods.start), (ods.pause, ods.resume)):
        take_away()
        page.expect_contact(False)
        page.expect_text("#contact", r"No contact with ODS for \d+\ss: what stands below is old")
        assert page.page.title().startswith("NO CONTACT")
        bring_back()
        page.expect_contact(True)
        page.expect_level("live")
    assert not page.was_reloaded


def test_a_page_without_any_ods_says_so(start_ods: StartOds, influx: InfluxServer, open_page: OpenPage) -> None:
    """Loaded, and never answered by the feed: it must not look as if all were well."""
    ods = start_ods(influx)
    page = open_page(ods, None)
    page.page.route("**/events*", lambda route: route.fulfill(status=503))
    page.open()
    page.expect_contact(False)
    page.expect_text("#contact", "No contact with ODS yet")
    page.page.unroute("**/events*")
    page.expect_contact(True)
    page.expect_level("live")


def test_a_new_version_of_ods_brings_its_own_page(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage
) -> None:
    """A page of the old version beside the feed of a new one would misread it."""
    ods = start_ods(influx)
    page = open_page(ods)
    page.expect_level("live")
    body = f"event: status\ndata: {json.dumps(ods.status() | {'version': '99.0.0'})}\n\n"
    page.page.route("**/events*", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    ods.restart()
    page.wait_for("() => window.isMarked !== true")
    page.page.unroute("**/events*")
    page.expect_contact(True)


def test_the_page_tells_why_a_pod_may_not_boot(start_ods: StartOds, influx: InfluxServer, open_page: OpenPage) -> None:
    """In front while no pod is connected; who was refused, who is missing, and how the last one left."""
    ods = start_ods(influx, "--pod", f"{POD}=levitator", "--pod", "127.0.2.8=missing", "--allow", "127.0.2.0/24")
    page = open_page(ods)
    boot = page.find("#boot")
    expect(boot).to_have_attribute("open", "")
    expect(boot).to_contain_text("Nobody has tried to connect")
    expect(boot).to_contain_text("Pods may connect from 127.0.2.0/24 alone")
    expect(boot).to_contain_text(f"127.0.0.1 port {ods.port}")
    with PodClient(ods.port, address="127.0.3.1").read_replies() as stranger:
        assert stranger.has_ended.wait(10)
    expect(boot).to_contain_text("127.0.3.1 was refused 1 time")
    expect(boot).to_contain_text("levitator is expected from 127.0.2.1 and was never seen")
    with PodClient(ods.port).read_replies() as pod:
        send(pod, b"POD2height 1.25")
        expect(boot).not_to_have_attribute("open", "")
        boot.locator("summary").click()
        expect(boot).to_contain_text("levitator has been connected since")
        expect(boot).to_contain_text("missing is expected from 127.0.2.8 and was never seen")
    expect(boot).to_have_attribute("open", "")
    expect(boot).to_contain_text("levitator last connected at")


def test_a_pod_with_many_values_shows_those_that_are_asked_for(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage
) -> None:
    """Three hundred at most, and only those in view have a chart."""
    ods = start_ods(influx)
    with PodClient(ods.port).read_replies() as pod:
        send(pod, *[b"POD2value_%03d %d" % (number, number) for number in range(400)])
        page = open_page(ods)
        expect(page.find("#values .hint")).to_contain_text("300 of 400 are shown")
        expect(page.find("#values .tiles > li")).to_have_count(300)
        expect(page.find("#values canvas").first).to_be_visible()
        assert page.find("#values canvas").count() < 100
        page.find("#values input").fill("VALUE_39")
        expect(page.find("#values .tiles > li")).to_have_count(10)
        expect(page.find("#values .hint")).to_contain_text("10 values")
        expect(page.value("value_399").locator(".now")).to_have_text("399")
        expect(page.find("#values canvas")).to_have_count(10)


def test_a_page_beside_many_pods_shows_a_few_of_them_at_a_time(
    start_ods: StartOds, influx: InfluxServer, open_page: OpenPage
) -> None:
    """A thousand pods cost the page no more than a dozen."""
    pods = [word for number in range(200) for word in ("--pod", f"10.9.8.{number}=pod-{number:03d}")]
    ods = start_ods(influx, *pods)
    page = open_page(ods)
    expect(page.find("#pods li[data-pod]")).to_have_count(12)
    expect(page.find("#pods .pager")).to_contain_text("1 to 12 of 200")
    page.find("#pods").get_by_role("button", name="Next").click()
    expect(page.pod("pod-012")).to_be_visible()
    page.find("#pods input").fill("10.9.8.199")
    expect(page.find("#pods li[data-pod]")).to_have_count(1)
    expect(page.pod("pod-199")).to_contain_text("Expected, never seen")


def test_a_page_says_when_data_is_lost(start_ods: StartOds, own_influx: InfluxServer, open_page: OpenPage) -> None:
    """And when it is lost no more."""
    own_influx.kill()
    ods = start_ods(own_influx, "--buffer-limit", "1MiB")
    page = open_page(ods)
    page.expect_level("buffering")
    lose_points(ods)
    page.expect_level("losing")
    page.expect_text("#sentence .text", "Losing data: neither InfluxDB nor the buffer takes points")
    assert page.page.title().startswith("LOSING DATA")
    expect_figures(page, "[data-figures=totals]", ods)
    own_influx.start()
    ods.wait_until_settled()
    with PodClient(ods.port).read_replies() as pod:
        send(pod, b"POD2accel_x 1")
    page.expect_level("live")
