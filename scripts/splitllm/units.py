# SPDX-License-Identifier: GPL-2.0-only
"""Swept values as numbers: what studies write in ns-3's units ("100Mbps", "2ms", "1MB")."""

import re

SCALES = {
    "bit/s": {"bps": 1, "b/s": 1, "kbps": 1e3, "kb/s": 1e3, "Mbps": 1e6, "Mb/s": 1e6, "Gbps": 1e9, "Gb/s": 1e9,
              "Kbps": 1e3, "Kib/s": 2**10, "Mib/s": 2**20, "Gib/s": 2**30,
              "Bps": 8, "B/s": 8, "kBps": 8e3, "kB/s": 8e3, "MBps": 8e6, "MB/s": 8e6, "GBps": 8e9, "GB/s": 8e9},
    "s": {"fs": 1e-15, "ps": 1e-12, "ns": 1e-9, "us": 1e-6, "ms": 1e-3, "s": 1, "min": 60, "h": 3600},
    "byte": {"B": 1, "kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30},
    "m": {"mm": 1e-3, "m": 1, "km": 1e3},
    "Hz": {"Hz": 1, "kHz": 1e3, "MHz": 1e6, "GHz": 1e9},
}  # fmt: skip


def measure(value):
    """(number, dimension) of a swept value, for instance (1e8, "bit/s"); (None, None) where it is only a name."""
    if isinstance(value, bool):
        return None, None
    if isinstance(value, (int, float)):
        return float(value), ""
    match = re.fullmatch(r"\s*([-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)\s*([A-Za-z/]+)\s*", str(value))
    for dimension, scales in SCALES.items() if match else ():
        if match[2] in scales:
            return float(match[1]) * scales[match[2]], dimension
    return None, None


def written(value):
    """A swept value as text for people: "100 Mbps"."""
    if measure(value)[1]:
        return re.sub(r"^\s*([-+.\deE]*\d\.?)\s*([A-Za-z/]+)\s*$", r"\1 \2", str(value))
    return str(value).lower() if isinstance(value, bool) else str(value)
