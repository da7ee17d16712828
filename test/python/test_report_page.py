# SPDX-License-Identifier: GPL-2.0-only
"""A report as a browser shows it: what its charts and its table hold, against summary.json."""

import json
import re
import unittest

import report_fixture
from support import FolderTest

from splitllm import browser, report

# name, source, what is drawn: Plotly's own copy of each trace, and the ticks as they stand there
CHARTS = """[...document.querySelectorAll(".chart")].map((chart) => ({
  source: chart.dataset.source,
  section: chart.closest("section").id,
  traces: chart._fullData.map((trace) => ({
    name: trace.name, type: trace.type, meta: trace.meta, points: trace.customdata, x: trace.x, y: trace.y, z: trace.z, base: trace.base,
    text: trace.text, errors: { x: trace.error_x?.visible ? trace.error_x.array : null, y: trace.error_y?.visible ? trace.error_y.array : null },
  })),
  marks: chart.querySelectorAll(".point").length,
  axes: ["xaxis", "yaxis"].map((name) => { const axis = chart._fullLayout[name];
    return { title: axis.title.text, values: axis.tickvals, texts: axis.ticktext, range: axis.range, type: axis.type }; }),
  drawn: [...chart.querySelectorAll(".xtick text")].map((text) => text.textContent),
}))"""
TABLE = """[...document.querySelectorAll("#table tbody tr")].map((row) => ({
  point: Number(row.dataset.point),
  cells: [...row.querySelectorAll("td[data-metric]")].map((cell) => (
    { metric: cell.dataset.metric, value: cell.dataset.value ?? null, text: cell.firstChild.textContent, title: cell.title })),
}))"""
FACTORS = {"": 1, "ms": 1, "s": 1, "nats": 1, "%": 0.01, "B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "bit/s": 1, "Mbit/s": 1e6, "kbit/s": 1e3}


@unittest.skipIf(browser.find_browser() is None, "no browser: chromium, or google-chrome")
class PageTest(FolderTest):
    """A page of the fixture in a browser."""

    @classmethod
    def setUpClass(cls):
        cls.page = cls.enterClassContext(browser.Page())

    def setUp(self):
        super().setUp()
        report_fixture.write(self.folder)
        self.summary = json.loads((self.folder / "summary.json").read_text())["points"]
        report.write(self.folder, self.folder / "report.html")
        self.page.media("light")
        self.page.size(1280, 900)
        self.page.open(self.folder / "report.html")

    def tearDown(self):
        self.assertEqual(self.page.errors(), [])
        asked = [address for address in self.page.requests() if not address.startswith(("data:", "blob:"))]
        self.assertEqual(asked, [(self.folder / "report.html").resolve().as_uri()])

    def charts(self, source="summary.json"):
        return [chart for chart in self.page.evaluate(CHARTS) if chart["source"] == source]

    def metric(self, point, name):
        return self.summary[point]["metrics"].get(name)

    def check_numbers(self, chart):
        """Every mark's numbers are its point's, and every point that has them is there."""
        self.assertTrue(chart["traces"])
        metrics = chart["traces"][0]["meta"]
        marks = [trace for trace in chart["traces"] if trace["name"] != "Pareto front"]
        for trace in chart["traces"]:
            for axis in ("x", "y"):
                name = trace["meta"].get(axis)
                if name is None:
                    continue
                self.assertEqual(trace[axis], [self.metric(point, name) for point in trace["points"]])
                halves = [self.summary[point]["ci95"].get(name, 0) for point in trace["points"]]
                if trace in marks and chart["section"] != "components":
                    self.assertEqual(trace["errors"][axis], halves if any(halves) else None)
        if chart["section"] == "components":
            shown = {(point, trace["meta"]["x"]) for trace in marks for point in trace["points"]}
            parts = {trace["meta"]["x"] for trace in marks}
            wanted = {(i, name) for i, _ in enumerate(self.summary) for name in parts if self.metric(i, name) is not None}
            self.assertEqual(shown, wanted)
        else:
            names = [name for axis, name in metrics.items() if axis in "xy"]
            wanted = [i for i, _ in enumerate(self.summary) if all(self.metric(i, name) is not None for name in names)]
            self.assertEqual(sorted(point for trace in marks for point in trace["points"]), wanted)
        self.assertEqual(chart["marks"], sum(len(trace["points"]) for trace in marks))

    def check_ticks(self, chart):
        """What stands at an axis' ticks is their value in the unit of its title."""
        for axis in chart["axes"]:
            unit = re.search(r"\(([^()]*)\)[^()]*$", axis["title"] or "")
            for value, text in zip(axis["values"] or [], axis["texts"] or []):
                if re.fullmatch(r"[\d.e\u2212-]+", text) and unit:
                    self.assertAlmostEqual(float(text.replace("\u2212", "-")) * FACTORS[unit[1]], value, delta=1e-3 * abs(value))

    def click(self, selector):
        self.page.evaluate(f"document.querySelector({json.dumps(selector)}).click()")

    def choose(self, selector, number, value):
        self.page.evaluate(f"""(() => {{ const select = document.querySelectorAll({json.dumps(selector)})[{number}];
            select.value = {json.dumps(value)}; select.dispatchEvent(new Event("change")); }})()""")


class Numbers(PageTest):
    def test_charts_hold_the_numbers_of_the_summary(self):
        charts = self.charts()
        self.assertEqual([chart["section"] for chart in charts], ["curves"] * 6 + ["components"] + ["tradeoffs"] * 5)
        for chart in charts:
            with self.subTest(chart["section"], meta=chart["traces"][0]["meta"]):
                self.check_numbers(chart)
                self.check_ticks(chart)
        self.assertEqual([trace["meta"]["x"] for trace in charts[6]["traces"]], ["component_ms.base.mean", "component_ms.network.mean"])

    def test_curves_lie_along_the_swept_quantity_in_its_order(self):
        for trace in self.charts()[0]["traces"]:
            self.assertEqual(trace["x"], [1e6, 1e7, 1e8, 2e8, 1e9])
            labels = {point["set"]["scheme"]["label"] for point in map(self.summary.__getitem__, trace["points"])}
            self.assertEqual(labels, {trace["name"]})
        self.assertEqual(self.charts()[0]["drawn"], ["1 Mbps", "10 Mbps", "100 Mbps", "200 Mbps", "1 Gbps"])

    def test_another_metric_can_be_chosen_by_any_name(self):
        self.choose("#curves .card select", 0, "unheard.of_ratio")
        chart = self.charts()[0]
        self.assertEqual(chart["traces"][0]["meta"]["y"], "unheard.of_ratio")
        self.check_numbers(chart)
        self.check_ticks(chart)
        self.choose("#tradeoffs .card select", 0, "token_latency_ms.p95")
        chart = next(chart for chart in self.charts() if chart["section"] == "tradeoffs")
        self.assertEqual(chart["traces"][0]["meta"]["y"], "token_latency_ms.p95")
        self.check_numbers(chart)

    def test_the_front_is_what_nothing_beats_in_both(self):
        for chart in self.charts():
            front = next((trace for trace in chart["traces"] if trace["name"] == "Pareto front"), None)
            if front is None:
                continue
            sign = {name: -1 if name == "quality.exact_match" else 1 for name in front["meta"].values()}
            cost = {i: [sign[front["meta"][axis]] * self.metric(i, front["meta"][axis]) for axis in ("x", "y")]
                    for i, _ in enumerate(self.summary) if self.metric(i, "token_latency_ms.mean") is not None}  # fmt: skip
            beaten = {i for i in cost for j in cost if cost[j] != cost[i] and cost[j][0] <= cost[i][0] and cost[j][1] <= cost[i][1]}
            best = {tuple(cost[i]) for i in cost if i not in beaten}
            self.assertEqual({tuple(cost[i]) for i in front["points"]}, best)
            self.assertGreater(len(best), 1)

    def test_the_table_holds_the_numbers_of_the_summary(self):
        rows = self.page.evaluate(TABLE)
        self.assertEqual([row["point"] for row in rows], list(range(15)))
        units = dict(self.page.evaluate("""[...document.querySelectorAll("#table th[data-metric]")].map((head) =>
            [head.dataset.metric, head.querySelector("small")?.textContent ?? ""])"""))
        self.assertIn("token_latency_ms.mean", units)
        for row in rows:
            self.assertEqual([cell["metric"] for cell in row["cells"]], list(units))
            for cell in row["cells"]:
                value = self.metric(row["point"], cell["metric"])
                if value is None:
                    self.assertEqual((cell["value"], cell["text"]), (None, "\u2013"))
                    continue
                self.assertEqual(float(cell["value"]), value)
                self.assertIn(f"{cell['metric']} {cell['value']}", cell["title"])
                self.assertAlmostEqual(float(cell["text"]) * FACTORS[units[cell["metric"]]], value, delta=5.1e-4 * abs(value))

    def test_every_metric_can_be_a_column(self):
        self.page.evaluate('document.querySelectorAll("#table input").forEach((box) => { if (!box.checked) box.click(); })')
        for row in self.page.evaluate(TABLE):
            found = {cell["metric"]: float(cell["value"]) for cell in row["cells"] if cell["value"] is not None}
            self.assertEqual(found, self.summary[row["point"]]["metrics"])


class Use(PageTest):
    def order(self):
        return [row["point"] for row in self.page.evaluate(TABLE)]

    def test_columns_sort_both_ways_and_what_is_missing_stays_last(self):
        latency = lambda point: self.metric(point, "token_latency_ms.mean")  # noqa: E731
        there = [point for point in range(15) if latency(point) is not None]
        for direction, name in ((False, "ascending"), (True, "descending")):
            self.click('th[data-metric="token_latency_ms.mean"] button')
            self.assertEqual(self.order(), sorted(there, key=latency, reverse=direction) + [2, 5, 8, 11, 14])
            self.assertEqual(self.page.evaluate('document.querySelector("th[aria-sort]").getAttribute("aria-sort")'), name)
        self.click("th.name button")  # the rate, by size and not by letters
        self.assertEqual(self.order(), list(range(15)))

    def test_a_line_can_be_hidden_in_all_charts_of_its_section(self):
        self.click("#curves .legend button")
        for chart in self.charts():
            names = {trace["name"] for trace in chart["traces"]}
            self.assertEqual("Server </script><b>bold</b>" in names, chart["section"] == "tradeoffs")

    def test_points_can_be_chosen_by_what_is_swept(self):
        self.choose(".filters select", 1, "1")  # the second scheme
        tlc = [1, 4, 7, 10, 13]
        self.assertEqual(self.order(), tlc)
        for chart in self.charts():
            self.assertEqual({point for trace in chart["traces"] for point in trace["points"]}, set(tlc))
        self.choose(".filters select", 0, "4")
        self.assertEqual(self.order(), [13])
        self.choose(".filters select", 0, "")
        self.choose(".filters select", 1, "")
        self.assertEqual(self.order(), list(range(15)))
        for chart in self.charts():
            self.check_numbers(chart)

    def test_names_are_text_and_no_markup(self):
        self.assertEqual(self.page.evaluate('document.querySelectorAll("main table b, .legend b, dl b, option b").length'), 0)
        self.assertEqual(self.page.evaluate('document.querySelector("h1").textContent'), "fixture </title><script>")
        self.assertEqual(self.page.evaluate('document.querySelector(".warning").textContent'), "device-0: <lost>")
        self.assertNotIn("<b>bold", self.charts()[0]["traces"][0]["text"][0])

    def test_the_command_is_there_to_be_copied(self):
        self.assertEqual(self.page.evaluate('document.querySelector("#command").textContent'),
                         """cd '/data/it'"'"'s' &&\nbuild/split-llm-run '--study=a study.json' '--set=scheme={"name": "x"}'""")  # fmt: skip

    def test_maps_hold_decisions_and_tokens(self):
        (chart,) = self.charts("decisions.csv")
        (trace,) = chart["traces"]
        for (point, position, layer), (offloaded, returned) in report_fixture.cells().items():
            if point == 1:
                self.assertEqual(trace["z"][layer - 1][position], offloaded + returned)
        self.assertEqual(chart["drawn"], ["<|im_start|>", "user", "\u21b5", "\u00a0<i>", "\u00a0caf", "é"])

    def test_tokens_say_where_they_came_from(self):
        tokens = self.page.evaluate('[...document.querySelectorAll(".answer span")].map((span) => [span.textContent, span.title])')
        self.assertEqual(tokens, [[" caf", "token 1: last exit, cloud not reached, 0.25"], ["é", "token 2: exit after layer 8, 0.9375"],
                                  [" yes", "token 3: cloud, 0.5"]])  # fmt: skip

    def test_the_timeline_holds_the_events_of_one_token(self):
        for point, took in ((0, 20.25), (1, 21.25)):
            self.choose("#timeline select", 0, str(point))
            (chart,) = self.charts("timeline.json")
            bars = {(trace["name"], base, length) for trace in chart["traces"] for base, length in zip(trace["base"], trace["x"])}
            self.assertEqual({(name, round(base, 6), round(length, 6)) for name, base, length in bars}, {
                ("adapter", -0.0095, took / 1000), ("packets", 0.020125, 0.000464), ("messages", 0.020125, 0.060375),
                ("base", 0.0805, 0.04)})  # fmt: skip


class Media(PageTest):
    def colours(self):
        """Contrasts of text, of its background, and of each palette colour, with what they lie on."""
        return self.page.evaluate("""(() => {
          const parse = (text) => { const probe = document.createElement("canvas").getContext("2d"); probe.fillStyle = text;
            probe.fillRect(0, 0, 1, 1); return [...probe.getImageData(0, 0, 1, 1).data].slice(0, 3); };
          const light = (text) => { const [r, g, b] = parse(text).map((c) => { c /= 255; return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const contrast = (a, b) => { const [x, y] = [light(a), light(b)].sort((p, q) => q - p); return (x + 0.05) / (y + 0.05); };
          const style = (selector) => getComputedStyle(document.querySelector(selector));
          const card = style(".card").backgroundColor;
          const chart = document.querySelector(".chart");
          return { body: style("body").backgroundColor, text: contrast(style("body").color, style("body").backgroundColor),
            quiet: contrast(style(".quiet").color, style("body").backgroundColor), link: contrast(style("nav a").color, style("body").backgroundColor),
            head: contrast(style("th").color, style("th").backgroundColor), ticks: contrast(getComputedStyle(chart.querySelector(".xtick text")).fill, card),
            lines: [...document.querySelectorAll(".chart path.point, .chart .point path")].map((mark) => getComputedStyle(mark).fill)
              .filter((fill) => fill !== card).map((fill) => contrast(fill, card)) };
        })()""")

    def test_dark_and_light_are_both_legible(self):
        for scheme, ground in (("light", "rgb(255, 255, 255)"), ("dark", "rgb(20, 24, 29)"), ("light", "rgb(255, 255, 255)")):
            self.page.media(scheme)
            self.page.wait_until(f"getComputedStyle(document.body).backgroundColor === {json.dumps(ground)}")
            self.page.wait_until("document.querySelector('.chart')._fullLayout.font.color === css('--text')")
            colours = self.colours()
            self.assertEqual(colours["body"], ground)
            for name in ("text", "quiet", "link", "head", "ticks"):
                self.assertGreater(colours[name], 4.5, (scheme, name))
            self.assertGreater(min(colours["lines"]), 2, scheme)  # the palette's orange on white is 2.2

    def test_a_phone_needs_no_sideways_scrolling(self):
        self.page.size(390, 800, mobile=True)
        self.page.wait_until('[...document.querySelectorAll("#curves .chart svg")].every((svg) => svg.clientWidth < 390)')
        self.assertLessEqual(self.page.evaluate("document.documentElement.scrollWidth"), 390)

    def test_paper_is_light_and_holds_the_charts_in_their_cards(self):
        self.page.media("dark")
        self.page.evaluate('window.dispatchEvent(new Event("beforeprint"))')
        self.assertEqual(self.page.evaluate('getComputedStyle(document.querySelector(".chart .xtick text")).fill'), "rgb(28, 33, 38)")
        self.assertEqual(self.page.evaluate('document.querySelector("#curves .chart").clientWidth'), 300)
        self.page.evaluate('window.dispatchEvent(new Event("afterprint"))')
        self.assertGreater(self.page.evaluate('document.querySelector("#curves .chart").clientWidth'), 400)


if __name__ == "__main__":
    unittest.main()
