# SPDX-License-Identifier: GPL-2.0-only
"""The numbers that plots of OPSC's studies show, against ones computed by hand."""

import unittest

from support import FolderTest
from test_plots import figure, point, points_of, series

from splitllm import plots_opsc

TOKENS = "point,repetition,session,request,position,payload_bytes_up"


def users(count, scheme, busy, tokens):
    made = point({"scheme": scheme, "nodes.device.count": count})
    made["metrics"] |= {"server_busy_s": busy, "server_tokens": tokens}
    return made


class Load(unittest.TestCase):
    def test_time_and_tokens_of_the_server_lie_over_the_number_of_devices(self):
        points = points_of(users(4, "cloud", 3.0, 40), users(1, "cloud", 1.0, 10), users(1, "split", 0.5, 4))
        self.assertTrue(plots_opsc.counts_users(points))
        drawn = figure()
        plots_opsc.plot_load(points, drawn)
        self.assertEqual(series(drawn.axes[0]), [[(1.0, 1.0), (4.0, 3.0)], [(1.0, 0.5)]])
        self.assertEqual(series(drawn.axes[1]), [[(1.0, 10.0), (4.0, 40.0)], [(1.0, 4.0)]])

    def test_responses_lie_over_the_rate_of_requests(self):
        rate = "workload.arrival.rate_per_s"
        loads = [point({rate: load, "scheme.name": "server"}) for load in (8, 2)]
        loads[0]["metrics"] |= {"response_s.p95": 5.0, "requests_per_s": 6.0}
        loads[1]["metrics"] |= {"response_s.p95": 0.5, "requests_per_s": 2.0}
        points = points_of(*loads)
        self.assertTrue(plots_opsc.counts_arrivals(points))
        self.assertFalse(plots_opsc.counts_users(points))
        drawn = figure()
        plots_opsc.plot_arrivals(points, drawn)
        self.assertEqual(series(drawn.axes[0]), [[(2.0, 0.5), (8.0, 5.0)]])
        self.assertEqual(series(drawn.axes[1]), [[(2.0, 2.0), (8.0, 6.0)]])

    def test_another_axis_has_no_load(self):
        self.assertFalse(plots_opsc.counts_users(points_of(point({"links.a-b.snr": 1}), point({"links.a-b.snr": 2}))))


class Deadlines(unittest.TestCase):
    def test_shares_are_in_per_cent_and_points_without_uploads_left_out(self):
        late, good, none = (point({"links.a-b.snr": snr}) for snr in (1, 10, 3))
        late["metrics"] |= {"deadline_met_ratio": 0.25, "opsc.tokens_per_response": 8}
        good["metrics"] |= {"deadline_met_ratio": 1.0, "opsc.tokens_per_response": 16}
        points = points_of(good, late, none)
        self.assertTrue(plots_opsc.has_deadlines(points))
        drawn = figure()
        plots_opsc.plot_deadlines(points, drawn)
        self.assertEqual(series(drawn.axes[0]), [[(1.0, 25.0), (10.0, 100.0)]])
        self.assertEqual(series(drawn.axes[1]), [[(1.0, 8.0), (10.0, 16.0)]])


class Uploads(FolderTest):
    def rows(self, last):
        rows = [f"{p},0,0,0,{k},{1000 * k}" for p in (0, 1) for k in range(1, 4)] + ["0,0,0,1,2,9", f"1,0,0,0,4,{last}"]
        return self.write("tokens.csv", "\n".join([TOKENS, *rows]) + "\n")

    def test_the_first_request_from_its_second_token_on(self):
        points = points_of(*(point({"scheme": name}) for name in ("a", "b")))
        points.points[1]["metrics"]["opsc.eq1_bytes"] = 1.0
        uploads = plots_opsc.read_uploads(self.rows(4000), points)
        self.assertEqual(uploads, {1: [(2, 2000), (3, 3000), (4, 4000)]})
        drawn = figure()
        plots_opsc.plot_uploads(points, uploads, drawn)
        self.assertEqual(series(drawn.axes[0]), [[(2.0, 2.0), (3.0, 3.0), (4.0, 4.0)]])

    def test_uploads_that_do_not_grow_are_no_plot(self):
        points = points_of(point({"scheme": "a"}), point({"scheme": "b"}))
        points.points[1]["metrics"]["opsc.eq1_bytes"] = 1.0
        self.assertEqual(plots_opsc.read_uploads(self.rows(2900), points), {})


if __name__ == "__main__":
    unittest.main()
