"""Percentiles, memory of a process, and a free port."""

import contextlib
import math
import re
import socket
from collections.abc import Sequence
from pathlib import Path


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the values (at least one) that `share` of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(values)) - 1)]


def peak_memory(pids: Sequence[int]) -> float:
    """MiB: the sum of the largest resident sizes that these processes have had; 0 without /proc (macOS)."""
    kibibytes = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
            kibibytes += int(found[1]) if found else 0
    return kibibytes / 1024


def free_port() -> int:
    """A port of 127.0.0.1 that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
