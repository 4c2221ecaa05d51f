// How figures are written: thousands grouped, durations as h:mm:ss, times by the clock of whoever reads the page.

//: Between groups of thousands: narrow, and never a line's end.
const GROUP = "\u202f";
//: Between a number and its unit.
const SPACE = "\u00a0";
const MINUS = "\u2212";
const UNITS = ["bytes", "KiB", "MiB", "GiB", "TiB"];

const grouped = (digits) => digits.replace(/\B(?=(\d{3})+$)/g, GROUP);
const two = (number) => String(number).padStart(2, "0");

/** A whole number; what is not known is a dash. */
export function count(number) {
  if (number === null || number === undefined) return "–";
  const whole = Math.round(number);
  return (whole < 0 ? MINUS : "") + grouped(String(Math.abs(whole)));
}

/** "1 point", "2 points". */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** A value at a glance: four digits that count, two decimals where there is room for them, and no false zeros. */
export function value(number) {
  return decimal(number, (size) => {
    const places = Math.floor(Math.log10(size));
    return size.toFixed(Math.min(6, Math.max(3 - places, places < 4 ? 2 : 0)));
  });
}

/** A value as a pod sent it, to be looked at closely. */
export function exactValue(number) {
  return decimal(number, (size) => size.toPrecision(9));
}

function decimal(number, shorten) {
  if (number === null || number === undefined) return "–";
  const size = Math.abs(number);
  if (size === 0) return "0";
  if (size >= 1e9 || size < 1e-4) return number.toExponential(3).replaceAll("-", MINUS);
  const [whole, part] = Number.parseFloat(shorten(size)).toString().split(".");
  return (number < 0 ? MINUS : "") + grouped(whole) + (part === undefined ? "" : `.${part}`);
}

export function bytes(number) {
  if (number === null || number === undefined) return "–";
  let unit = 0;
  while (number >= 1024 && unit < UNITS.length - 1) {
    number /= 1024;
    unit += 1;
  }
  return `${unit === 0 || number >= 100 ? count(number) : number.toFixed(1)}${SPACE}${UNITS[unit]}`;
}

/** h:mm:ss, with days where there are any. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const whole = Math.max(0, Math.floor(seconds));
  const days = Math.floor(whole / 86_400);
  const text = `${Math.floor((whole % 86_400) / 3600)}:${two(Math.floor((whole % 3600) / 60))}:${two(whole % 60)}`;
  return days === 0 ? text : `${days} d ${text}`;
}

/** How old something is: to a tenth of a second while it is fresh. */
export function age(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  const known = Math.max(0, seconds);
  if (known < 9.95) return `${known.toFixed(1)}${SPACE}s`;
  return known < 60 ? `${Math.floor(known)}${SPACE}s` : duration(known);
}

/** Records or points a second. */
export function rate(perSecond) {
  if (perSecond === null || perSecond === undefined) return "–";
  return `${perSecond > 0 && perSecond < 10 ? perSecond.toFixed(1) : count(perSecond)}/s`;
}

/** A moment by the local clock, with its date where that is not today's. */
export function moment(timeNs) {
  if (timeNs === null || timeNs === undefined) return "–";
  const then = new Date(timeNs / 1e6);
  const time = `${two(then.getHours())}:${two(then.getMinutes())}:${two(then.getSeconds())}`;
  if (then.toDateString() === new Date().toDateString()) return time;
  return `${then.getFullYear()}-${two(then.getMonth() + 1)}-${two(then.getDate())} ${time}`;
}

/** Hours of disk, as one says them. */
export function hours(number) {
  if (number === null || number === undefined) return "–";
  if (number >= 24 * 365) return "over a year";
  if (number >= 48) return `${count(number / 24)} days`;
  return number >= 10 ? `${count(number)} hours` : `${number.toFixed(1)} hours`;
}
