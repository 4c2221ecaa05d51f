// What is known of the names that pods send: their labels, their units, and which of them are beyond their limits.
// The first two come from ODS's sensor file; the last comes with the values, for ODS sees every one of them.

import { value } from "./format.js";

const SIDES = { high: "▲ above", low: "▼ below" };

export class Sensors {
  constructor() {
    this.byName = new Map(); // a pod may call a value "constructor"
  }

  /** Ask ODS for its sensor file. Without an answer values are shown as ever, by their names alone. */
  async load() {
    try {
      const answer = await fetch("/api/sensors");
      if (answer.ok) this.byName = new Map(Object.entries(await answer.json()));
    } catch {
      // No contact: the page says so, and this is asked for again when there is contact.
    }
  }

  label(name) {
    return this.byName.get(name)?.label ?? "";
  }

  unit(name) {
    return this.byName.get(name)?.unit ?? "";
  }
}

/** "▲ above danger 20 m/s²", "was above warning 12 m/s²"; nothing of a value inside its limits. */
export function limitText(state) {
  if (state === undefined) return "";
  const limit = `${state.severity} ${value(state.limit)} ${state.unit}`.trim();
  const side = SIDES[state.side];
  return state.cleared_ns === null ? `${side} ${limit}` : `was ${side.slice(2)} ${limit}`;
}

/** How the value is to be coloured: its severity, and whether that is over. */
export function limitTone(state) {
  if (state === undefined) return "";
  return state.cleared_ns === null ? state.severity : `was-${state.severity}`;
}
