// Log messages of pods, newest first: the level stands there as a word, its colour only helps.

import { element, KeyedList, setText } from "./dom.js";
import { moment } from "./format.js";

const ODD = { warn: "odd", error: "bad", fatal: "bad" };

/** A keyed list of messages; a pod's times are strictly increasing, so each is a key. */
export function logList(container) {
  return new KeyedList(container, {
    key: (line) => line.time_ns,
    create: (line) =>
      element(
        "li",
        { attributes: { "data-tone": ODD[line.level] ?? "" } },
        element("time", { text: moment(line.time_ns) }),
        ...(line.level === null ? [] : [" ", element("b", { text: line.level.toUpperCase() })]),
        " ",
        element("span", { text: line.text }),
      ),
    update: (child, line) => setText(child.lastElementChild, line.text),
  });
}
