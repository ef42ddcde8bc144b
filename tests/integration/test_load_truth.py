"""A server that is frozen for a second: what an open loop has to report, to within 1 %.

Requests at a fixed rate do not wait for the server. Those due while it is frozen are answered
after it goes on, so with a freeze from `s` to `e` the share `1 - q` of `n` requests at rate `r`
waits longer than `(e - s) - (1 - q) n / r`. The expectation is made from the instants at which the
signals were really sent, and allows for the time the server then takes to catch up, so that the
test holds on a busy machine, too.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest

from seatrial.loadgen import LoadRequest, run_load
from tests.support.served import serving

if TYPE_CHECKING:
    from seatrial.loadgen import Snapshot

SECOND_NS = 1_000_000_000
RATE_RPS = 5_000
TOLERANCE = 0.01


class Freezer:
    """Stops a process after a second of load, for a second or a little more."""

    def __init__(self, pid: int) -> None:
        """Keep whom to stop."""
        self._pid = pid
        self.stopped_at_ns = 0
        self.continued_at_ns = 0

    def __call__(self, snapshot: Snapshot) -> bool:
        """Looks at the clock, four times a second; never asks the load to end."""
        now_ns = time.monotonic_ns()
        if not self.stopped_at_ns and snapshot.elapsed_ns >= SECOND_NS:
            self.stopped_at_ns = now_ns
            os.kill(self._pid, signal.SIGSTOP)
        elif not self.continued_at_ns and 0 < self.stopped_at_ns <= now_ns - SECOND_NS:
            assert self._state() == "T", "it was frozen all the time"
            self.continued_at_ns = time.monotonic_ns()
            os.kill(self._pid, signal.SIGCONT)
        return False

    def _state(self) -> str:
        stat = Path(f"/proc/{self._pid}/stat").read_text(encoding="utf-8")
        return stat.rpartition(") ")[2][0]


@pytest.mark.parametrize("wait", ["block", "hybrid"])
def test_a_frozen_server_shows_in_full(wait: str) -> None:
    """p99, p99.9 and the maximum are what arithmetic says, because no request is left out."""
    with serving("--protocol", "echo", "--listen", "tcp:127.0.0.1:0") as served:
        address = served.endpoints[0].partition(":")[2]
        freezer = Freezer(served.pid)
        request = LoadRequest(
            targets=(f"tcp://{address}",),
            protocol="echo",
            payload_bytes=64,
            arrival="fixed",
            rate_rps=float(RATE_RPS),
            connections=16,
            depth=1024,
            measure_ns=4 * SECOND_NS,
            request_timeout_ns=60 * SECOND_NS,
            drain_ns=60 * SECOND_NS,
            wait=wait,
        )
        try:
            result = run_load(request, freezer)
        finally:
            os.kill(served.pid, signal.SIGCONT)
    count = 4 * RATE_RPS
    assert result.ok_count == result.intended_count == count
    assert result.records_stride == 1
    start_ns, end_ns = freezer.stopped_at_ns, freezer.continued_at_ns
    frame = pl.DataFrame(result)
    due_in_it = frame.filter(frame["intended_at_ns"].is_between(start_ns, end_ns))
    caught_up_ns = due_in_it["done_at_ns"].max()
    assert isinstance(caught_up_ns, int)
    histogram = result.response_histogram
    told = {0.99: histogram.quantile(0.99), 0.999: histogram.quantile(0.999), 1: histogram.max_ns}
    for quantile, told_ns in told.items():
        beyond_ns = (1 - quantile) * count / RATE_RPS * SECOND_NS
        low_ns = (end_ns - start_ns - beyond_ns) * (1 - TOLERANCE)
        high_ns = (caught_up_ns - start_ns - beyond_ns) * (1 + TOLERANCE)
        assert told_ns is not None
        assert low_ns <= told_ns <= high_ns, (quantile, caught_up_ns - end_ns)
