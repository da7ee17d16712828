// SPDX-License-Identifier: GPL-2.0-only
// What is drawn from summary.json: curves over what was swept, components, Pareto fronts. Every mark carries the number
// of its point (customdata), every trace the metrics that it shows (meta).
"use strict";

const metricNames = Object.keys(report.metrics);
const quantities = report.keys.filter((key) => key.unit !== null);
const having = (points, ...names) => points.filter((point) => names.every((name) => valueOf(point, name) !== undefined));
const metricPairs = (names) => names.map((name) => [name, metric(name).title]);

/** Points by the text of all swept keys but the axis: {name: points}. */
function linesAlong(axis) {
  const others = report.keys.filter((key) => key !== axis && !(report.sampled && key.unit !== null));
  const lines = new Map();
  for (const point of shownPoints()) {
    const name = others.map((key) => (key.unit === "" ? key.name + " " : "") + sweptText(point, key.key)).join(", ");
    lines.set(name, [...(lines.get(name) || []), point]);
  }
  return lines;
}

/** The groups that points were put into by name: {name: points}. */
function groups() {
  const found = new Map();
  shownPoints().forEach((point) => found.set(report.points[point].group, [...(found.get(report.points[point].group) || []), point]));
  return found;
}

function marksOf(points, names, style, extra) {
  return {
    type: "scatter",
    customdata: points,
    textposition: "none",
    text: points.map((point) => `<b>${plain(report.points[point].label)}</b><br>` + names.map((name) => tooltip(point, name)).join("<br>")),
    hovertemplate: "%{text}<extra></extra>",
    marker: { color: shown(style.color), symbol: style.symbol, size: 8 },
    ...extra,
  };
}

function errorBars(points, name, style) {
  const halves = points.map((point) => halfOf(point, name));
  const some = halves.some((half) => half !== undefined);
  return some ? { type: "data", array: halves.map((half) => half ?? 0), color: shown(style.color), thickness: 1.2, width: 4 } : { visible: false };
}

/** The range of an axis holds the intervals too. */
const ends = (points, name) => points.flatMap((point) => {
  const half = halfOf(point, name) ?? 0;
  return half && valueOf(point, name) - half > 0 ? [valueOf(point, name) - half, valueOf(point, name) + half] : [valueOf(point, name), valueOf(point, name) + half];
});

function drawCurves() {
  if (!report.curves.length) {
    return;
  }
  let axis = quantities[0];
  const part = section("curves", quantities.length ? "Over what was swept" : "Point by point",
    "Of each chart the metric can be chosen." + (Object.keys(report.points[0].ci95).length ? " Bars are 95 % confidence intervals over repetitions." : "") + " From summary.json.");
  const cards = element("div", { class: "cards" });
  const shownMetrics = [...report.curves];
  const redraws = [];
  const againsts = [];
  const redraw = () => {
    againsts.forEach((against) => { against.textContent = axis ? "against " + axis.name : ""; });
    redraws.forEach((draw) => draw());
  };
  const key = element("div", {});
  let hidden = new Set();
  const refillLegend = () => {
    key.replaceChildren();
    const lines = [...(axis ? linesAlong(axis) : groups()).keys()];
    hidden = lines.length > 1 ? legend(key, lines.map((name, number) => [name, styleOf(number)]), redraw) : new Set();
  };
  if (quantities.length > 1) {
    part.append(element("p", { class: "unprinted" }, "Against ", choice(quantities.map((each) => [each.key, each.name]), axis.key, "horizontal axis",
      (chosen) => { axis = quantities.find((each) => each.key === chosen); refillLegend(); redraw(); })));
  }
  part.append(key, cards);
  refillLegend();
  afterFilter.push(() => { refillLegend(); redraw(); });
  report.curves.forEach((_, number) => {
    const select = choice(metricPairs(metricNames), shownMetrics[number], "metric", (chosen) => { shownMetrics[number] = chosen; redraws[number](); });
    const against = element("span", { class: "quiet" });
    against.textContent = axis ? "against " + axis.name : "";
    againsts.push(against);
    redraws.push(chartCard(cards, [select, against], "summary.json",
      (width) => (axis ? curve(axis, shownMetrics[number], hidden) : bars(shownMetrics[number], hidden, width)), false));
  });
}

function curve(axis, name, hidden) {
  const traces = [];
  const all = having(shownPoints(), name).filter((point) => sweptNumber(point, axis.key) !== null);
  [...linesAlong(axis)].forEach(([line, points], number) => {
    const mine = points.filter((point) => all.includes(point)).sort((a, b) => sweptNumber(a, axis.key) - sweptNumber(b, axis.key));
    if (!mine.length || hidden.has(line)) {
      return;
    }
    const style = styleOf(number);
    traces.push(marksOf(mine, [name], style, {
      name: line,
      mode: report.sampled ? "markers" : "lines+markers",
      line: { color: shown(style.color), width: 2 },
      x: mine.map((point) => sweptNumber(point, axis.key)),
      y: mine.map((point) => valueOf(point, name)),
      error_y: errorBars(mine, name, style),
      meta: { y: name, key: axis.key },
    }));
  });
  return { traces, layout: { xaxis: sweptAxis(axis, all), yaxis: valueAxis(ends(all, name), metric(name).unit, metric(name).title, false) } };
}

function bars(name, hidden, width) {
  const traces = [];
  const rows = having(shownPoints(), name).filter((point) => !hidden.has(report.points[point].group));
  [...groups()].forEach(([group, points], number) => {
    const mine = points.filter((point) => rows.includes(point));
    if (mine.length) {
      const style = styleOf(number);
      traces.push(marksOf(mine, [name], style, {
        type: "bar",
        orientation: "h",
        name: group,
        x: mine.map((point) => valueOf(point, name)),
        y: mine.map((point) => rows.indexOf(point)),
        error_x: { ...errorBars(mine, name, style), color: css("--text") },
        marker: { color: shown(style.color) },
        width: 0.75,
        meta: { x: name },
      }));
    }
  });
  const layout = {
    height: rowsHeight(rows.length),
    barmode: "overlay",
    xaxis: valueAxis(ends(rows, name), metric(name).unit, metric(name).title, true),
    yaxis: rowAxis(rows.map((point) => report.points[point].label), width),
  };
  return { traces, layout };
}

const MOST_ROWS_BESIDE = 20;

function drawStacks() {
  if (!report.stacks.length) {
    return;
  }
  const part = section("components", "Where the time goes", "The parts sum to the whole. From summary.json.");
  const cards = element("div", { class: "cards" });
  const PLACES = { edge: "#E69F00", network: "#56B4E9", cloud: "#0072B2" };
  const colours = { ...PLACES, ...report.components };
  for (const stack of report.stacks) {
    const colourOf = (name) => ({ color: stack.title.includes("response") ? PLACES[name] : colours[name] });
    const key = element("div", {});
    let draw = () => {};
    const hidden = legend(key, stack.parts.map(([name]) => [name, colourOf(name)]), () => draw());
    const figure = (width) => {
      const rows = shownPoints().filter((point) => stack.parts.some(([, name]) => valueOf(point, name) !== undefined));
      const traces = stack.parts.filter(([part]) => !hidden.has(part)).map(([part, name]) => {
        const mine = having(rows, name);
        return {
          ...marksOf(mine, [name], colourOf(part), { type: "bar", orientation: "h", name: part, width: 0.75, meta: { x: name } }),
          x: mine.map((point) => valueOf(point, name)),
          y: mine.map((point) => rows.indexOf(point)),
          marker: { color: colourOf(part).color },
        };
      });
      const sums = rows.map((point) => traces.reduce((sum, trace) => sum + (trace.x[trace.customdata.indexOf(point)] ?? 0), 0));
      const layout = {
        barmode: "stack",
        height: rowsHeight(rows.length),
        xaxis: valueAxis(sums, stack.unit, stack.title, true),
        yaxis: rowAxis(rows.map((point) => report.points[point].label), width),
      };
      return { traces, layout };
    };
    draw = chartCard(cards, [element("h3", {}, stack.title), key], "summary.json", figure, report.stacks.length === 1 || report.points.length > MOST_ROWS_BESIDE);
    afterFilter.push(draw);
  }
  part.append(cards);
}

/** The points that no other one beats in both metrics, by rising x. */
function frontOf(points, x, y) {
  const sign = (name) => (metric(name).better === "high" ? -1 : 1);
  const cost = (point, name) => sign(name) * valueOf(point, name);
  const ordered = [...points].sort((a, b) => cost(a, x) - cost(b, x) || cost(a, y) - cost(b, y));
  const front = [];
  for (const point of ordered) {
    if (!front.length || cost(point, y) < cost(front[front.length - 1], y)) {
      front.push(point);
    }
  }
  return front.sort((a, b) => valueOf(a, x) - valueOf(b, x));
}

function drawTradeoffs() {
  if (!report.tradeoffs.length) {
    return;
  }
  const part = section("tradeoffs", "What is given up for what",
    "Filled marks are on the Pareto front: no other point is better in both. Arrows on the axes point to where it is better; both metrics can be chosen. From summary.json.");
  const names = metricNames.filter((name) => metric(name).better !== null && having(shownPoints(), name).length > 1);
  const redraws = [];
  const redraw = () => redraws.forEach((draw) => draw());
  const lines = () => (quantities.length ? linesAlong(quantities[0]) : groups());
  const key = element("div", {});
  let hidden = new Set();
  const refillLegend = () => {
    key.replaceChildren();
    const found = [...lines().keys()];
    hidden = found.length > 1 ? legend(key, found.map((name, number) => [name, styleOf(number)]), redraw) : new Set();
  };
  refillLegend();
  afterFilter.push(() => { refillLegend(); redraw(); });
  const cards = element("div", { class: "cards" });
  part.append(key, cards);
  report.tradeoffs.forEach((pair, number) => {
    const now = [...pair];
    const axes = [1, 0].map((at) => choice(metricPairs(names), now[at], at ? "vertical axis" : "horizontal axis", (chosen) => {
      now[at] = chosen;
      redraws[number]();
    }));
    redraws.push(chartCard(cards, [axes[0], " against ", axes[1]], "summary.json", (width) => tradeoff(lines(), hidden, ...now, width), false));
  });
}

function tradeoff(byLine, hidden, x, y, width) {
  const all = having(shownPoints(), x, y);
  const visible = [...byLine].filter(([line]) => !hidden.has(line)).flatMap(([, points]) => points).filter((point) => all.includes(point));
  const front = frontOf(visible, x, y);
  const traces = [];
  if (front.length > 1) {
    traces.push({
      type: "scatter", mode: "lines", hoverinfo: "skip", name: "Pareto front", customdata: front, meta: { x, y },
      x: front.map((point) => valueOf(point, x)), y: front.map((point) => valueOf(point, y)),
      line: { color: css("--quiet"), width: 1.2, dash: "dash" },
    });
  }
  [...byLine].forEach(([line, points], number) => {
    const filled = (point) => front.includes(point);
    const mine = points.filter((point) => visible.includes(point)).sort((a, b) => filled(a) - filled(b)); // filled ones on top
    if (!mine.length) {
      return;
    }
    const style = styleOf(number);
    traces.push(marksOf(mine, [x, y], style, {
      name: line,
      mode: "markers",
      x: mine.map((point) => valueOf(point, x)),
      y: mine.map((point) => valueOf(point, y)),
      error_x: errorBars(mine, x, style),
      error_y: errorBars(mine, y, style),
      marker: {
        color: mine.map((point) => (filled(point) ? shown(style.color) : css("--card"))), symbol: style.symbol,
        size: mine.map((point) => (filled(point) ? 11 : 8)), line: { color: shown(style.color), width: 1.6 }, opacity: 1,
      },
      meta: { x, y },
    }));
  });
  const layout = {
    height: 340,
    xaxis: valueAxis(ends(all, x), metric(x).unit, metric(x).title, false),
    yaxis: valueAxis(ends(all, y), metric(y).unit, metric(y).title, false),
  };
  layout.xaxis.title.text += metric(x).better === "low" ? " \u2190" : " \u2192";
  layout.yaxis.title.text += metric(y).better === "low" ? " \u2190" : " \u2192"; // turned with the text
  layout.annotations = namesBeside(layout, front, visible, x, y, [width - 90, 250]);
  return { traces, layout };
}

const LETTER = 6; // px
const BESIDE = [["left", 9, 9], ["left", 9, -9], ["right", -9, 9], ["right", -9, -9]]; // anchor, right and up, px

/** The names of the points of a front beside their marks, those that find room in `width` x `height` between marks and
 *  names. */
function namesBeside(layout, front, others, x, y, [width, height]) {
  const share = (axis, value) => ((axis.type === "log" ? Math.log10(value) : value) - axis.range[0]) / (axis.range[1] - axis.range[0]);
  const place = (point) => [share(layout.xaxis, valueOf(point, x)) * width, share(layout.yaxis, valueOf(point, y)) * height];
  const taken = others.map(place).map(([left, up]) => [left - 5, up - 5, left + 5, up + 5]);
  const notes = [];
  for (const point of front) {
    const text = plain(shortened(report.points[point].label, 30));
    const [across, up] = place(point);
    for (const [xanchor, xshift, yshift] of BESIDE) {
      const left = xanchor === "left" ? across + xshift : across + xshift - LETTER * text.length;
      const box = [left, up + yshift - 7, left + LETTER * text.length, up + yshift + 7];
      const inside = box[0] >= 0 && box[2] <= width && box[1] >= 0 && box[3] <= height;
      if (inside && !taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) {
        taken.push(box);
        const at = (axis, value) => (axis.type === "log" ? Math.log10(value) : value);
        notes.push({ x: at(layout.xaxis, valueOf(point, x)), y: at(layout.yaxis, valueOf(point, y)), text, xanchor, xshift, yshift, showarrow: false, font: { size: 10.5 } });
        break;
      }
    }
  }
  return notes;
}
