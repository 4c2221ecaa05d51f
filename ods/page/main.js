// Wires the page: what the feed brings goes to the parts that show it, and what the reader chooses to the feed.

import { Boot } from "./boot.js";
import { Buffer } from "./buffer.js";
import { Feed } from "./feed.js";
import { Facts, Outages } from "./outages.js";
import { Pods } from "./pods.js";
import { Sentence } from "./sentence.js";
import { Values } from "./values.js";

//: All charts and ages are drawn together, so often. Milliseconds.
const DRAW_MILLISECONDS = 400;

const sentence = new Sentence();
const parts = [new Boot(), new Buffer(), new Outages(), new Facts()];
const pods = new Pods({ onSelect: choose });
const values = new Values({ onMatch: match });
const feed = new Feed({
  onStatus: show,
  onHistory: (history) => values.load(history),
  onValues: (frame) => values.append(frame),
  onContact: (contact) => sentence.showContact(contact),
});

let status = null;
let heardAt = 0;
let selected = podOfAddress();
let wanted = "";

/** The pod that the page's address names (`#pod=NAME`): it outlives a reload, and can be sent to a colleague. */
function podOfAddress() {
  return new URLSearchParams(location.hash.slice(1)).get("pod");
}

function show(latest) {
  // ODS was upgraded: this page belongs to the old one.
  if (status !== null && status.version !== latest.version) location.reload();
  status = latest;
  heardAt = performance.now();
  selected ??= firstPod(status.pods);
  watch();
  sentence.show(status.sentence);
  for (const part of parts) part.show(status);
  pods.show(status, selected);
}

function firstPod(all) {
  const first = all.find((pod) => pod.connected) ?? all.find((pod) => pod.last_seen_seconds !== null);
  return first?.name ?? null;
}

function choose(name) {
  history.replaceState(null, "", `#${new URLSearchParams({ pod: name })}`);
  select(name);
  // On a narrow screen the values stand below all pods.
  const { top } = values.root.getBoundingClientRect();
  if (top > innerHeight * 0.8) values.root.scrollIntoView({ block: "start" });
}

function select(name) {
  selected = name;
  watch();
  if (status !== null) pods.show(status, selected);
}

function match(text) {
  wanted = text;
  values.forget(selected);
  watch();
}

/** A page that nobody sees asks for no values; its title still tells the state. */
function watch() {
  if (values.pod !== selected) values.forget(selected);
  feed.watch(document.hidden ? null : selected, wanted);
}

function draw() {
  if (status === null || document.hidden) return;
  const toldAt = status.time_ns / 1e9;
  values.draw(toldAt + (performance.now() - heardAt) / 1000, toldAt);
}

addEventListener("hashchange", () => select(podOfAddress()));
document.addEventListener("visibilitychange", watch);
setInterval(draw, DRAW_MILLISECONDS);
feed.start();
