"""T10, seen from the other side: how evenly the requests of a fixed rate arrive at the server.

A client's own word on its lateness is not comparable with another's, so here a server of ours
notes when each request came. At a fixed rate the arrivals should form a comb. Number i of them is
compared with i / rate; the median of these differences is taken as the comb's phase, since nobody
knows when a client meant to begin, and what is reported is the distance from the comb. The network
and the server's own wake-up are in it, for all alike.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks import engine
from benchmarks.paced import CONNECTIONS, OURS, PEERS, RATES
from benchmarks.quiet import Quiet
from benchmarks.rows import Row
from benchmarks.series import contest, micros_text
from benchmarks.servers import arrival_log, read_arrivals
from seatrial.errors import EnvironmentTrouble
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.series import Contest, Figures
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

#: Fewer arrivals than this share of what was asked for is another rate, not a comb.
RATE_RATIO_MIN = 0.9
QUANTILES = {"p50": 0.5, "p99": 0.99}


def rows(settings: Settings) -> list[Row]:
    """Returns a row for each rate, quantile and peer."""
    quiet = Quiet(settings)
    found = []
    with arrival_log(settings) as server:
        quiet.add_helpers([server.pid])
        for rate_rps in RATES:
            done = contest(
                contenders(settings, server, rate_rps), rounds=settings.rounds, quiet=quiet
            )
            found += [row(done, rate_rps, word, peer) for word in QUANTILES for peer in PEERS]
    return found


def row(done: Contest, rate_rps: int, word: str, peer: str) -> Row:
    """Returns how many times further from the comb the peer's requests came than ours."""
    name = (
        f"HTTP/1.1, fixed {rate_rps / 1000:g} k/s, {CONNECTIONS} connections, at the server: "
        f"distance from the comb, {word}, theirs / ours"
    )
    return done.ratio(
        Row(id="T10", name=name),
        f"distance_{word}_ns",
        ours=OURS,
        theirs=peer,
        shown=micros_text,
        target=None,
        inverse=True,
    )


def contenders(
    settings: Settings, server: Address, rate_rps: int
) -> dict[str, Callable[[], Figures]]:
    """Returns our engine and the peers, each with the arrivals of its own run."""

    def ours() -> Figures:
        return engine.load(
            settings,
            server.tcp,
            protocol="http",
            payload_bytes=0,
            arrival="fixed",
            rate_rps=float(rate_rps),
            connections=CONNECTIONS,
            wait="spin",
            warm_up_ns=0,
        )

    def peer(name: str) -> Figures:
        return PEERS[name](
            settings,
            server.http,
            connections=CONNECTIONS,
            seconds=settings.seconds,
            rate_rps=rate_rps,
        )

    def audited(run: Callable[[], Figures]) -> Figures:
        read_arrivals(server)  # of a run before this one that failed
        run()
        return distances(read_arrivals(server), rate_rps=rate_rps, settings=settings)

    sides: dict[str, Callable[[], Figures]] = {
        name: lambda name=name: audited(lambda: peer(name)) for name in PEERS
    }
    return sides | {OURS: lambda: audited(ours)}


def distances(instants: Sequence[int], *, rate_rps: float, settings: Settings) -> Figures:
    """Returns quantiles of the distance from the comb; the warm-up's arrivals are left out.

    Raises:
        EnvironmentTrouble: fewer requests came than the rate asks for, so that a comb of that rate
            would be off by more and more.
    """
    expected = settings.seconds * rate_rps
    if len(instants) < RATE_RATIO_MIN * expected:
        raise EnvironmentTrouble(f"{len(instants)} requests came, expected {expected:.0f}")
    kept = np.sort(np.asarray(instants))[int(settings.warm_up * rate_rps) :]
    ideal = np.arange(kept.size) * (NS_PER_S / rate_rps)
    off = kept - kept[0] - ideal
    distance = np.abs(off - np.median(off))
    return {f"distance_{word}_ns": float(np.quantile(distance, q)) for word, q in QUANTILES.items()}
