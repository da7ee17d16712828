# SPDX-License-Identifier: GPL-2.0-only
"""Captures of links, and Wireshark's dissector of the wire format."""

import csv
import functools
import itertools
import json
import os
import random
import re
import shutil
import struct
import subprocess
import unittest

from support import ROOT, RUNNER, FolderTest

SCRIPT = ROOT / "scripts/wireshark/split-llm.lua"
PPP, USER0 = 9, 147
# TCP's reassembly of segments out of order is off by default
TCP = ("-o", "tcp.reassemble_out_of_order:TRUE")
FIELDS = ("kind", "dtype", "flags", "session", "request", "sequence", "position", "layer", "front", "length", "crc.status")


def tshark(*arguments):
    """The lines that tshark prints with the dissector; nobody's preferences are read."""
    environment = os.environ | {"HOME": "/nonexistent", "XDG_CONFIG_HOME": "/nonexistent"}
    command = ["tshark", *arguments, "-X", f"lua_script:{SCRIPT}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    errors = [line for line in result.stderr.splitlines() if "dangerous" not in line]
    if result.returncode != 0 or errors:
        raise AssertionError(f"tshark: status {result.returncode}\n" + "\n".join(errors))
    return result.stdout.splitlines()


def table(file, names, *options):
    """The values of some fields in every packet with a message: a list for each field."""
    columns = [argument for name in names for argument in ("-e", name)]
    lines = tshark("-r", file, "-Y", "splitllm", *options, "-T", "fields", "-E", "aggregator=|", *columns)
    return [[value.split("|") if value else [] for value in line.split("\t")] for line in lines]


@functools.cache
def dissected(file, *options):
    """All messages, each as FIELDS and whether it goes up, in the order of their ends; and what is reported about them."""
    names = (*(f"splitllm.{name}" for name in FIELDS), "tcp.dstport", "splitllm_record.direction", "_ws.expert.message",
             "_ws.malformed")  # fmt: skip
    found, reported = [], []
    for *columns, port, direction, remarks, malformed in table(file, names, *options):
        up = port in (["9000"], ["9001"]) or direction == ["0"]
        found += [(*(int(value, 0) for value in values), status, up) for *values, status in zip(*columns)]
        reported += [text for text in remarks + malformed if not TCP_REMARK.search(text)]
    return found, reported


def messages(file, *options):
    return [found[:-1] for found in dissected(file, *options)[0]]


def faults(file, *options):
    return dissected(file, *options)[1]


NUMBERS = itertools.count()  # of captures
# what Wireshark says of TCP and of Wi-Fi
TCP_REMARK = re.compile(r"retransmission|duplicate ack|out-of-order|previous segment|connection|\bsyn\b|\bfin\b", re.IGNORECASE)


@functools.cache
def value_strings():
    return [line.split("\t") for line in tshark("-G", "values") if line.startswith("V\tsplitllm")]


def crc32c(content):
    """Bit by bit, from the polynomial (RFC 3720); the dissector and the module use tables."""
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def message(kind, payload=b"", dtype=1, flags=0, session=0, request=0, sequence=0, position=0, layer=0, front=0):
    """The bytes that doc/wire.md describes."""
    head = struct.pack("<4sBBBBIIIIHHI", b"SLLM", 1, kind, dtype, flags, session, request, sequence, position, layer,
                       front, len(payload))  # fmt: skip
    return head + struct.pack("<I", crc32c(head + (payload[:front] if flags & 1 else payload))) + payload


def ppp(segment, begin, source=(1, 49153), target=(2, 9000)):
    """A frame with bytes of a TCP stream, the first of which is number begin."""
    tcp = struct.pack(">HHIIBBHHH", source[1], target[1], 1000 + begin, 1, 5 << 4, 0x10, 65535, 0, 0)
    size = 20 + len(tcp) + len(segment)
    ip = struct.pack(">BBHHHBBH4B4B", 0x45, 0, size, 0, 0, 64, 6, 0, 10, 0, 0, source[0], 10, 0, 0, target[0])
    return struct.pack(">H", 0x21) + ip + tcp + segment


def stream(content, cuts):
    """The frames of a TCP stream that is cut at these places."""
    places = [0, *sorted(cuts), len(content)]
    return [ppp(content[a:b], a) for a, b in itertools.pairwise(places) if a < b]


class Capture(FolderTest):
    def setUp(self):
        super().setUp()
        if not shutil.which("tshark"):
            self.skipTest("tshark is not installed")

    def pcap(self, link_type, records, longest=262144):
        parts = [struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, longest, link_type)]
        for number, record in enumerate(records):
            parts += [struct.pack("<IIII", number, 0, min(len(record), longest), len(record)), record[:longest]]
        path = self.folder / f"{next(NUMBERS)}.pcap"
        path.write_bytes(b"".join(parts))
        return path


class Dissector(Capture):
    """On captures that are made by hand, from what doc/wire.md says."""

    def test_the_checksum_is_that_of_the_standard(self):
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)

    def test_every_field_of_every_kind_is_read_however_the_stream_is_cut(self):
        draw = random.Random(7)
        wanted, content = [], b""
        for kind in range(1, 20):
            values = {"dtype": draw.randint(1, 5), "session": draw.getrandbits(32), "request": draw.getrandbits(32),
                      "sequence": kind - 1, "position": draw.getrandbits(32), "layer": draw.getrandbits(16)}  # fmt: skip
            payload = draw.randbytes(draw.choice((0, 1, 35, 36, 37, 1412, 5000)))
            content += message(kind, payload, **values)
            wanted.append((kind, values["dtype"], 0, *list(values.values())[1:], 0, len(payload), "good"))
        once = range(1448, len(content), 1448)
        for cuts in (once, range(1, 300), draw.sample(range(len(content)), 40), []):
            file = self.pcap(PPP, stream(content, cuts) if cuts else [ppp(content[:60000], 0)])
            self.assertEqual(messages(file), wanted if cuts else messages(file)[: len(wanted)])
            self.assertEqual(faults(file), [])

    def test_messages_that_share_a_segment_are_all_in_its_summary(self):
        two = message(4, bytes(1152), request=3, position=17, layer=4) + message(7, request=3, sequence=1, position=18)
        split = two + message(2, struct.pack("<i", 271), dtype=4, sequence=2)
        file = self.pcap(PPP, [ppp(split[:20], 0), ppp(split[20:], 20)])
        summaries = ("layer-input request 3 position 17 layer 4, 1152 B", "end request 3 position 18, 0 B",
                     "next-token request 0 position 0, 4 B")  # fmt: skip
        self.assertEqual(table(file, ["_ws.col.Info"]), [[["; ".join(summaries)]]])

    def test_segments_out_of_order_and_sent_again_are_put_in_order(self):
        content = b"".join(message(5, random.Random(i).randbytes(3000), sequence=i, layer=i + 1) for i in range(6))
        frames = stream(content, range(1000, len(content), 1000))
        mixed = [frames[0], frames[2], frames[1], frames[1], frames[2], *reversed(frames[3:9]), *frames[7:], frames[4]]
        file = self.pcap(PPP, mixed)
        self.assertEqual([m[FIELDS.index("sequence")] for m in messages(file, *TCP)], list(range(6)))
        self.assertEqual({m[-1] for m in messages(file, *TCP)}, {"good"})
        self.assertEqual(faults(file, *TCP), [])

    def test_a_capture_that_begins_within_a_message_goes_on_with_the_next(self):
        content = message(5, bytes(3000)) + message(6, bytes(100), sequence=1)
        frames = stream(content, [1000, 2000, 3036])
        file = self.pcap(PPP, frames[1:])
        self.assertEqual([m[0] for m in messages(file)], [6])
        self.assertEqual(len(faults(file)), 2)
        file = self.pcap(PPP, stream(content, [3026, 3036])[1:])  # an end that is shorter than a header
        self.assertEqual([m[0] for m in messages(file)], [6])
        self.assertEqual(len(faults(file)), 1)

    def test_bytes_that_are_no_message_hide_none_that_follow(self):
        content = message(8) + b"\x00\x01" * 25 + message(7, sequence=1)
        file = self.pcap(PPP, stream(content, [86]))
        self.assertEqual([m[0] for m in messages(file)], [8, 7])
        self.assertEqual(len(faults(file)), 1)

    def test_a_damaged_byte_is_reported_wherever_it_is(self):
        content = b""
        for sequence, place in enumerate((8, 12, 20, 24, 32, 36, 235)):
            damaged = bytearray(message(9, bytes(range(200)), dtype=2, sequence=2 * sequence, position=5, layer=3))
            damaged[place] ^= 4
            content += bytes(damaged) + message(8, sequence=2 * sequence + 1)
        file = self.pcap(PPP, stream(content, range(50, len(content), 500)))
        self.assertEqual([m[-1] for m in messages(file)], ["bad", "good"] * 7)
        self.assertEqual(faults(file), ["Wrong checksum"] * 7)
        self.assertEqual({m[-1] for m in messages(file, "-o", "splitllm.check_crc:FALSE")}, {"unverified"})

    def test_what_a_receiver_refuses_is_reported(self):
        front = "More real bytes than a payload of this kind and length has"
        content, wanted = b"", []
        for changes, fault in (
            ({4: 2}, "Unknown version"),
            ({5: 0}, "Unknown kind"),
            ({5: 20}, "Unknown kind"),
            ({6: 6}, "Unknown element type"),
            ({7: 4}, "Reserved flags are set"),
            ({26: 1}, front),  # of no phantom
            ({7: 1, 26: 6}, front),
        ):
            header = bytearray(message(9, bytes(5))[:32])
            for place, value in changes.items():
                header[place] = value
            summed = bytes(header) + bytes(5)
            content += bytes(header) + struct.pack("<I", crc32c(summed)) + bytes(5)
            wanted.append(fault)
        self.assertEqual(faults(self.pcap(PPP, [ppp(content, 0)])), wanted)
        header = message(5)[:28] + struct.pack("<I", 2**30 + 1)
        file = self.pcap(PPP, [ppp(header + struct.pack("<I", crc32c(header)), 0), ppp(bytes(1000), 36)])
        self.assertIn("Longer than a receiver accepts", faults(file))

    def test_of_a_phantom_only_its_front_counts(self):
        payload = b"\x05" + bytes(1999)
        for damaged, status in ((36, "bad"), (37, "good"), (2035, "good")):
            content = bytearray(message(4, payload, flags=1, front=1, layer=2))
            content[damaged] ^= 1
            file = self.pcap(PPP, stream(bytes(content), [1448]))
            names = ["_ws.col.Info", "splitllm.crc.status", "splitllm.payload", "splitllm.payload.phantom"]
            ((info, crc, front, rest),) = table(file, names)
            self.assertEqual(info, ["layer-input request 0 position 0 layer 2, 2000 B (phantom)"])
            self.assertEqual((crc, front), ([status], ["04" if damaged == 36 else "05"]))
            self.assertEqual(len(rest[0]), 2 * 1999)

    def test_tokens_are_numbers(self):
        ids = (0, 31, 49151)
        packed = struct.pack("<3i", *ids)
        for kind, shown in ((1, ids), (18, ids), (2, ids[:1]), (9, ())):
            file = self.pcap(PPP, [ppp(message(kind, packed, dtype=4), 0)])
            self.assertEqual(table(file, ["splitllm.token"]), [[[str(i) for i in shown]]])

    def test_records_of_whole_messages_tell_direction_and_connection(self):
        def record(direction, connection, content):
            return struct.pack("<BxxxI", direction, connection) + content

        file = self.pcap(USER0, [record(0, 0, message(3, bytes(64), session=5)), record(1, 2, message(6, bytes(8), session=5)),
                                 record(0, 0, b"SLLM")])  # fmt: skip
        names = ["splitllm_record.direction", "splitllm_record.connection", "_ws.col.Source", "_ws.col.Destination",
                 "splitllm.kind", "splitllm.crc.status"]  # fmt: skip
        self.assertEqual(table(file, names), [[["0"], ["0"], ["user 5"], ["server"], ["3"], ["good"]],
                                              [["1"], ["2"], ["server"], ["user 5"], ["6"], ["good"]]])  # fmt: skip
        cut = self.pcap(USER0, [record(0, 0, message(3, bytes(500)))], longest=300)
        self.assertEqual([(m[-2], m[-1]) for m in messages(cut)], [(500, "unverified")])
        self.assertEqual(faults(cut), [])


class Constants(Capture):
    """What the dissector repeats is what the module says."""

    def source(self, name):
        return (ROOT / name).read_text(encoding="utf-8")

    def values_of(self, field):
        return {int(row[2], 0): row[3] for row in value_strings() if row[1] == field}

    def enumerators(self, header, enum):
        body = re.search(rf"enum class {enum} : std::uint8_t\n{{(.*?)}};", self.source(header), re.DOTALL)[1]
        return {name: int(value) for name, value in re.findall(r"^ +(\w+) = (\d+),", body, re.MULTILINE)}

    def names(self, source, enum):
        return dict(re.findall(rf'{{{enum}::(\w+), "([^"]+)"}}', self.source(source)))

    def constant(self, source, name):
        return int(re.search(rf"\b{name} = (\w+);", self.source(source))[1], 0)

    def in_script(self, name):
        return re.search(rf"^local .*\b{name}\b.* = (.*?)(?: --.*)?$", SCRIPT.read_text(encoding="utf-8"), re.MULTILINE)[1]

    def test_kinds(self):
        values, names = self.enumerators("model/net/wire.h", "MessageKind"), self.names("model/net/wire.cc", "MessageKind")
        self.assertGreaterEqual(len(values), 19)
        self.assertEqual(self.values_of("splitllm.kind"), {value: names[name] for name, value in values.items()})

    def test_element_types(self):
        values = self.enumerators("model/tensor/dtype.h", "DType")
        listed = re.search(r'used in studies and results: "([^.]*)"\.', self.source("model/tensor/dtype.h"))[1]
        names = dict(zip(values, listed.split('", "')))
        self.assertEqual(self.values_of("splitllm.dtype"), {value: names[name] for name, value in values.items()})

    def test_flags(self):
        rows = (line.split("\t") for line in tshark("-G", "fields"))
        masks = {row[2]: int(row[6], 0) for row in rows if row[0] == "F" and row[2].startswith("splitllm.flags.")}
        phantom = self.constant("model/net/wire.cc", "kPhantomFlag")
        coded = self.constant("model/net/wire.cc", "kCodedFlag")
        self.assertEqual(masks, {"splitllm.flags.phantom": phantom, "splitllm.flags.coded": coded,
                                 "splitllm.flags.reserved": 255 - phantom - coded})  # fmt: skip

    def test_header_limits_and_ports(self):
        self.assertEqual(int(self.in_script("HEADER_BYTES")), self.constant("model/net/wire.h", "kHeaderBytes"))
        self.assertEqual(int(self.in_script("CRC_OFFSET")), self.constant("model/net/wire.cc", "kCrcOffset"))
        self.assertEqual(int(self.in_script("VERSION")), self.constant("model/net/wire.cc", "kVersion"))
        magic = struct.pack("<I", self.constant("model/net/wire.cc", "kMagic"))
        self.assertEqual(json.loads(self.in_script("MAGIC")), magic.decode())
        power = re.search(r"kMaxPayload = std::size_t\{1\} << (\d+);", self.source("model/net/tcp-message-port.h"))[1]
        self.assertEqual(self.in_script("LONGEST_PAYLOAD"), f"2 ^ {power}")
        port = int(re.search(r'"Port",.*?UintegerValue\((\d+)\)', self.source("model/apps/split-llm-servers.cc"), re.DOTALL)[1])
        self.assertEqual(json.loads(self.in_script("PORTS")), f"{port}-{port + 1}")

    def test_containers(self):
        header = "model/codec/tensor-container.h"
        start = struct.pack("<I", self.constant(header, "kContainerMagic")) + bytes([self.constant(header, "kContainerVersion")])
        self.assertEqual(self.in_script("CONTAINER_START").strip('"').replace("\\1", "\1"), start.decode())
        size = self.constant("model/codec/container-arithmetic.h", "kContainerHeaderBytes")
        self.assertEqual(int(self.in_script("CONTAINER_BYTES")), size)


LINK = {"type": "wired", "rate": "100Mbps", "delay": "1ms", "pcap": True}
LINKS = {
    "wired": LINK,
    "lossy": LINK | {"loss": 0.03},
    "service": {"type": "service", "rate": "100Mbps", "delay": "1ms", "startup": "50us", "pcap": True},
    "fading": {"type": "fading", "bandwidth": "10MHz", "snr": 10, "pcap": True},
    "fading-tcp": {"type": "fading", "bandwidth": "10MHz", "snr": 10, "transport": "tcp", "pcap": True},
    "wifi": {"type": "wifi", "distance": "10m", "pcap": True},
}
STUDY = {
    "study": "capture",
    "seed": 3,
    "mode": "shape",
    "model": {"shape": "smollm2-135m", "dtype": "fp16", "adapter": {"rank": 8}},
    "nodes": {
        "device": {"role": "user-device", "count": 2, "hardware": "jetson-xavier-nx-8gb"},
        "edge": {"role": "edge-server", "hardware": "rtx-a6000"},
    },
    "links": {"device-edge": LINK},
    "scheme": {"name": "linfer"},
    "workload": {"prompt_tokens": [{"tokens": 7, "requests": 2}], "new_tokens": 2},
}
# scheme linfer on SmolLM2-135M (doc/wire.md): 2 requests of a prompt of 7 tokens and 2 new ones, fp16
LAYERS, WIDTH, KV, REQUESTS, ROWS = 30, 576, 192, 2, (7, 1)
EXPECTED = sorted(
    [(7, 0)] * REQUESTS
    + [(3, 2 * w * WIDTH) for w in ROWS] * REQUESTS
    + [(4, 2 * w * WIDTH) for w in ROWS] * REQUESTS * LAYERS
    + [(5, 2 * w * (WIDTH + 2 * KV)) for w in ROWS] * REQUESTS * LAYERS
    + [(6, 2 * WIDTH) for _ in ROWS] * REQUESTS
)
UP = {1, 3, 5, 7, 9}  # kinds that go up in the schemes here


class Runs(Capture):
    """On captures of studies."""

    def setUp(self):
        super().setUp()
        if not RUNNER.is_file():
            self.skipTest(f"{RUNNER} is not there; build it, or name another in SPLITLLM_RUNNER")

    def run_study(self, study, *options, out="out"):
        path = self.write("study.json", json.dumps(study))
        command = [RUNNER, f"--study={path}", *([f"--out={self.folder / out}"] if out else []), *options]
        return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)

    def results(self, study, *options, out="out"):
        result = self.run_study(study, *options, out=out)
        self.assertEqual(result.returncode, 0, result.stderr)
        return self.folder / out

    def tokens(self, folder):
        with open(folder / "tokens.csv", encoding="utf-8") as file:
            return list(csv.DictReader(file))

    def captured(self, folder, point=0, repetition=0, link="device-edge"):
        return folder / "pcap" / f"point-{point}-repetition-{repetition}-{link}.pcap"

    def test_every_link_is_captured_message_by_message(self):
        for name, link in LINKS.items():
            with self.subTest(name):
                folder = self.results(STUDY | {"links": {"device-edge": link}}, out=name)
                file = self.captured(folder)
                found = [dict(zip(FIELDS, m)) for m in messages(file, *TCP)]
                self.assertEqual(sorted((m["kind"], m["length"]) for m in found), EXPECTED)
                self.assertEqual({(m["crc.status"], m["session"] == m["request"]) for m in found}, {("good", True)})
                self.assertEqual({m["flags"] for m in found if m["length"]}, {1})
                self.assertEqual(faults(file, *TCP), [])
                self.assertEqual([kind in UP for kind, *_ in dissected(file, *TCP)[0]], [m[-1] for m in dissected(file, *TCP)[0]])

                tokens = self.tokens(folder)
                for way in ("up", "down"):
                    mine = [m for m in found if (m["kind"] in UP) == (way == "up")]
                    ends = REQUESTS if way == "up" else 0
                    self.assertEqual(len(mine) - ends, sum(int(t[f"messages_{way}"]) for t in tokens))
                    self.assertEqual(sum(m["length"] for m in mine), sum(int(t[f"payload_bytes_{way}"]) for t in tokens))
                if name == "wired":  # the first SYN, at the server: 80 ns a byte and the delay after it was sent
                    ((when,), (size,)), *_ = table(file, ["frame.time_epoch", "frame.len"], "-Y", "tcp")
                    self.assertEqual(int(when.replace(".", "")), 80 * int(size) + 1_000_000)
                if name == "lossy":
                    self.assertGreater(len(table(file, ["frame.number"], "-Y", "tcp.analysis.retransmission")), 3)

    def test_times_are_those_of_the_timeline_to_the_nanosecond(self):
        alone = STUDY | {"nodes": STUDY["nodes"] | {"device": STUDY["nodes"]["device"] | {"count": 1}},
                         "workload": {"prompt_tokens": [{"tokens": 7, "requests": 1}], "new_tokens": 2}}  # fmt: skip
        for link in ("service", "fading"):
            folder = self.results(alone | {"links": {"device-edge": LINKS[link]}}, out=link)
            events = json.loads((folder / "timeline.json").read_text(encoding="utf-8"))["traceEvents"]
            processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
            # a message is between two events at its receiver; a capture has it at the server
            seen = [(round(1000 * e["ts"]), e["name"]) for e in events if e.get("cat") == "messages in"
                    and e["ph"] == ("e" if processes[e["pid"]] == "edge" else "b")]  # fmt: skip
            rows = table(self.captured(folder), ["frame.time_epoch", "_ws.col.Info"])
            # "deltas request 0 position 7 layer 3, 1920 B" is "deltas 3" in the timeline
            titles = [re.fullmatch(r"(\S+) request 0 position \d+(?: layer( \d+))?, .*", info).groups("") for _, (info,) in rows]
            found = [(int(when.replace(".", "")), "".join(title)) for ((when,), _), title in zip(rows, titles)]
            self.assertEqual(len(found), len(EXPECTED) / REQUESTS)
            self.assertEqual(found, sorted(seen, key=lambda message: message[0]))

    def test_capturing_changes_no_result(self):
        without = STUDY | {"links": {"device-edge": {k: v for k, v in LINK.items() if k != "pcap"}}}
        names = ("summary.json", "tokens.csv", "timeline.json")
        plain, captured = self.results(without, out="plain"), self.results(STUDY, out="captured")
        for name in names:
            self.assertEqual((plain / name).read_bytes(), (captured / name).read_bytes(), name)
        self.assertFalse((plain / "pcap").exists())

    def test_there_is_a_file_for_each_point_and_repetition(self):
        sweep = {"sweep": {"links.device-edge.pcap": [True, False, True]}, "repeat": 2}
        folder = self.results(STUDY | sweep)
        wanted = {f"point-{p}-repetition-{r}-device-edge.pcap" for p in (0, 2) for r in (0, 1)}
        self.assertEqual({file.name for file in (folder / "pcap").iterdir()}, wanted)
        (folder / "pcap" / "notes.txt").write_text("mine")
        self.results(STUDY)
        left = {"point-0-repetition-0-device-edge.pcap", "notes.txt"}
        self.assertEqual({file.name for file in (folder / "pcap").iterdir()}, left)
        self.assertEqual([file.name for file in folder.iterdir() if ".part" in file.name], [])

    def test_what_cannot_be_captured_is_refused_in_one_line(self):
        for study, out, reason in (
            (STUDY, None, "links.device-edge.pcap: captures go to the results, which have no folder; give one with --out=DIR"),
            (STUDY | {"links": {"device-edge": LINK | {"pcap": "yes"}}},
             "out", 'links.device-edge.pcap: is "yes"; accepted: true or false'),
            (STUDY | {"nodes": {"d/e": STUDY["nodes"]["device"], "edge": STUDY["nodes"]["edge"]}, "links": {"d/e-edge": LINK}},
             "out", "links.d/e-edge.pcap: the file is called after the link; accepted where no group's name has a slash"),
        ):  # fmt: skip
            result = self.run_study(study, out=out)
            self.assertEqual((result.returncode, len(result.stderr.splitlines())), (2, 1), result.stderr)
            self.assertTrue(result.stderr.endswith(reason + "\n"), result.stderr)

    def test_uploads_are_read_on_their_own_port(self):
        scheme = {"name": "ce-collm", "exits": {"layers": [8, 16]}, "policy": {"name": "random", "shares": [0.3, 0.3]}}
        nodes = {"edge": {"role": "user-device", "hardware": "rtx-a6000"}, "cloud": {"role": "cloud", "hardware": "rtx-a6000"}}
        workload = {"prompt_tokens": [{"tokens": 7, "requests": 2}], "new_tokens": 6}
        study = STUDY | {"scheme": scheme, "nodes": nodes, "workload": workload}
        study |= {"model": {"shape": "smollm2-135m", "dtype": "fp16"}}
        folder = self.results(study | {"links": {"edge-cloud": LINK}})
        file = self.captured(folder, link="edge-cloud")
        rows = table(file, ["splitllm.kind", "tcp.dstport"], *TCP)
        ports = {(kind, port) for kinds, (port,) in rows for kind in kinds if port in ("9000", "9001")}
        self.assertEqual(ports & {("9", "9001"), ("11", "9000")}, {("9", "9001"), ("11", "9000")})
        self.assertEqual(faults(file, *TCP), [])
        found = [dict(zip(FIELDS, m)) for m in messages(file, *TCP)]
        up = sum(m["length"] for m in found if m["kind"] in UP | {11})
        self.assertEqual(up, sum(int(t["payload_bytes_up"]) for t in self.tokens(folder)))

        folder = self.results(study | {"links": {"edge-cloud": LINKS["service"]}}, out="service")
        rows = table(self.captured(folder, link="edge-cloud"), ["splitllm.kind", "splitllm_record.connection"])
        self.assertEqual({(kind, number) for (kind,), (number,) in rows if kind in ("9", "11")}, {("9", "1"), ("11", "0")})

    def test_a_message_longer_than_a_record_is_cut_off(self):
        workload = {"prompt_tokens": [{"tokens": 300, "requests": 1}], "new_tokens": 1}
        folder = self.results(STUDY | {"workload": workload, "links": {"device-edge": LINKS["service"]}})
        rows = table(self.captured(folder), ["frame.len", "frame.cap_len", "splitllm.length", "splitllm.kind"])
        size = 300 * WIDTH * 2
        self.assertEqual(rows[0], [[str(8 + 36 + size)], ["262144"], [str(size)], ["3"]])
        self.assertEqual(len(rows), 2 * LAYERS + 3)

    def test_real_tokens_and_containers_are_read(self):
        models = self.folder / "models"
        self.assertEqual(self.run_script("make-tiny-models", models).returncode, 0)
        prompts = self.write("prompts.jsonl", '{"id": "a", "text": "?", "tokens": [3, 1, 4, 1, 5]}\n')
        study = STUDY | {
            "mode": "numeric",
            "model": {"path": "tiny-llama"},
            "nodes": STUDY["nodes"] | {"device": {"role": "user-device", "hardware": "jetson-xavier-nx-8gb"}},
            "workload": {"prompts": str(prompts), "requests": 1, "new_tokens": 4},
        }
        folder = self.results(study | {"scheme": {"name": "server"}}, f"--models={models}", out="server")
        rows = table(self.captured(folder), ["splitllm.kind", "splitllm.token"], *TCP)
        generated = [t["token"] for t in self.tokens(folder)]
        self.assertEqual([ids for kind, ids in rows if kind == ["2"]], [[token] for token in generated])
        asked = [["3", "1", "4", "1", "5"], *([token] for token in generated[:-1])]
        self.assertEqual([ids for kind, ids in rows if kind == ["1"]], asked)

        scheme = {"name": "linfer", "codec": {"name": "tab-q", "bits": 4}}
        study |= {"model": {"path": "tiny-llama", "adapter": {"path": "tiny-llama-lora"}}, "scheme": scheme}
        folder = self.results(study, f"--models={models}", out="tab-q")
        file = self.captured(folder)
        names = ["splitllm.kind", "splitllm.container.rows", "splitllm.container.cols", "splitllm.flags"]
        rows = [tuple(int(v, 0) for (v,) in row) for row in table(file, names, *TCP) if row[0] != ["7"]]
        # tiny-llama: 4 layers of width 64, 32 for keys and for values
        wanted = [(kind, w if kind != 6 else 1, 64 + 64 * (kind == 5), 2) for w in (5, 1, 1, 1)
                  for kind in (3, *(4, 5) * 4, 6)]  # fmt: skip
        self.assertEqual(rows, wanted)
        self.assertEqual(({m[-1] for m in messages(file, *TCP)}, faults(file, *TCP)), ({"good"}, []))


if __name__ == "__main__":
    unittest.main()
