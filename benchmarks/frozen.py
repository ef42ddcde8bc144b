"""T14: the server stands still for a second in the middle of a load; who tells the truth?

At a fixed rate over T seconds a server that is frozen for F seconds and otherwise answers at once
gives response times of which the share F/T is spread evenly over 0 to F: the quantile q is
F - (1 - q) T, and the largest is F. F is the time between the two signals as it was, not as it was
asked for. A client that counts from the moment at which it sent, and sends nothing while it waits,
sees one slow request a connection and reports a p99 of the healthy server.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING, Self

from benchmarks import engine, yardstick
from benchmarks.peers import fortio, h2load, hey, oha, vegeta, wrk
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest
from benchmarks.servers import echo_server, nginx
from seatrial.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.series import Contest, Figures
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

RATE_RPS = 5_000
CONNECTIONS = 16
DEPTH = 1024
FREEZE = 1.0
#: What each figure should be, beside the share of requests that it lies above.
SHARES = {"p99": 0.99, "p999": 0.999, "max": 1.0}
#: Off by this much at most, as a share of the true value.
TARGET = Target(must=0.01, stretch=0.003, is_upper=True)
OURS = "ours"
PEERS_ROUNDS = 2


class Freezer:
    """Stops a process in the middle of a run and lets it go on; says how long it stood."""

    def __init__(self, pid: int, *, after: float) -> None:
        self._pid = pid
        self._after = after
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._freeze)
        self.frozen_ns = 0

    def __enter__(self) -> Self:
        """Lets the clock run."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Ends early if the run did; the process goes on whatever happened."""
        self._is_over.set()
        self._thread.join()

    def _freeze(self) -> None:
        if self._is_over.wait(self._after):
            return
        started_ns = time.monotonic_ns()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGSTOP)
            try:
                self._is_over.wait(FREEZE)
            finally:
                self.frozen_ns = time.monotonic_ns() - started_ns
                os.kill(self._pid, signal.SIGCONT)


def rows(settings: Settings) -> list[Row]:
    """Returns what every tool says of the frozen second, as its error against the truth."""
    found = []
    with echo_server(settings) as server:
        quiet = Quiet(settings)
        quiet.add_helpers([server.pid])
        done = contest(echo_sides(settings, server), rounds=settings.rounds, quiet=quiet)
        name = f"echo, frozen 1 s of {settings.freeze_ns / NS_PER_S:g} s, 5 k/s fixed"
        found += truth(done, name) + said(done, name)
    with nginx(settings) as server:
        quiet = Quiet(settings)
        quiet.add_helpers([server.pid])
        sides = web_sides(settings, server)
        own = {OURS: sides.pop(OURS)}
        name = f"HTTP/1.1, nginx frozen 1 s of {settings.freeze_ns / NS_PER_S:g} s, 5 k/s fixed"
        found += truth(contest(own, rounds=settings.rounds, quiet=quiet), name)
        # What they say is told, not compared: it needs no interval.
        rounds = min(settings.rounds, PEERS_ROUNDS)
        found += said(contest(sides, rounds=rounds, quiet=quiet), name)
    return found


def echo_sides(settings: Settings, server: Address) -> dict[str, Callable[[], Figures]]:
    """Returns our engine and the C client, with no bound on what waits for the server."""
    seconds = settings.freeze_ns / NS_PER_S
    sides: dict[str, Callable[[float], Figures]] = {
        OURS: lambda length: ours(settings, server, length, depth=DEPTH, protocol="echo"),
        "C": lambda length: yardstick.open_loop(
            settings, server, rate_rps=RATE_RPS, wait="hybrid", arrival="fixed", seconds=length
        ),
    }
    return {name: judged(server, run, seconds) for name, run in sides.items()}


def web_sides(settings: Settings, server: Address) -> dict[str, Callable[[], Figures]]:
    """Returns our engine and the peers: with a rate where they know one, wrk as fast as it can."""
    seconds = settings.freeze_ns / NS_PER_S
    url = server.http
    paced = {"oha": oha.paced, "vegeta": vegeta.paced, "fortio": fortio.paced}
    sides: dict[str, Callable[[float], Figures]] = {
        OURS: lambda length: ours(settings, server, length, protocol="http", payload_bytes=0),
        "wrk (closed loop)": lambda length: wrk.measure(
            settings, url, connections=CONNECTIONS, seconds=length
        ),
        "h2load": lambda length: h2load.paced(
            settings, url, connections=CONNECTIONS, seconds=length, rate_rps=RATE_RPS
        ),
        "hey": lambda length: hey.measure(
            settings, url, connections=CONNECTIONS, seconds=length, rate_rps=RATE_RPS
        ),
    }
    for name, run in paced.items():
        sides[name] = lambda length, run=run: run(
            settings, url, connections=CONNECTIONS, seconds=length, rate_rps=RATE_RPS
        )
    return {name: judged(server, run, seconds) for name, run in sides.items()}


def ours(settings: Settings, server: Address, seconds: float, **changes: object) -> Figures:
    """Returns our figures: no warm-up, so that the whole run is what the formula speaks of."""
    return engine.load(
        settings,
        server.tcp,
        **{
            "arrival": "fixed",
            "rate_rps": float(RATE_RPS),
            "connections": CONNECTIONS,
            "wait": "hybrid",
            "warm_up_ns": 0,
            "measure_ns": int(seconds * NS_PER_S),
            "drain_ns": 5 * NS_PER_S,
            "request_timeout_ns": 5 * NS_PER_S,
            **changes,
        },
    )


def judged(
    server: Address, run: Callable[[float], Figures], seconds: float
) -> Callable[[], Figures]:
    """Returns a contender that freezes the server meanwhile and adds each figure's error."""

    def measure() -> Figures:
        with Freezer(server.pid, after=seconds / 2) as freezer:
            figures = dict(run(seconds))
        for word, q in SHARES.items():
            true_ns = freezer.frozen_ns - (1 - q) * seconds * NS_PER_S
            figures[f"true_{word}_ns"] = true_ns
            if f"response_{word}_ns" in figures:
                error = abs(figures[f"response_{word}_ns"] - true_ns) / abs(true_ns)
                figures[f"error_{word}_ratio"] = error
        return figures

    return measure


def truth(done: Contest, what: str) -> list[Row]:
    """Returns our errors against the target."""
    return [
        done.bound(
            Row(id="T14", name=f"{what}: error of {word}, as a share of the truth"),
            f"error_{word}_ratio",
            ours=OURS,
            shown="{:.4f}".format,
            scale=1,
            target=TARGET,
        )
        for word in SHARES
    ]


def said(done: Contest, what: str) -> list[Row]:
    """Returns what the others say, beside what would be true."""
    found = []
    for name, side in done.sides.items():
        if name == OURS:
            continue
        says = [
            f"{word} {side.median_text(f'response_{word}_ns', millis_text)} "
            f"(true {side.median_text(f'true_{word}_ns', millis_text)})"
            for word in SHARES
            if side.trouble or f"response_{word}_ns" in side.runs[0].figures
        ]
        text = f"{name}: {side.trouble}" if side.trouble else f"{name}: {', '.join(says)}"
        row = Row(id="", name=f"{what}: what {name} says", theirs=text, foreign=done.foreign(name))
        found.append(row)
    return found


def millis_text(value_ns: float) -> str:
    """Returns a duration in milliseconds."""
    return f"{value_ns / NS_PER_MS:,.1f} ms"
