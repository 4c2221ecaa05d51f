// Is the telemetry safe? The one sentence that the server makes, as large as it can be, and whether it is of now.

import { element, KeyedList, setData, setHidden, setText } from "./dom.js";
import { duration } from "./format.js";

//: What the tab is called, so that it tells even while another one is looked at.
const TITLES = { live: "Live", buffering: "Buffering", draining: "Draining", losing: "LOSING DATA" };

//: Thousands are kept together: a line must not end within a number.
const unbroken = (text) => text.replace(/(?<=\d) (?=\d{3}\b)/g, "\u202f");

export class Sentence {
  constructor() {
    this.root = document.getElementById("sentence");
    this.text = this.root.querySelector(".text");
    this.icon = this.root.querySelector("use");
    this.announcement = document.getElementById("announcement");
    this.contact = document.getElementById("contact");
    this.heard = document.getElementById("heard");
    this.level = null;
    this.isLost = null;
    const list = this.root.querySelector(".notes");
    this.notes = new KeyedList(list, {
      key: (note) => note,
      create: (note) => element("li", { text: note }),
      update: () => {},
    });
    this.noteList = list;
  }

  show({ level, text, notes }) {
    setData(this.root, "level", level);
    setText(this.text, unbroken(text));
    this.notes.show(notes.map(unbroken));
    setHidden(this.noteList, notes.length === 0);
    if (level === this.level) return;
    this.level = level;
    this.icon.setAttribute("href", `#icon-${level}`);
    this.entitle();
    // Read aloud once for each level: the figures in the sentence change twice a second.
    setText(this.announcement, text);
  }

  /** Say at once when nothing is heard from ODS, and for how long. */
  showContact({ isLost, seconds }) {
    const silence = seconds < 60 ? `${Math.floor(seconds)}\u00a0s` : duration(seconds);
    const old = `No contact with ODS for ${silence}: what stands below is old.`;
    const never = "No contact with ODS yet: it is not running, or this machine cannot reach it.";
    if (isLost) setText(this.contact.querySelector("span"), this.level === null ? never : old);
    setText(this.heard, isLost ? "No contact" : this.level === null ? "Connecting" : "In contact");
    if (isLost === this.isLost) return;
    this.isLost = isLost;
    setHidden(this.contact, !isLost);
    document.body.classList.toggle("lost", isLost);
    this.entitle();
    if (isLost) setText(this.announcement, "No contact with ODS: what stands on this page is old.");
    else if (this.level !== null) setText(this.announcement, "In contact with ODS again.");
  }

  entitle() {
    document.title = `${this.isLost ? "NO CONTACT" : TITLES[this.level] ?? "Connecting"} · ODS`;
  }
}
