// SPDX-License-Identifier: GPL-2.0-only
// What is drawn from the tables and the timeline: decisions by layer and token, where tokens came from, one token's time.
"use strict";

const pointName = (point) => report.points[point].label;
/** [value, text] of what differs in a list by point or request. */
const pointPairs = (list) => [...new Set(list.map((entry) => entry.point))].map((point) => [point, pointName(point)]);
const requestPairs = (list) => [...new Set(list.map((entry) => entry.request))].map((request) => [request, `request ${request + 1}`]);
const entryOf = (list, point, request) => list.find((entry) => entry.point === Number(point) && entry.request === Number(request));

const DECISIONS = [["stays at the edge", "--nothing"], ["offloaded, Tier 2 returns nothing", "#E69F00"], ["offloaded and returned", "#0072B2"]];
const MAPS = 4; // at first
const MOST_BESIDE = 36; // positions of maps that stand side by side
const CELL_WIDTH = 13; // least, px: names of tokens below it
const SIDE_WIDTH = 50; // of the words "prompt" and "answer", px

function drawMaps() {
  const list = report.decisions;
  if (!list.length) {
    return;
  }
  const part = section("decisions", "Decisions by layer and token",
    "Each cell is LoRA at one layer for one token. Tier 1, at the edge, decides whether a cell is offloaded to the device, Tier 2, on the device, whether its result comes back. From decisions.csv and texts.jsonl.");
  const points = pointPairs(list);
  let request = list[0].request;
  const apart = (points.length - 1) / Math.max(1, MAPS - 1); // some of the first, some of the last
  const chosen = points.length <= MAPS ? points.map(([point]) => point) : [...Array(MAPS).keys()].map((number) => points[Math.round(number * apart)][0]);
  const redraws = [];
  const requests = requestPairs(list);
  if (requests.length > 1) {
    part.append(element("p", { class: "unprinted" }, "Request ", choice(requests, request, "request", (value) => {
      request = Number(value);
      redraws.forEach((draw) => draw());
    })));
  }
  part.append(element("div", { class: "legend" }, ...DECISIONS.map(([name, color]) => element("span", {}, swatch({ color }), name))));
  const cards = element("div", { class: "cards" });
  part.append(cards);
  const longest = Math.max(...list.map((entry) => entry.cells[0].length));
  chosen.forEach((_, number) => {
    const select = choice(points, chosen[number], "point", (value) => { chosen[number] = value; redraws[number](); });
    redraws.push(chartCard(cards, [select], "decisions.csv", (width) => decisionMap(entryOf(list, chosen[number], request), width), longest > MOST_BESIDE));
  });
}

function decisionMap(entry, width) {
  if (!entry) {
    return { traces: [], layout: { height: 80, annotations: [{ text: "not in this page: the table decisions.csv has it", showarrow: false }] } };
  }
  const layers = entry.cells.length;
  const positions = entry.cells[0].length;
  const z = entry.cells.map((row) => [...row].map((digit) => (digit === " " ? null : Number(digit))));
  const leastWidth = 60 + positions * CELL_WIDTH;
  const token = (position) => visible(entry.tokens[position] ?? "");
  const colours = DECISIONS.map(([, color]) => shown(color));
  const steps = colours.flatMap((color, state) => [[state / 3, color], [(state + 1) / 3, color]]);
  const trace = {
    type: "heatmap", z, x: [...Array(positions).keys()], y: [...Array(layers).keys()].map((layer) => layer + 1),
    zmin: -0.5, zmax: 2.5, colorscale: steps, showscale: false, xgap: 1, ygap: 1, meta: { point: entry.point, request: entry.request },
    text: z.map((row, layer) => row.map((state, position) => (state === null ? "" :
      `layer ${layer + 1}, position ${position} <b>${token(position)}</b><br>${DECISIONS[state][0]}`))),
    hovertemplate: "%{text}<extra></extra>",
  };
  const named = entry.tokens.length > 0;
  const axis = named
    ? { tickvals: trace.x, ticktext: trace.x.map(token), tickangle: -90, tickfont: { size: 10 } }
    : { title: { text: "position in the sequence" } };
  const layout = {
    height: 130 + 9 * layers + (named ? 40 : 0),
    xaxis: { ...axis, showgrid: false, range: [-0.5, positions - 0.5], zeroline: false },
    yaxis: { title: { text: "layer" }, showgrid: false, zeroline: false, range: [0.5, layers + 0.5] },
    shapes: [], annotations: [], margin: { l: 10, r: 14, t: 24, b: 10 },
  };
  if (named && entry.prompt > 0 && entry.prompt < positions) {
    layout.shapes.push({ type: "line", xref: "x", yref: "paper", x0: entry.prompt - 0.5, x1: entry.prompt - 0.5, y0: 0, y1: 1.05, line: { color: css("--text"), width: 2 } });
    const cell = (Math.max(width, leastWidth) - 60) / positions;
    const sides = [["prompt", "right", -4, entry.prompt], ["answer", "left", 4, positions - entry.prompt]];
    layout.annotations = sides.filter(([, , , cells]) => cells * cell > SIDE_WIDTH).map(([text, xanchor, xshift]) => (
      { text, xanchor, xshift, x: entry.prompt - 0.5, yref: "paper", y: 1.01, yanchor: "bottom", showarrow: false }));
  }
  return { traces: [trace], layout, leastWidth };
}

/** A token so that blanks and line ends are seen. */
function visible(text) {
  return plain(text.replace(/\n/g, "\u21b5").replace(/ /g, "\u00a0"));
}

function drawSources() {
  const list = report.sources;
  if (!list.length) {
    return;
  }
  const part = section("sources", "Where each token came from", "From exits.csv or gates.csv, and texts.jsonl. The number in a token's tooltip is the confidence of the exit, or the gate's probability of open.");
  const names = [...new Set(list.flatMap((entry) => entry.marks.map(([name]) => name)))].sort();
  const colours = new Map(names.map((name, number) => [name, report.palette[number % report.palette.length]]));
  let [point, request] = [list[0].point, list[0].request];
  const holder = element("div", { class: "card" });
  const refill = () => {
    const entry = entryOf(list, point, request);
    holder.replaceChildren();
    if (!entry) {
      holder.append(element("p", { class: "quiet" }, "Not in this page."));
      return;
    }
    const texts = entry.marks.map(([name, number], at) => element("span", {
      style: `border-color: ${cssColour(colours.get(name))}`,
      title: `token ${at + 1}: ${name}${number === "" ? "" : ", " + number}`,
    }, entry.tokens[at] ?? "\u25a1 "));
    holder.append(entry.prompt ? element("div", { class: "prompt" }, entry.prompt) : "", element("p", { class: "answer" }, ...texts));
  };
  const points = pointPairs(list);
  const requests = requestPairs(list);
  part.append(element("p", {},
    points.length > 1 ? choice(points, point, "point", (value) => { point = value; refill(); }) : "", " ",
    requests.length > 1 ? choice(requests, request, "request", (value) => { request = value; refill(); }) : ""));
  part.append(element("div", { class: "legend" }, ...names.map((name) => element("span", {}, swatch({ color: colours.get(name) }), name))), holder);
  refill();
}

const LANE_COLOURS = { "messages in": "#56B4E9", "packets out": "#CC79A7", mode: "#D55E00" };
const LANE_NAMES = { compute: "compute", "messages in": "messages", "packets out": "packets", mode: "mode" };

function drawTimelines() {
  const list = report.timelines;
  if (!list.length) {
    return;
  }
  const part = section("timeline", "The timeline of a token",
    "What the nodes do while one token is made, on one clock that begins with the token. Messages last from sending to arrival and stand at their receiver, packets stand at their sender. From timeline.json.");
  let chosen = list[0].point;
  const points = pointPairs(list);
  const cards = element("div", { class: "cards" });
  const title = element("span", { class: "quiet" });
  const select = points.length > 1 ? choice(points, chosen, "point", (value) => { chosen = Number(value); draw(); }) : "";
  const found = new Set(list.flatMap((entry) => entry.events.map(spanKind)));
  const parts = [...Object.keys(report.components), ...found].filter((kind, at, all) => found.has(kind) && all.indexOf(kind) === at);
  part.append(element("div", { class: "legend" }, ...parts.map((name) => element("span", {}, swatch({ color: kindColour(name) }), name))), cards);
  const draw = chartCard(cards, [select, title], "timeline.json", (width) => {
    const entry = list.find((candidate) => candidate.point === chosen);
    title.textContent = `${entry.token} of the first user, ${withUnit(entry.took / 1000, "ms")}` +
      (entry.nodes_left_out ? `; ${entry.nodes_left_out} nodes that have less to do with it are left out` : "") +
      (entry.others_left_out ? "; what concerns other users, and packets, are left out" : "");
    return timeline(entry, width);
  }, true);
}

const spanKind = ([, lane, , component]) => (lane === "compute" ? component || "compute" : LANE_NAMES[lane]);
const kindColour = (kind) => report.components[kind] || LANE_COLOURS[Object.keys(LANE_NAMES).find((lane) => LANE_NAMES[lane] === kind)] || report.palette[0];

function timeline(entry, width) {
  const lanes = [];
  const laneOf = ([node, lane]) => `${node}: ${LANE_NAMES[lane]}`;
  const order = Object.keys(LANE_NAMES);
  const nodes = [...new Set(entry.events.map(([node]) => node))];
  nodes.forEach((node) => order.forEach((lane) => {
    if (entry.events.some((event) => event[0] === node && event[1] === lane)) {
      lanes.push(laneOf([node, lane]));
    }
  }));
  const traces = [...new Set(entry.events.map(spanKind))].map((kind) => {
    const mine = entry.events.filter((event) => spanKind(event) === kind);
    return {
      type: "bar", orientation: "h", name: kind, width: 0.7, meta: { point: entry.point },
      base: mine.map((event) => event[4] / 1000), x: mine.map((event) => event[5] / 1000), y: mine.map((event) => lanes.indexOf(laneOf(event))),
      text: mine.map((event) => `<b>${plain(event[2])}</b><br>${plain(laneOf(event))}<br>starts at ${event[4]} \u00b5s, takes ${event[5]} \u00b5s`),
      textposition: "none", hovertemplate: "%{text}<extra></extra>",
      marker: { color: kindColour(kind), opacity: kind === "messages" ? 0.75 : 1, line: { color: kindColour(kind), width: 0.5 } },
    };
  });
  return {
    traces,
    layout: {
      barmode: "overlay", height: 90 + 34 * lanes.length, hovermode: "closest",
      xaxis: { title: { text: "time since the token's start (ms)" }, range: [-0.01 * entry.took / 1000, 1.01 * entry.took / 1000], zeroline: false },
      yaxis: rowAxis(lanes, width),
    },
  };
}
