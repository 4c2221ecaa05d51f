// The values of one pod as of now: each with its age, and a chart of its last minutes. A value that is old looks old.

import { LargeChart, place, SmallCharts } from "./charts.js";
import { breakable, element, KeyedList, setData, setHidden, setText } from "./dom.js";
import { age, count, value } from "./format.js";
import { logList } from "./log_lines.js";
import { limitText, limitTone, Sensors } from "./sensors.js";
import { SeriesOfPod } from "./series.js";

//: Old is what was so old when ODS last told of it; a feed that is slow for once makes nothing old at once. Seconds.
const STALE_SECONDS = 5;
const STALE_AT_LAST_SECONDS = 15;
//: Values with more characters than this are set smaller.
const LONG = 8;
const LOG_LINES = 50;
//: After the last key in the filter box. Milliseconds.
const TYPING = 300;

export class Values {
  constructor({ onMatch }) {
    this.root = document.getElementById("values");
    this.summary = this.root.querySelector(".summary");
    this.hint = this.root.querySelector(".hint");
    this.filter = this.root.querySelector("input");
    this.charts = new SmallCharts();
    this.large = new LargeChart();
    this.sensors = new Sensors();
    this.log = logList(this.root.querySelector(".log"));
    this.tiles = new KeyedList(this.root.querySelector(".tiles"), {
      key: (name) => name,
      create: (name) => this.tile(name),
      update: () => {},
      remove: (tile) => this.charts.remove(tile.place),
    });
    this.forget(null);
    this.whenTyped(onMatch);
    document.addEventListener("themechange", () => {
      this.charts.forget();
      this.large.forget();
    });
  }

  whenTyped(onMatch) {
    let timer = null;
    this.filter.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => onMatch(this.filter.value.trim()), TYPING);
    });
  }

  /** Another pod, or another filter: nothing is known until its history is there. */
  forget(pod) {
    this.pod = pod;
    this.series = new SeriesOfPod();
    this.lines = new Map();
    this.names = new Set();
    this.beyond = new Map();
    this.large.close();
    this.tiles.show([]);
    this.log.show([]);
    setText(this.summary, pod === null ? "" : `of ${pod}`);
    setText(this.hint, pod === null ? "No pod has been seen yet." : "");
  }

  /** The feed begins, or began anew. What an ODS before this one knew stays, and grows old. */
  load(history) {
    if (history.pod === this.pod) this.series.load(history);
    this.sensors.load().then(() => this.showSensors());
  }

  append(frame) {
    if (frame.pod !== this.pod) return;
    this.series.append(frame.values);
    this.beyond = new Map(Object.entries(frame.beyond));
    const before = this.names.size;
    for (const name of Object.keys(frame.values)) this.names.add(name);
    if (this.names.size > before) this.tiles.show([...this.names].sort());
    this.showHint(frame);
    this.showLog(frame.log);
  }

  showSensors() {
    for (const [name, tile] of this.tiles.children) this.showSensor(name, tile);
  }

  showSensor(name, tile) {
    const label = this.sensors.label(name);
    setText(tile.parts.label, label);
    setHidden(tile.parts.label, label === "");
    setText(tile.parts.unit, this.sensors.unit(name));
  }

  showHint({ names, shown }) {
    const limit = Math.max(shown, this.names.size);
    const hint = names > limit
      ? `${count(limit)} of ${count(names)} are shown: narrow the names down.`
      : `${count(names)} ${names === 1 ? "value" : "values"}`;
    setText(this.hint, hint);
  }

  showLog(lines) {
    for (const line of lines) this.lines.set(line.time_ns, line);
    const newest = [...this.lines.values()].sort((one, other) => other.time_ns - one.time_ns).slice(0, LOG_LINES);
    this.lines = new Map(newest.map((line) => [line.time_ns, line]));
    this.log.show(newest);
  }

  tile(name) {
    const button = element("button", { attributes: { type: "button", title: name } }, ...breakable(name));
    const tile = element(
      "li",
      { attributes: { "data-name": name } },
      element("h4", {}, button, element("span", { className: "label" })),
      element(
        "div",
        { className: "head" },
        element("p", { className: "now" }),
        element("span", { className: "unit" }),
        element("p", { className: "age" }),
      ),
      element("p", { className: "limit" }),
      place(),
      element("p", { className: "span" }),
    );
    const part = (kind) => [kind, tile.querySelector(`.${kind}`)];
    tile.parts = Object.fromEntries(["label", "now", "unit", "age", "limit", "place", "span"].map(part));
    tile.place = tile.parts.place;
    this.showSensor(name, tile);
    const series = this.series.named(name);
    this.charts.add(tile.place, series);
    button.addEventListener("click", () => this.large.open([name, this.sensors.label(name)].filter(Boolean).join(" · "), series));
    return tile;
  }

  /** Draw what has changed, as of now and of when ODS last told anything, both on its own clock. Seconds. */
  draw(now, toldAt) {
    this.toldAt = toldAt;
    const since = this.series.since(now);
    for (const [name, tile] of this.tiles.children) {
      this.update(tile, this.series.named(name), now, since);
      this.showLimit(tile, this.beyond.get(name));
    }
    this.charts.draw(since, now);
    this.large.draw(since, now);
  }

  showLimit(tile, state) {
    setText(tile.parts.limit, limitText(state));
    setHidden(tile.parts.limit, state === undefined);
    setData(tile, "limit", limitTone(state));
  }

  update(tile, series, now, since) {
    const { now: latest, age: old, place: chart, span } = tile.parts;
    const seconds = now - series.latestNs / 1e9;
    const isStale = seconds - (now - this.toldAt) > STALE_SECONDS || seconds > STALE_AT_LAST_SECONDS;
    const text = value(series.latest);
    setText(latest, text);
    setData(tile, "long", text.length > LONG);
    setText(old, isStale ? `⚠ ${age(seconds)} old` : age(seconds));
    setData(tile, "stale", isStale);
    if (!this.charts.inView.has(chart)) return;
    const extremes = series.extremes(since);
    const told = extremes === null ? "nothing of late" : `${value(extremes.least)} … ${value(extremes.most)}`;
    setText(span, told);
    chart.setAttribute("aria-label", `The last minutes: ${told}`);
  }
}
