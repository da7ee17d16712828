// SPDX-License-Identifier: GPL-2.0-only
// The table of all points.
"use strict";

function drawTable() {
  const many = report.points.length > 1;
  const part = section("table", many ? `All ${report.points.length} points` : "The metrics", "From summary.json. The exact value of each number is in its tooltip." + (many ? " A click on a column sorts by it." : "") +
    (report.points.some((point) => Object.keys(point.ci95).length) ? " \u00b1 is half of the 95 % confidence interval over repetitions." : ""));
  const columns = new Set(report.columns);
  const order = report.points.map((_, point) => point);
  let sorted = null; // {by, descending}
  const holder = element("div", { class: "wide", tabindex: "0" });

  const refill = () => {
    const names = Object.keys(report.metrics).filter((name) => columns.has(name));
    names.sort((a, b) => rank(a) - rank(b));
    const shown = new Set(shownPoints());
    holder.replaceChildren(many ? tableOf(names, order.filter((point) => shown.has(point)), sorted, sort) : metricTable(names));
  };
  const sort = (by) => {
    sorted = { by, descending: sorted !== null && sorted.by === by && !sorted.descending };
    order.sort((a, b) => compare(a, b, by) * (sorted.descending && !isMissing(a, by) && !isMissing(b, by) ? -1 : 1) || a - b);
    refill();
  };
  const boxes = Object.keys(report.metrics).map((name) => {
    const box = element("input", { type: "checkbox", onchange: () => { box.checked ? columns.add(name) : columns.delete(name); refill(); } });
    box.checked = columns.has(name);
    return element("label", { title: name }, box, " " + metric(name).title);
  });
  part.append(element("details", { class: "unprinted" }, element("summary", {}, `${many ? "Columns" : "Rows"}: ${boxes.length} metrics to choose from`),
    element("div", { class: "choices" }, ...boxes)), holder);
  for (const problem of report.again.problems) {
    part.append(element("p", { class: "warning" }, problem));
  }
  refill();
  afterFilter.push(refill);
}

const rank = (name) => (report.columns.indexOf(name) + 1 || report.columns.length + 1 + Object.keys(report.metrics).indexOf(name));
const sortValue = (point, by) => (by in report.metrics ? valueOf(point, by) : sweptNumber(point, by) ?? sweptText(point, by));
const isMissing = (point, by) => sortValue(point, by) === undefined;

/** Missing values last, numbers by size, names by letters. */
function compare(a, b, by) {
  if (isMissing(a, by) || isMissing(b, by)) {
    return isMissing(a, by) - isMissing(b, by);
  }
  const [left, right] = [sortValue(a, by), sortValue(b, by)];
  return typeof left === "number" && typeof right === "number" ? left - right : String(left).localeCompare(String(right));
}

function tableOf(names, order, sorted, sort) {
  const scales = new Map(names.map((name) => {
    const sizes = report.points.map((point) => Math.abs(point.metrics[name] ?? 0));
    return [name, scaleOf(metric(name).unit, Math.max(...sizes))];
  }));
  const head = element("tr", {});
  const column = (by, text, unit, name) => {
    const cell = element("th", name, element("button", { type: "button", title: by, onclick: () => sort(by) }, text), unit ? element("small", {}, unit) : null);
    if (sorted !== null && sorted.by === by) {
      cell.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
    }
    head.append(cell);
  };
  report.keys.forEach((key) => column(key.key, key.name, "", { class: "name", scope: "col" }));
  names.forEach((name) => column(name, metric(name).title, scales.get(name)[1], { "data-metric": name, scope: "col" }));
  const body = element("tbody", {}, ...order.map((point) => element("tr", { "data-point": point },
    ...report.keys.map((key, number) => nameCell(sweptText(point, key.key), number === report.keys.length - 1 ? outOfMemory(point) : "")),
    ...names.map((name) => numberCell(point, name, scales.get(name))))));
  return element("table", {}, element("thead", {}, head), body);
}

const SHORT_NAME = 24; // letters that stay on one line

function nameCell(text, note) {
  return element("td", { class: text.length <= SHORT_NAME ? "name short" : "name" }, text, note ? element("small", { class: "note" }, " " + note) : null);
}

/** The nodes of a point that ran out of memory; nothing where none did. */
function outOfMemory(point) {
  const nodes = Object.entries(report.points[point].metrics).filter(([name, value]) => name.startsWith("oom.") && value).map(([name]) => name.slice(4));
  return nodes.length ? `out of memory: ${nodes.join(", ")}` : "";
}

/** The metrics of a single point, one a row. */
function metricTable(names) {
  return element("table", { class: "upright" }, element("tbody", {}, ...names.map((name) => {
    const scale = scaleOf(metric(name).unit, Math.abs(valueOf(0, name) ?? 0));
    return element("tr", { "data-point": 0 }, element("td", { class: "name" }, metric(name).title), numberCell(0, name, scale), element("td", { class: "name" }, scale[1]));
  })));
}

function numberCell(point, name, [factor]) {
  const value = valueOf(point, name);
  if (value === undefined) {
    return element("td", { "data-metric": name, title: "this point does not have it" }, "\u2013");
  }
  const half = halfOf(point, name);
  return element("td", { "data-metric": name, "data-value": value, title: `${name} ${value}${half === undefined ? "" : " \u00b1 " + half}` },
    significant(value * factor), half === undefined ? null : element("small", {}, " \u00b1 " + significant(half * factor)));
}
