// SPDX-License-Identifier: GPL-2.0-only
// The page from top to bottom.
"use strict";

const definitions = (rows) => element("dl", {}, ...rows.flatMap(([name, text]) => [element("dt", {}, name), element("dd", {}, String(text))]));

function drawQuestion() {
  const part = section("question", "The question", "");
  if (report.description) {
    part.append(element("p", {}, report.description));
  }
  const names = report.changes.map(([name]) => name);
  part.append(element("p", {}, names.length
    ? `What ${names.length > 1 ? names.slice(0, -1).join(", ") + " and " + names.at(-1) + " change" : names[0] + " changes"}, at ${report.points.length} points, everything else being equal:`
    : "One point: what a token costs in this setting."));
  part.append(definitions(report.changes));
  if (report.fixed.length) {
    part.append(element("p", { class: "quiet" }, "The same at every point:"), definitions(report.fixed));
  }
}

const FEW_POINTS = 12;
const MOST_CHOICES = 60;

/** Choices of the swept values that table and charts show, where there are many points. */
function drawFilters() {
  const keys = report.keys.map((key) => [key, [...new Set(report.points.map((_, point) => sweptText(point, key.key)))]]);
  const useful = keys.filter(([, texts]) => texts.length <= MOST_CHOICES);
  if (report.points.length <= FEW_POINTS || keys.length < 2 || !useful.length) {
    return;
  }
  const selects = useful.map(([key, texts]) => element("label", {}, key.name + " ", choice([["", "all"], ...texts.map((text, at) => [at, text])], "", key.name, (chosen) => {
    chosen === "" ? filters.delete(key.key) : filters.set(key.key, texts[chosen]);
    afterFilter.forEach((draw) => draw());
  })));
  document.querySelector("main").append(element("div", { class: "filters unprinted" }, "Points shown, in table and charts:", ...selects));
}

const RUN_NAMES = {
  study_file: "study", wall_s: "wall time, s", events: "events simulated", split_llm: "split-llm", ns3: "ns-3", gpu: "GPU",
};

function drawAgain() {
  const { command, folder, study, rows } = report.again;
  if (!rows.length && !command) {
    return;
  }
  const part = section("repeat", "Run it again", "From run.json.");
  if (command) {
    const line = (folder ? `cd ${folder} &&\n` : "") + command;
    const button = element("button", { type: "button", class: "unprinted", onclick: async () => {
      await navigator.clipboard.writeText(line);
      button.textContent = "copied";
    } }, "copy");
    part.append(element("pre", { id: "command" }, line), button);
  }
  part.append(definitions(rows.map(([name, value]) => [RUN_NAMES[name] || name, value])));
  if (study) {
    part.append(element("details", { class: "unprinted" }, element("summary", {}, "The study as it ran, without what was swept"), element("pre", {}, study)));
  }
}

/** Draws all charts in the colours of now. */
function drawCharts() {
  drawings.forEach((draw) => draw());
}

drawQuestion();
drawFilters();
drawTable();
drawCurves();
drawStacks();
drawTradeoffs();
drawMaps();
drawSources();
drawTimelines();
drawAgain();
/** Printers get dark ink on white, in the widths of the paper. */
function forPaper(wanted) {
  paper = wanted;
  document.documentElement.toggleAttribute("data-paper", wanted);
  drawCharts();
}

let width = window.innerWidth;
function fitWidth() {
  if (window.innerWidth !== width && !paper) {
    width = window.innerWidth;
    drawCharts();
  }
}

drawCharts();
window.addEventListener("resize", fitWidth);
window.addEventListener("beforeprint", () => forPaper(true));
window.addEventListener("afterprint", () => forPaper(false));
dark.addEventListener("change", drawCharts);
