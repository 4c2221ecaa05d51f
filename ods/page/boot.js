// Why does the pod not boot? A pod goes no further than its boot until ODS has accepted its connection; these are the
// reasons for which that may not have come to pass, in plain words. Open and in front while no pod is connected.

import { element, KeyedList, setText } from "./dom.js";
import { count, counted, duration, moment } from "./format.js";
import { podState } from "./pods.js";

//: So many of a kind are told of one by one.
const MOST = 20;
const MARKS = { bad: "✗", odd: "!", good: "✓", plain: "·" };

const isLoopback = (address) => address.startsWith("127.") || address === "::1";

/** What there is to know, most telling first: [tone, text]. */
export function findings(status) {
  return [
    ...ofListening(status.listening),
    ...ofRefused(status),
    ...ofExpected(status),
    ...ofGone(status),
    ...ofConnected(status),
    ...ofNobody(status),
    ofNetworks(status.listening),
  ];
}

function* ofListening({ addresses, port }) {
  const outside = addresses.filter((address) => !isLoopback(address));
  if (addresses.length === 0) {
    yield ["bad", "This machine has no network address now: no pod can connect. Is its network cable plugged in?"];
  } else if (outside.length === 0) {
    yield ["odd", `ODS listens at ${addresses.join(", ")} port ${port} alone: only pods on this machine can connect.`];
  } else {
    yield ["plain", `Pods can connect to ${outside.join(" or ")}, port ${port}. Is that what the pod has?`];
  }
}

function* ofRefused({ refused, time_ns: now }) {
  for (const { address, count: times, last_ns: last, reason } of refused.slice(0, MOST)) {
    const ago = duration((now - last) / 1e9);
    yield ["bad", `${address} was refused ${counted(times, "time")}, last at ${moment(last)} (${ago} ago): ${reason}.`];
  }
  if (refused.length > 0) yield ["odd", "If one of those is the pod: give ODS its network by --allow."];
}

function* ofExpected({ pods }) {
  const missing = pods.filter((pod) => podState(pod) === "missing");
  for (const { name, address } of missing.slice(0, MOST)) {
    const from = address === null ? "its address" : address;
    yield ["bad", `${name} is expected from ${from} and was never seen: nothing has connected from there.`];
  }
  if (missing.length > MOST) yield ["bad", `${count(missing.length - MOST)} more are expected and were never seen.`];
  const strangers = pods.filter((pod) => pod.connected && !pod.expected);
  if (missing.length > 0 && strangers.length > 0) {
    const names = strangers.slice(0, MOST).map((pod) => pod.name);
    yield ["odd", `Connected, but not named by --pod: ${names.join(", ")}. Is it one of these, with another address?`];
  }
}

function* ofGone({ pods }) {
  const gone = pods.filter((pod) => podState(pod) === "gone").sort((one, other) => other.left_ns - one.left_ns);
  for (const { name, connected_ns: came, left_ns: left, left_how: how } of gone.slice(0, MOST)) {
    const manner = how === null ? "" : `: ${how}`;
    const when = `last connected at ${moment(came)} and left at ${moment(left)}${manner}`;
    yield ["odd", `${name} ${when}. A pod does not connect again by itself.`];
  }
}

function* ofConnected({ pods }) {
  const connected = pods.filter((pod) => pod.connected);
  if (connected.length > MOST) yield ["good", `${count(connected.length)} pods are connected.`];
  else for (const pod of connected) yield ["good", `${pod.name} has been connected since ${moment(pod.connected_ns)}.`];
}

function* ofNobody({ pods, refused, started_ns: started }) {
  if (refused.length > 0 || pods.some((pod) => pod.connects > 0)) return;
  const since = `since ODS started at ${moment(started)}`;
  const advice = "look at the pod's power, its network, and the address that it was given";
  yield ["bad", `Nobody has tried to connect ${since}: ${advice}.`];
}

function ofNetworks({ allow }) {
  if (allow.length === 0) return ["plain", "Pods may connect from any network."];
  return ["plain", `Pods may connect from ${allow.join(", ")} alone (--allow).`];
}

export class Boot {
  constructor() {
    this.root = document.getElementById("boot");
    this.summary = this.root.querySelector(".summary");
    this.isProminent = null;
    this.list = new KeyedList(this.root.querySelector(".findings"), {
      key: ([, , number]) => number,
      create: () => element("li", {}, element("b", { attributes: { "aria-hidden": "true" } }), element("span")),
      update: (child, [tone, text]) => {
        if (child.dataset.tone !== tone) child.dataset.tone = tone;
        setText(child.firstElementChild, MARKS[tone]);
        setText(child.lastElementChild, text);
      },
    });
  }

  show(status) {
    const found = findings(status);
    this.list.show(found.map(([tone, text], number) => [tone, text, number]));
    const connected = status.pods.filter((pod) => pod.connected).length;
    const refused = status.refused_total ? ` · ${counted(status.refused_total, "refusal")}` : "";
    setText(this.summary, (connected ? `${counted(connected, "pod")} connected` : "No pod is connected") + refused);
    this.promote(connected === 0);
  }

  /** In front and open while no pod is connected; then what the reader does with it holds. */
  promote(isProminent) {
    if (isProminent === this.isProminent) return;
    this.isProminent = isProminent;
    this.root.classList.toggle("prominent", isProminent);
    this.root.open = isProminent;
  }
}
