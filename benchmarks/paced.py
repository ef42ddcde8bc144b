"""T10 and T11: the open loop over HTTP/1.1 at 1 k/s and 10 k/s, beside the paced peers.

The peer that the two targets name, wrk2, is in no registry that the set-up may use. Its numbers
below were measured on another machine of two processors with the same server and the same numbers
of connections; where a row names them it is not a comparison of the same minutes, and says so.
What is measured here is how the peers that can be had see the same server at the same rate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import engine
from benchmarks.peers import fortio, oha, vegeta
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest, micros_text
from benchmarks.servers import nginx
from seatrial.units import NS_PER_US

if TYPE_CHECKING:
    from benchmarks.series import Contest
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

CONNECTIONS = 16
RATES = (1_000, 10_000)
OURS = "ours"
PEERS = {"oha": oha.paced, "vegeta": vegeta.paced, "fortio": fortio.paced}
#: wrk2 -t1 -c16: corrected - uncorrected response time, its own lateness (us), at each rate.
WRK2_LATE_P50 = {1_000: 725.0, 10_000: 708.0}
WRK2_LATE_P99 = {1_000: 1559.0, 10_000: 1300.0}
#: wrk2's corrected median at 1 k/s (us).
WRK2_RESPONSE_P50 = 764.0


def rows(settings: Settings) -> list[Row]:
    """Returns the rows of both targets at both rates."""
    quiet = Quiet(settings)
    found = []
    with nginx(settings) as server:
        quiet.add_helpers([server.pid])
        for rate_rps in RATES:
            done = measured(settings, server, quiet, rate_rps)
            found += against_wrk2(done, rate_rps)
            found += [against_peer(done, rate_rps, peer) for peer in PEERS]
    return found


def measured(settings: Settings, server: Address, quiet: Quiet, rate_rps: int) -> Contest:
    """Returns all sides at one rate."""
    sides = {
        name: lambda paced=paced: paced(
            settings,
            server.http,
            connections=CONNECTIONS,
            seconds=settings.seconds,
            rate_rps=rate_rps,
        )
        for name, paced in PEERS.items()
    }
    sides[OURS] = lambda: engine.load(
        settings,
        server.tcp,
        protocol="http",
        payload_bytes=0,
        arrival="fixed",
        rate_rps=float(rate_rps),
        connections=CONNECTIONS,
        wait="spin",
    )
    return contest(sides, rounds=settings.rounds, quiet=quiet)


def against_wrk2(done: Contest, rate_rps: int) -> list[Row]:
    """Returns our values against wrk2's of another machine, as bounds that follow from the target.

    A lateness 500 times lower than 725 us is one of at most 1.45 us.
    """
    rate = f"{rate_rps / 1000:g} k/s"
    bounds = [
        ("T10", "late", "p50", WRK2_LATE_P50[rate_rps], 500, 5000),
        ("T10", "late", "p99", WRK2_LATE_P99[rate_rps], 30, None),
    ]
    if rate_rps == RATES[0]:
        bounds.append(("T11", "response", "p50", WRK2_RESPONSE_P50, 10, 20))
    return [
        done.bound(
            Row(
                id=number,
                name=f"HTTP/1.1, fixed {rate}, 16 connections: {figure} {word}; at most 1/{factor} "
                f"of wrk2's {theirs:g} us (cited)",
            ),
            f"{figure}_{word}_ns",
            ours=OURS,
            shown=micros_text,
            scale=NS_PER_US,
            target=Target(
                must=round(theirs / factor, 3),
                stretch=None if best is None else round(theirs / best, 3),
                is_upper=True,
                unit=" us",
            ),
        )
        for number, figure, word, theirs, factor, best in bounds
    ]


def against_peer(done: Contest, rate_rps: int, peer: str) -> Row:
    """Returns how much lower the median that we report is, of the same server and rate."""
    name = f"HTTP/1.1, fixed {rate_rps / 1000:g} k/s, 16 connections: response p50, theirs / ours"
    return done.ratio(
        Row(id="T11" if rate_rps == RATES[0] else "", name=name),
        "response_p50_ns",
        ours=OURS,
        theirs=peer,
        shown=micros_text,
        target=None,
        inverse=True,
    )
