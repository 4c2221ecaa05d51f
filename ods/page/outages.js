// The run's outages of InfluxDB, newest first, and the plain facts of this ODS.

import { element, Figures, KeyedList, setText } from "./dom.js";
import { bytes, count, counted, duration, hours, moment, value } from "./format.js";

export class Outages {
  constructor() {
    const root = document.getElementById("outages");
    this.summary = root.querySelector(".summary");
    this.list = new KeyedList(root.querySelector(".outages"), {
      key: (outage) => outage.began_ns,
      create: () => element("li", {}, element("b"), element("span"), element("span", { className: "note" })),
      update: (child, outage) => {
        const [when, reason, drained] = child.children;
        child.dataset.state = outage.ended_ns === null ? "running" : "over";
        setText(when, whenText(outage));
        setText(reason, outage.reason ?? "");
        setText(drained, drainedText(outage));
      },
    });
  }

  show({ outages }) {
    const { count: number, seconds, latest } = outages;
    setText(this.summary, number === 0 ? "none" : `${count(number)}, ${duration(seconds)} in all`);
    this.list.show(latest);
  }
}

function whenText({ began_ns: began, ended_ns: ended, seconds }) {
  if (ended === null) return `Since ${moment(began)}, for ${duration(seconds)}`;
  return `${moment(began)}, lasted ${duration(seconds)}`;
}

function drainedText({ ended_ns: ended, drained_ns: drained }) {
  if (ended === null) return "goes on";
  return drained === null ? "not yet drained" : `drained at ${moment(drained)}`;
}

export class Facts {
  constructor() {
    this.figures = new Figures(document.querySelector("#facts dl"));
  }

  show(status) {
    const { influx, recordings, clock, disk } = status;
    const missing = recordings.unrecorded ? ` · ${counted(recordings.unrecorded, "record")} missing` : "";
    const isRecording = recordings.recording;
    const tone = isRecording && !missing ? "" : "odd";
    const recorded = bytes(recordings.bytes) + missing;
    const steps = clock.steps_forward + clock.steps_back;
    const offset = `${value(Number(clock.offset_seconds.toFixed(3)))} s off`;
    this.figures.show([
      ["version", "ODS", status.version],
      ["uptime", "Runs for", duration(status.uptime_seconds), `since ${moment(status.started_ns)}`],
      ["influx", "InfluxDB", influx.url, `database ${influx.database}`],
      ["error", "InfluxDB's last error", influx.last_error ?? "none"],
      ["disk", "Disk free", bytes(disk.free_bytes), `room for an outage of ${hours(disk.hours_left)}`],
      ["recordings", "Recordings", isRecording ? "recording" : "stopped", recorded, tone],
      ["clock", "Clock", offset, steps ? counted(steps, "step") : "", steps ? "odd" : ""],
    ]);
  }
}
