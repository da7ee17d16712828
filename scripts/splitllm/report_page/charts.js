// SPDX-License-Identifier: GPL-2.0-only
// Cards with a chart in them, their axes and legends.
"use strict";

const drawings = []; // what draws each chart again, when colours or widths change
const PAPER_WIDTHS = [300, 640]; // of a chart in half a page of A4, and in a whole one, px
let paper = false; // whether charts are drawn for a printer

/** What all charts have in common, in the colours of now. */
function baseLayout() {
  const axis = { gridcolor: css("--grid"), linecolor: css("--line"), zerolinecolor: css("--line"), automargin: true };
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: css("--text") },
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    margin: { l: 10, r: 14, t: 12, b: 10 },
    height: 300,
    showlegend: false,
    modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--quiet"), activecolor: css("--accent") },
    hoverlabel: { align: "left", bgcolor: css("--card"), bordercolor: css("--line"), font: { color: css("--text") } },
    xaxis: { ...axis },
    yaxis: { ...axis },
  };
}

const CONFIG = {
  displaylogo: false,
  displayModeBar: "hover",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
};

/**
 * A card whose header holds `heading` (elements), with a chart below: `figure` gives for a width its traces, its layout,
 * and the width below which it scrolls. `source` is the file whose numbers it holds. Returns what draws it again; for the first
 * time it is drawn when all cards are there and have their widths.
 */
function chartCard(parent, heading, source, figure, full) {
  const chart = element("div", { class: "chart", "data-source": source });
  const card = element("div", { class: full ? "card full" : "card" }, element("header", {}, ...heading), element("div", { class: "scroll" }, chart));
  parent.append(card);
  const draw = () => {
    const width = paper ? PAPER_WIDTHS[full ? 1 : 0] : card.clientWidth - 24;
    const { traces, layout, leastWidth } = figure(width);
    const all = { ...baseLayout(), ...layout, width: Math.max(width, paper ? 0 : leastWidth || 0) };
    chart.style.width = all.width + "px";
    for (const name of ["xaxis", "yaxis"]) {
      all[name] = { ...baseLayout()[name], ...(layout[name] || {}) };
    }
    chart.style.height = all.height + "px";
    return Plotly.react(chart, traces, all, CONFIG);
  };
  drawings.push(draw);
  return draw;
}

/** A row of buttons that show or hide groups, with their colours and symbols; `items` are [name, style]. */
function legend(parent, items, changed) {
  const hidden = new Set();
  const row = element("div", { class: "legend" });
  for (const [name, style] of items) {
    const button = element("button", { "aria-pressed": "true", type: "button", title: "show or hide" }, swatch(style), name);
    button.addEventListener("click", () => {
      hidden.has(name) ? hidden.delete(name) : hidden.add(name);
      button.setAttribute("aria-pressed", String(!hidden.has(name)));
      changed();
    });
    row.append(button);
  }
  parent.append(row);
  return hidden;
}

const SHAPES = {
  circle: "M8 3a5 5 0 1 0 .01 0z",
  square: "M3.5 3.5h9v9h-9z",
  diamond: "M8 2l6 6-6 6-6-6z",
  "triangle-up": "M8 2.5l6 10.5H2z",
  cross: "M6 2h4v4h4v4h-4v4H6v-4H2V6h4z",
  x: "M4.5 2L8 5.5 11.5 2 14 4.5 10.5 8l3.5 3.5-2.5 2.5L8 10.5 4.500 14 2 11.500 5.500 8 2 4.500z",
  star: "M8 1.500l2 4.500 4.800.400-3.700 3.200 1.200 4.800L8 11.800l-4.300 2.600 1.200-4.800L1.200 6.400 6 6z",
};

function swatch(style) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  svg.setAttribute("width", 14);
  svg.setAttribute("height", 14);
  svg.setAttribute("viewBox", "0 0 16 16");
  path.setAttribute("d", SHAPES[style.symbol || "square"]);
  path.setAttribute("fill", cssColour(style.color));
  path.setAttribute("stroke", "var(--line)");
  svg.append(path);
  return svg;
}

const WIDE_RANGE = 8; // a longer ratio of largest to smallest value goes on a logarithmic axis

function isWide(values) {
  return values.length > 1 && Math.min(...values) > 0 && Math.max(...values) / Math.min(...values) > WIDE_RANGE;
}

/** 1, 2, 5, 10, ... around the values; only powers of ten where those would be many. */
function logTicks(values) {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.ceil(Math.log10(Math.max(...values)));
  const steps = high - low > 3 ? [1] : [1, 2, 5];
  const ticks = [];
  for (let power = low; power <= high; power++) {
    ticks.push(...steps.map((step) => Number(`${step}e${power}`)));
  }
  return ticks;
}

/** "0.5" and "100": without the digits that align tables. */
function short(value) {
  const rounded = Number(value.toPrecision(3));
  return rounded !== 0 && Math.abs(rounded) < 1e-3 ? rounded.toExponential().replace("e-", "e\u2212") : String(rounded);
}

/**
 * An axis of values in a unit. The values stay as they are; only what is written at the ticks is scaled.
 * `bars` begin at 0; marks have some room on both sides, and a logarithmic axis where they lie far apart.
 */
function valueAxis(values, unit, title, bars) {
  const axis = { title: { text: plain(title), standoff: 8 } };
  if (!values.length) {
    return axis;
  }
  const isLog = !bars && isWide(values);
  const size = isLog ? Math.sqrt(Math.min(...values) * Math.max(...values)) : Math.max(...values.map(Math.abs));
  const [factor, written] = scaleOf(unit, size);
  axis.title.text += written ? ` (${written})` : "";
  if (isLog) {
    axis.type = "log";
    axis.tickvals = logTicks(values);
    axis.ticktext = axis.tickvals.map((value) => short(value * factor));
    const spare = 0.06 * Math.log10(Math.max(...values) / Math.min(...values));
    axis.range = [Math.log10(Math.min(...values)) - spare, Math.log10(Math.max(...values)) + spare];
    return axis;
  }
  const least = bars || Math.min(...values) < 0.7 * Math.max(...values) ? Math.min(0, ...values) : Math.min(...values);
  const most = Math.max(...values);
  const step = niceStep((most - least || Math.abs(most) || 1) / 5, factor);
  axis.tickvals = [];
  for (let tick = Math.ceil(least / step - 1e-9); tick <= Math.ceil(most / step); tick++) {
    axis.tickvals.push(tick * step);
  }
  const decimals = Math.max(0, -Math.floor(Math.log10(step * factor) + 1e-9));
  axis.ticktext = axis.tickvals.map((value) => (value * factor).toFixed(decimals));
  const spare = 0.06 * (most - least || Math.abs(most) || 1);
  axis.range = [bars || (least === 0 && Math.min(...values) > 0) ? 0 : least - spare, most + spare];
  return axis;
}

/** The step of 1, 2 or 5 times a power of ten, in what is written, next to `step`. */
function niceStep(step, factor) {
  const scaled = step * factor;
  const power = Math.pow(10, Math.floor(Math.log10(scaled)));
  const digit = [1, 2, 5, 10].find((candidate) => scaled / power <= candidate + 1e-9);
  return (digit * power) / factor;
}

const MOST_TICKS = 8;

/** The axis of a swept quantity: its values as they were written where they are few. */
function sweptAxis(key, points) {
  const numbers = points.map((point) => sweptNumber(point, key.key));
  const texts = new Map(points.map((point) => [sweptNumber(point, key.key), plain(sweptText(point, key.key))]));
  const axis = valueAxis(numbers, key.unit, key.name, false);
  if (texts.size <= MOST_TICKS) {
    axis.title.text = plain(key.name);
    axis.tickvals = [...texts.keys()];
    axis.ticktext = [...texts.values()];
  }
  if (axis.type !== "log") {
    const spare = 0.06 * (Math.max(...numbers) - Math.min(...numbers) || 1);
    axis.range = [Math.min(...numbers) - spare, Math.max(...numbers) + spare];
  }
  return axis;
}

const shortened = (text, most) => (text.length > most ? text.slice(0, most - 1) + "\u2026" : text);

/** Rows of bars from the top: their names, as far as `width` leaves room; none where they are too many to be read. */
function rowAxis(names, width) {
  const legible = names.length <= MOST_NAMED_ROWS;
  return {
    range: [names.length - 0.4, -0.6],
    tickvals: legible ? names.map((_, row) => row) : [],
    ticktext: legible ? names.map((name) => plain(shortened(name, Math.floor(width / 16)))) : [],
    showgrid: false,
    zeroline: false,
  };
}

const MOST_NAMED_ROWS = 60;
const rowsHeight = (rows) => 70 + (rows <= MOST_NAMED_ROWS ? Math.max(rows, 2) * (rows <= 20 ? 26 : 18) : Math.min(1400, rows * 6));
