// Charts, drawn by uPlot: a small one for each value in view, and one large one. All that is costly is bounded here: a
// value out of view has no canvas, and all are drawn together, a few times a second.

import { element, Figures } from "./dom.js";
import { exactValue, value } from "./format.js";

/* global uPlot */

const SMALL_HEIGHT = 52;
//: Begin to draw what is about to be scrolled into view. CSS pixels.
const MARGIN = "150px";

const timeOfDay = (seconds) => new Date(seconds * 1000).toTimeString().slice(0, 8);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** A little air above and below, also around a value that never changes. */
function range(least, most) {
  if (least === null) return [0, 1];
  const air = (most - least) * 0.08 || Math.abs(most) * 0.05 || 1;
  return [least - air, most + air];
}

function draw(chart, series, since, now) {
  chart.setData([series.times, series.values], false);
  chart.batch(() => {
    chart.setScale("x", { min: since, max: now });
    chart.setScale("y", spanOf(series, since));
  });
}

function spanOf(series, since) {
  const extremes = series.extremes(since);
  const [min, max] = extremes === null ? [0, 1] : range(extremes.least, extremes.most);
  return { min, max };
}

function lineSeries() {
  return [{}, { stroke: colour("--chart"), width: 2, points: { size: 4 }, spanGaps: false }];
}

/** The small charts of a list: `add` their places; those in view are drawn by each `draw`. */
export class SmallCharts {
  constructor() {
    this.inView = new Set();
    this.observer = new IntersectionObserver((entries) => entries.forEach((entry) => this.see(entry)), {
      rootMargin: MARGIN,
    });
  }

  add(place, series) {
    place.series = series;
    this.observer.observe(place);
  }

  remove(place) {
    this.observer.unobserve(place);
    this.leave(place);
  }

  see({ target, isIntersecting }) {
    if (isIntersecting) this.inView.add(target);
    else this.leave(target);
  }

  leave(place) {
    this.inView.delete(place);
    place.chart?.destroy();
    place.chart = null;
  }

  draw(since, now) {
    for (const place of this.inView) {
      const width = place.clientWidth;
      if (width === 0 || place.series.times.length === 0) continue;
      place.chart ??= smallChart(place, width);
      if (place.chart.width !== width) place.chart.setSize({ width, height: SMALL_HEIGHT });
      draw(place.chart, place.series, since, now);
    }
  }

  /** The colours have changed: make all anew at the next drawing. */
  forget() {
    for (const place of this.inView) {
      place.chart?.destroy();
      place.chart = null;
    }
  }
}

function smallChart(place, width) {
  return new uPlot(
    {
      width,
      height: SMALL_HEIGHT,
      padding: [2, 0, 2, 0],
      cursor: { show: false },
      legend: { show: false },
      scales: { x: { time: false, auto: false }, y: { auto: false } },
      axes: [{ show: false }, { show: false }],
      series: lineSeries(),
    },
    [[], []],
    place,
  );
}

/** The large chart, in a dialog. */
export class LargeChart {
  constructor() {
    this.dialog = document.getElementById("chart");
    this.name = document.getElementById("chart-name");
    this.place = this.dialog.querySelector(".canvas");
    this.figures = new Figures(this.dialog.querySelector("dl"));
    this.chart = null;
    this.series = null;
    this.dialog.querySelector("button").addEventListener("click", () => this.close());
    this.dialog.addEventListener("close", () => this.forget());
    this.dialog.addEventListener("click", (event) => {
      if (event.target === this.dialog) this.close(); // beside it
    });
  }

  open(name, series) {
    this.name.textContent = name;
    this.series = series;
    this.figures.show([]);
    this.dialog.showModal();
  }

  close() {
    this.dialog.close();
  }

  draw(since, now) {
    if (!this.dialog.open) return;
    const size = { width: this.place.clientWidth, height: Math.round(Math.min(innerHeight * 0.5, 420)) };
    this.chart ??= new uPlot(largeOptions(size), [[], []], this.place);
    if (this.chart.width !== size.width || this.chart.height !== size.height) this.chart.setSize(size);
    draw(this.chart, this.series, since, now);
    const extremes = this.series.extremes(since);
    this.figures.show([
      ["now", "Latest", exactValue(this.series.latest)],
      ["least", "Least", exactValue(extremes?.least)],
      ["mean", "Mean", exactValue(extremes?.mean)],
      ["most", "Most", exactValue(extremes?.most)],
    ]);
  }

  forget() {
    this.chart?.destroy();
    this.chart = null;
  }
}

function largeOptions(size) {
  const axis = {
    stroke: colour("--ink"),
    grid: { stroke: colour("--line"), width: 1 },
    ticks: { stroke: colour("--line"), width: 1 },
    font: "15px system-ui, sans-serif",
  };
  return {
    ...size,
    padding: [10, 36, 0, 0], // the last time of day has room
    cursor: { drag: { x: false, y: false } },
    legend: { show: false },
    scales: { x: { auto: false }, y: { auto: false } },
    axes: [
      { ...axis, size: 44, space: 70, incrs: [10, 30, 60, 120, 300], values: (_, times) => times.map(timeOfDay) },
      { ...axis, size: 80, values: (_, values) => values.map(value) },
    ],
    series: lineSeries(),
  };
}

export function place() {
  return element("div", { className: "place", attributes: { role: "img" } });
}
