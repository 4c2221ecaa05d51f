// What waits in the buffer, how the drain gets on, and what became of every point.

import { Figures, setHidden, setText } from "./dom.js";
import { bytes, count, counted, duration, hours, rate } from "./format.js";

//: Room for a shorter outage than this asks for attention: that is when the sentence tells it too. Hours.
const SHORT_HOURS = 2;

export class Buffer {
  constructor() {
    const root = document.getElementById("buffer");
    this.buffer = new Figures(root.querySelector("[data-figures=buffer]"));
    this.totals = new Figures(root.querySelector("[data-figures=totals]"));
    this.drain = document.getElementById("drain");
    this.progress = document.getElementById("drain-progress");
    this.text = document.getElementById("drain-text");
  }

  show({ buffer, totals, disk, largest_backlog: largest }) {
    const isShort = disk.hours_left !== null && disk.hours_left < SHORT_HOURS;
    const tone = (number, kind) => (number > 0 ? kind : "");
    this.showDrain(buffer);
    this.buffer.show([
      ["waiting", "Points that wait", count(buffer.points), largest > 0 ? `largest: ${count(largest)}` : ""],
      ["bytes", "Size on disk", bytes(buffer.bytes), `of ${bytes(buffer.limit_bytes)}`],
      ["oldest", "Oldest waits for", duration(buffer.oldest_seconds)],
      ["room", "Room for an outage of", hours(disk.hours_left), "at this rate", isShort ? "bad" : ""],
    ]);
    this.totals.show([
      ["received", "Received", count(totals.received)],
      ["stored", "Stored", count(totals.stored), "in InfluxDB"],
      ["pending", "Pending", count(totals.pending), "in the buffer"],
      ["in_flight", "In flight", count(totals.in_flight)],
      ["quarantined", "Quarantined", count(totals.quarantined), "refused for good", tone(totals.quarantined, "odd")],
      ["dropped", "Dropped", count(totals.dropped), tone(totals.dropped, "lost"), tone(totals.dropped, "bad")],
      ["invalid", "Invalid", count(totals.invalid), "no record", tone(totals.invalid, "odd")],
      ["torn", "Torn", count(totals.torn), "cut-off lines", tone(totals.torn, "odd")],
    ]);
  }

  showDrain(buffer) {
    const total = buffer.drain_total_points;
    const isDraining = total !== null && total > 0;
    setHidden(this.drain, !isDraining);
    if (!isDraining) return;
    const part = Math.min(1, buffer.drained_points / total);
    if (this.progress.value !== part) this.progress.value = part;
    const speed = buffer.drain_points_per_second;
    setText(
      this.text,
      [
        `${Math.floor(part * 100)} %`,
        `${count(buffer.drained_points)} of ${counted(total, "point")} drained`,
        ...(speed === null ? [] : [rate(speed)]),
        ...(buffer.eta_seconds === null ? [] : [`done in ${duration(buffer.eta_seconds)}`]),
      ].join(" · "),
    );
  }
}
