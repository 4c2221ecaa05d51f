// The pods: each with its state, what it sends and what became of it. A page of them at a time, so that a thousand pods
// cost no more than a few.

import { breakable, element, Figures, KeyedList, setData, setHidden, setText } from "./dom.js";
import { age, count, counted, duration, moment, rate } from "./format.js";
import { logList } from "./log_lines.js";

const PAGE_PODS = 12;
//: Who stands first.
const ORDER = { connected: 0, missing: 1, gone: 2, unseen: 3 };
const STATES = {
  connected: "● Connected",
  missing: "◌ Expected, never seen",
  gone: "■ Gone",
  unseen: "◌ Not seen",
};

/** Whether it is connected, gone, expected but missing, or known from an earlier run alone (unseen). */
export function podState(pod) {
  if (pod.connected) return "connected";
  if (pod.connects > 0 || pod.left_ns !== null) return "gone";
  return pod.expected ? "missing" : "unseen";
}

export class Pods {
  constructor({ onSelect }) {
    this.root = document.getElementById("pods");
    this.summary = this.root.querySelector(".summary");
    this.tools = this.root.querySelector(".tools");
    this.find = this.root.querySelector("input");
    this.pager = this.root.querySelector(".pager");
    this.onSelect = onSelect;
    this.page = 0;
    this.status = null;
    this.selected = null;
    this.cards = new KeyedList(this.root.querySelector(".cards"), {
      key: (pod) => pod.name,
      create: (pod) => this.card(pod),
      update: (card, pod) => updateCard(card, pod, this.status, pod.name === this.selected),
    });
    this.find.addEventListener("input", () => this.turn(-this.page));
    this.pager.addEventListener("click", (event) => this.turn(Number(event.target.dataset.step ?? 0)));
  }

  show(status, selected) {
    this.status = status;
    this.selected = selected;
    const connected = status.pods.filter((pod) => pod.connected).length;
    setText(this.summary, `${count(connected)} of ${count(status.pods.length)} connected`);
    setHidden(this.tools, status.pods.length <= PAGE_PODS);
    const found = this.found();
    const last = Math.max(0, Math.ceil(found.length / PAGE_PODS) - 1);
    this.page = Math.min(Math.max(this.page, 0), last);
    const first = this.page * PAGE_PODS;
    this.cards.show(found.slice(first, first + PAGE_PODS));
    this.showPager(first, found.length, last);
  }

  found() {
    const wanted = this.find.value.trim().toLowerCase();
    const has = (text) => text !== null && text.toLowerCase().includes(wanted);
    return this.status.pods
      .filter((pod) => wanted === "" || has(pod.name) || has(pod.address))
      .map((pod) => [ORDER[podState(pod)], pod])
      .sort(([one], [other]) => one - other) // stable: by name within
      .map(([, pod]) => pod);
  }

  showPager(first, total, last) {
    setHidden(this.pager, last === 0);
    const [previous, next] = this.pager.querySelectorAll("button");
    previous.disabled = this.page === 0;
    next.disabled = this.page === last;
    const end = Math.min(first + PAGE_PODS, total);
    setText(this.pager.querySelector("span"), `${first + 1} to ${end} of ${count(total)}`);
  }

  turn(step) {
    this.page += step;
    if (this.status !== null) this.show(this.status, this.selected);
  }

  card(pod) {
    const button = element("button", { attributes: { type: "button", title: pod.name } }, ...breakable(pod.name));
    button.addEventListener("click", () => this.onSelect(pod.name));
    const logs = element("ol", { className: "log" });
    const figures = element("dl", { className: "figures small" });
    const card = element(
      "li",
      { attributes: { "data-pod": pod.name } },
      element("h3", {}, button),
      element("p", { className: "state" }, element("b"), element("span")),
      figures,
      logs,
    );
    card.figures = new Figures(figures);
    card.logs = logList(logs);
    return card;
  }
}

function updateCard(card, pod, status, isSelected) {
  const state = podState(pod);
  setData(card, "state", state);
  const [heading, line] = card.children;
  heading.firstElementChild.setAttribute("aria-pressed", String(isSelected));
  setText(line.firstElementChild, STATES[state]);
  setText(line.lastElementChild, stateText(pod, state, status));
  card.figures.show([
    ["rate", "Rate", rate(pod.points_per_second)],
    ["seen", "Last seen", pod.last_seen_seconds === null ? "never" : `${age(pod.last_seen_seconds)} ago`],
    ["received", "Received", count(pod.received)],
    ["stored", "Stored", count(pod.stored)],
    ["pending", "Pending", count(pod.pending)],
    ["dropped", "Dropped", count(pod.dropped), "", pod.dropped ? "bad" : ""],
    ["invalid", "Invalid", count(pod.invalid), "", pod.invalid ? "odd" : ""],
    ["torn", "Torn", count(pod.torn), "", pod.torn ? "odd" : ""],
  ]);
  card.logs.show(pod.log);
}

function stateText(pod, state, status) {
  const from = pod.address === null || pod.address === pod.name ? "" : ` · ${pod.address}`;
  if (state === "missing" || state === "unseen") return from;
  const how = pod.left_how === null ? "" : `: ${pod.left_how}`;
  if (state === "gone") return ` since ${moment(pod.left_ns)}${how}${from}`;
  const seconds = (status.time_ns - pod.connected_ns) / 1e9;
  const several = pod.connections > 1 ? ` · ${counted(pod.connections, "connection")}` : "";
  return ` since ${moment(pod.connected_ns)} (${duration(seconds)})${several}${from}`;
}
