// SPDX-License-Identifier: GPL-2.0-only
// What all parts of the page share: the data, elements, numbers as text, colours.
"use strict";

const report = JSON.parse(document.getElementById("report").textContent);

/** An HTML element; attributes whose name begins with "on" are listeners, children may be text. */
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) {
      made.addEventListener(name.slice(2), value);
    } else {
      made.setAttribute(name, value);
    }
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** A <select> of [value, text] pairs that calls `changed` with the value chosen. */
function choice(pairs, chosen, name, changed) {
  const select = element("select", { "aria-label": name, onchange: () => changed(select.value) });
  for (const [value, text] of pairs) {
    select.append(element("option", { value }, text));
  }
  select.value = chosen;
  return select;
}

function section(id, title, note) {
  const made = element("section", { id }, element("h2", {}, title), note ? element("p", { class: "quiet" }, note) : null);
  document.querySelector("main").append(made);
  document.querySelector("nav").append(element("a", { href: "#" + id }, title));
  return made;
}

const metric = (name) => report.metrics[name];
const valueOf = (point, name) => report.points[point].metrics[name];
const halfOf = (point, name) => report.points[point].ci95[name];

/** Four significant digits, never as 1e5 within what people read easily; zeros at their end only where they align. */
function significant(value) {
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e6) {
    return String(value);
  }
  if (size >= 1e6 || size < 1e-4) {
    return value.toExponential(3);
  }
  const text = size >= 1000 ? value.toFixed(0) : value.toPrecision(4);
  return size < 0.1 ? String(Number(text)) : text;
}

const PREFIXES = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""], [1e-3, "m"], [1e-6, "\u00b5"], [1e-9, "n"]];

/** [factor, unit] in which a value of this size is read most easily: bytes as kB, shares as per cent. */
function scaleOf(unit, size) {
  if (unit === "ratio") {
    return [100, "%"];
  }
  if (unit === "B" || unit === "bit/s" || unit === "Hz" || (unit === "s" && size < 1)) {
    const [factor, prefix] = PREFIXES.find(([least]) => size >= least && (unit !== "B" || least >= 1)) || [1, ""];
    return [1 / factor, prefix + unit];
  }
  return [1, unit];
}

/** A value with its unit. */
function withUnit(value, unit) {
  const [factor, written] = scaleOf(unit, Math.abs(value));
  return (significant(value * factor) + " " + written).trim();
}

/** Text for a chart, where < and & would begin markup. */
const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;");

/** A metric of a point as tooltips show it: for people, then as it is in summary.json. */
function tooltip(point, name) {
  const value = valueOf(point, name);
  const half = halfOf(point, name);
  const unit = metric(name).unit;
  return `${plain(metric(name).title)}: <b>${withUnit(value, unit)}</b>${half === undefined ? "" : " \u00b1 " + withUnit(half, unit)}` +
    `<br>${plain(name)} ${value}`;
}

/** The swept value of a key at a point as text; a dash where a point does not have the key. */
const sweptText = (point, key) => (report.points[point].set[key] || ["\u2013"])[0];
const sweptNumber = (point, key) => (report.points[point].set[key] || [null, null])[1];

const filters = new Map(); // swept key -> the one text that points shown have of it
const afterFilter = []; // what draws again when filters change

/** The points that the reader wants to see, by their numbers. */
function shownPoints() {
  const all = report.points.map((_, point) => point);
  return all.filter((point) => [...filters].every(([key, text]) => sweptText(point, key) === text));
}

const dark = window.matchMedia("screen and (prefers-color-scheme: dark)");
const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
/** The colour as CSS has it: the palette's black is white on a dark ground. */
const cssColour = (colour) => (colour === "#000000" ? "var(--ink)" : colour.startsWith("--") ? `var(${colour})` : colour);
/** The same for charts, which know no variables. */
const shown = (colour) => (colour === "#000000" ? css("--ink") : colour.startsWith("--") ? css(colour) : colour);
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star"];
/** Colour and symbol of the n-th group; a colour that comes again has another symbol. */
function styleOf(number) {
  const colours = report.palette.length;
  return {
    color: report.palette[number % colours],
    symbol: SYMBOLS[(number + Math.floor(number / colours)) % SYMBOLS.length],
  };
}
