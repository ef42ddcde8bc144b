"""T8, T9, T12: how punctual the open loop sends, beside a C program that does only that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import engine, yardstick
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest, micros_text
from benchmarks.servers import echo_server
from seatrial.units import NS_PER_US

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.series import Contest
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

CONNECTIONS = 16
#: On each connection at most; more than any run here has in flight.
DEPTH = 1024
OURS, THEIRS = "ours", "C"


def rows(settings: Settings) -> list[Row]:
    """Returns the rows of the three targets, and the lateness of the wait that blocks."""
    quiet = Quiet(settings)
    with echo_server(settings) as server:
        quiet.add_helpers([server.pid])
        return [
            *spinning(settings, server, quiet),
            *hybrid(settings, server, quiet),
            *blocking(settings, server, quiet),
            *fastest(settings, server, quiet),
        ]


def spinning(settings: Settings, server: Address, quiet: Quiet) -> list[Row]:
    """T8: Poisson, 10 k/s."""
    done = measured(settings, server, quiet, rate_rps=10_000, wait="spin")
    what = "open loop, Poisson 10 k/s, 16 connections, spin: late"
    return lateness(
        done,
        "T8",
        what,
        (("p50", Target(must=0.15, stretch=0.08, **UPPER)),
         ("p99", Target(must=20, stretch=10, **UPPER))),
    )  # fmt: skip


def hybrid(settings: Settings, server: Address, quiet: Quiet) -> list[Row]:
    """T9: the same with a sleep before the spin, which must leave the processor free."""
    found = []
    bounds: dict[float, tuple[tuple[str, Target], ...]] = {
        10_000: (
            ("p50", Target(must=0.2, stretch=0.1, **UPPER)),
            ("p99", Target(must=25, stretch=12, **UPPER)),
        ),
        1_000: (),
    }
    for rate_rps, cpus_max in ((10_000, 0.55), (1_000, 0.1)):
        done = measured(settings, server, quiet, rate_rps=rate_rps, wait="hybrid")
        what = f"open loop, Poisson {rate_rps / 1000:g} k/s, 16 connections, hybrid"
        found += lateness(done, "T9", f"{what}: late", bounds[rate_rps])
        found.append(
            done.bound(
                Row(id="T9", name=f"{what}: processors used"),
                "cpu_ratio",
                ours=OURS,
                reference=THEIRS,
                shown="{:.2f}".format,
                scale=1,
                target=Target(must=cpus_max, is_upper=True),
            )
        )
    return found


def blocking(settings: Settings, server: Address, quiet: Quiet) -> list[Row]:
    """The wait for a machine with no processor to spare; no target, so that users know it."""
    done = measured(settings, server, quiet, rate_rps=10_000, wait="block")
    what = "open loop, Poisson 10 k/s, 16 connections, block: late"
    return lateness(done, "", what, (("p50", None), ("p99", None)))


def fastest(settings: Settings, server: Address, quiet: Quiet) -> list[Row]:
    """T12: the highest rate at which the 99th percentile of the lateness stays below 50 us."""
    found = []
    for rate_rps, word in ((50_000, "must"), (100_000, "stretch")):
        done = measured(settings, server, quiet, rate_rps=rate_rps, wait="spin")
        what = f"open loop, Poisson {rate_rps / 1000:g} k/s, 1 thread, spin ({word}): late"
        found += lateness(done, "T12", what, (("p99", Target(must=50, **UPPER)),))
    return found


UPPER = {"is_upper": True, "unit": " us"}


def measured(
    settings: Settings, server: Address, quiet: Quiet, *, rate_rps: float, wait: str
) -> Contest:
    """Returns both sides at one rate and one way of waiting."""
    return contest(
        {
            OURS: lambda: engine.load(
                settings,
                server.tcp,
                arrival="poisson",
                rate_rps=rate_rps,
                connections=CONNECTIONS,
                depth=DEPTH,
                wait=wait,
            ),
            THEIRS: lambda: yardstick.open_loop(
                settings, server, rate_rps=rate_rps, wait=wait, connections=CONNECTIONS
            ),
        },
        rounds=settings.rounds,
        quiet=quiet,
    )


def lateness(
    done: Contest, number: str, what: str, quantiles: Sequence[tuple[str, Target | None]]
) -> list[Row]:
    """Returns a row for each quantile of sent - intended."""
    return [
        done.bound(
            Row(id=number, name=f"{what} {word}"),
            f"late_{word}_ns",
            ours=OURS,
            reference=THEIRS,
            shown=micros_text,
            scale=NS_PER_US,
            target=target,
        )
        for word, target in quantiles
    ]
