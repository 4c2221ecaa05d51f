// The feed from ODS: server-sent events, and whether there is contact at all.
//
// A page that shows old figures as if they were of now is worse than none. So contact is lost as soon as the connection
// breaks, or when nothing was heard for three seconds though it seems to stand (a cable, a frozen server). The browser
// connects again by itself where it can; a watchdog does it where the browser has given up or waits in vain.

export const SILENCE_MILLISECONDS = 3000;
const WATCH_MILLISECONDS = 250;
//: An attempt that has brought nothing for so long is begun anew.
const ATTEMPT_MILLISECONDS = 5000;

export class Feed {
  constructor({ onStatus, onHistory, onValues, onContact }) {
    this.handlers = { status: onStatus, history: onHistory, values: onValues };
    this.onContact = onContact;
    this.pod = null;
    this.match = "";
    this.source = null;
    this.isBroken = false;
    this.heardAt = performance.now();
    this.triedAt = 0;
  }

  /** Connect, and watch over the connection from now on. */
  start() {
    this.connect();
    setInterval(() => this.watchOver(), WATCH_MILLISECONDS);
  }

  /** Ask for the values of this pod too (none: null), of names that contain `match`. */
  watch(pod, match) {
    if (pod === this.pod && match === this.match) return;
    this.pod = pod;
    this.match = match;
    if (this.source !== null) this.connect();
  }

  get url() {
    if (this.pod === null) return "/events";
    const query = new URLSearchParams({ pod: this.pod });
    if (this.match !== "") query.set("match", this.match);
    return `/events?${query}`;
  }

  connect() {
    this.source?.close();
    const source = new EventSource(this.url);
    this.source = source;
    this.triedAt = performance.now();
    for (const [name, handle] of Object.entries(this.handlers)) {
      source.addEventListener(name, (event) => {
        if (source !== this.source) return; // of a pod that is no longer watched
        this.hear();
        handle(JSON.parse(event.data));
      });
    }
    // What ODS sends while it has nothing new to tell, or is too busy to tell it.
    source.addEventListener("alive", () => source === this.source && this.hear());
    source.addEventListener("error", () => {
      if (source !== this.source) return;
      this.isBroken = true;
      this.tellContact();
    });
  }

  hear() {
    this.heardAt = this.triedAt = performance.now();
    if (!this.isBroken && !this.wasLost) return;
    this.isBroken = false;
    this.tellContact();
  }

  watchOver() {
    this.tellContact();
    const waited = performance.now() - this.triedAt;
    const gaveUp = this.source.readyState === EventSource.CLOSED && waited > 1000;
    if (gaveUp || (this.wasLost && waited > ATTEMPT_MILLISECONDS)) this.connect();
  }

  tellContact() {
    const silence = performance.now() - this.heardAt;
    this.wasLost = this.isBroken || silence > SILENCE_MILLISECONDS;
    this.onContact({ isLost: this.wasLost, seconds: silence / 1000 });
  }
}
