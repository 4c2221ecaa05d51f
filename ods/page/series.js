// The last five minutes of each value of one pod: the feed's history, carried on by its increments. No InfluxDB needed.

export const WINDOW_SECONDS = 300;
//: Points further apart than this are not joined by a line: nothing is known in between.
const GAP_SECONDS = 15;
const TRIM_SECONDS = 30;
//: The least that a chart shows: a run that has just begun fills its charts too.
const LEAST_SECONDS = 30;

/** One value's points, oldest first: times in seconds, and values with a null in each gap. */
export class Series {
  constructor() {
    this.times = [];
    this.values = [];
    this.latest = null;
    this.latestNs = null;
  }

  append(time, value) {
    const last = this.times.at(-1) ?? -Infinity;
    if (time <= last) return;
    if (time - last > GAP_SECONDS && this.times.length > 0) {
      this.times.push(last + GAP_SECONDS / 2);
      this.values.push(null);
    }
    this.times.push(time);
    this.values.push(value);
    if (time - this.times[0] > WINDOW_SECONDS + TRIM_SECONDS) this.trim(time - WINDOW_SECONDS - 1);
  }

  trim(since) {
    const first = this.times.findIndex((time) => time >= since);
    this.times.splice(0, first);
    this.values.splice(0, first);
  }

  cutAt(time) {
    while (this.times.length > 0 && this.times.at(-1) >= time) {
      this.times.pop();
      this.values.pop();
    }
  }

  /** The smallest, the largest and the mean value since a time; null where there is none. */
  extremes(since) {
    let least = Infinity;
    let most = -Infinity;
    let sum = 0;
    let number = 0;
    for (let at = this.times.length - 1; at >= 0 && this.times[at] >= since; at -= 1) {
      const value = this.values[at];
      if (value === null) continue;
      least = Math.min(least, value);
      most = Math.max(most, value);
      sum += value;
      number += 1;
    }
    return number === 0 ? null : { least, most, mean: sum / number };
  }
}

export class SeriesOfPod {
  constructor() {
    this.byName = new Map();
  }

  named(name) {
    if (!this.byName.has(name)) this.byName.set(name, new Series());
    return this.byName.get(name);
  }

  /** Where all charts begin, so that they can be compared: five minutes ago, or where there is anything at all. */
  since(now) {
    let first = now - LEAST_SECONDS;
    for (const { times } of this.byName.values()) first = Math.min(first, times[0] ?? first);
    return Math.max(first, now - WINDOW_SECONDS);
  }

  /** Take the server's history, all of whose series end at the last of its times; what is older than it stays. */
  load({ times_ns: timesNs, series }) {
    for (const [name, values] of Object.entries(series)) {
      const one = this.named(name);
      const first = timesNs.length - values.length;
      if (values.length > 0) one.cutAt(timesNs[first] / 1e9);
      values.forEach((value, at) => {
        if (value !== null) one.append(timesNs[first + at] / 1e9, value);
      });
    }
  }

  /** Take what has arrived: {name: [value, time_ns]}. */
  append(values) {
    for (const [name, [value, timeNs]] of Object.entries(values)) {
      const one = this.named(name);
      one.latest = value;
      one.latestNs = timeNs;
      one.append(timeNs / 1e9, value);
    }
  }
}
