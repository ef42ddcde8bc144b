"""T5 and T6: the closed loop over HTTP/1.1 against one nginx, beside wrk, h2load and hey."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import engine
from benchmarks.peers import h2load, hey, wrk
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest, rate_text
from benchmarks.servers import nginx

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.series import Contest, Figures
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

SPIN, BLOCK = "ours, spinning", "ours, blocking"
#: Connections: how ours waits, then the targets against each peer.
TARGETS = {
    1: (
        SPIN,
        {
            "wrk": ("T5", Target(must=1.25, stretch=1.45)),
            "h2load": ("T6", Target(must=1.3, stretch=1.7)),
            "hey": ("T6", Target(must=2.2, stretch=3)),
        },
    ),
    16: (
        BLOCK,
        {
            "wrk": ("T5", Target(must=1, stretch=1.08)),
            "h2load": ("T6", Target(must=1.2, stretch=1.3)),
            "hey": ("T6", Target(must=3.5, stretch=4.2)),
        },
    ),
    64: (
        BLOCK,
        {
            "wrk": ("T5", Target(must=1, stretch=1.12)),
            "h2load": ("T6", Target(must=1, stretch=1.15)),
            "hey": ("T6", Target(must=3.5, stretch=4)),
        },
    ),
}


def rows(settings: Settings) -> list[Row]:
    """Returns a row for each number of connections and peer."""
    quiet = Quiet(settings)
    found = []
    with nginx(settings) as server:
        quiet.add_helpers([server.pid])
        for connections, (mode, targets) in TARGETS.items():
            done = contest(
                contenders(settings, server, connections),
                rounds=settings.rounds,
                quiet=quiet,
            )
            for peer, (number, target) in targets.items():
                found.append(_row(done, number, connections, (mode, peer), target))
            if mode != BLOCK:
                found.append(_row(done, "", connections, (BLOCK, "wrk"), None))
    return found


def contenders(
    settings: Settings, server: Address, connections: int
) -> dict[str, Callable[[], Figures]]:
    """Returns who runs; spinning only where it is compared."""
    count, seconds = connections, settings.seconds
    waits = {SPIN: "spin", BLOCK: "block"} if count == 1 else {BLOCK: "block"}
    sides: dict[str, Callable[[], Figures]] = {
        name: lambda wait=wait: ours(settings, server, connections=count, wait=wait)
        for name, wait in waits.items()
    }
    sides["wrk"] = lambda: wrk.measure(settings, server.http, connections=count, seconds=seconds)
    sides["h2load"] = lambda: h2load.measure(
        settings, server.http, connections=count, seconds=seconds, is_http1=True
    )
    sides["hey"] = lambda: hey.measure(settings, server.http, connections=count, seconds=seconds)
    return sides


def ours(settings: Settings, server: Address, **changes: object) -> Figures:
    """Returns our engine's figures over HTTP/1.1."""
    return engine.load(settings, server.tcp, **{"protocol": "http", "payload_bytes": 0, **changes})


def _row(
    done: Contest,
    number: str,
    connections: int,
    sides: tuple[str, str],
    target: Target | None,
) -> Row:
    one, two = sides
    plural = "s" if connections > 1 else ""
    return done.ratio(
        Row(id=number, name=f"HTTP/1.1, nginx, {connections} connection{plural}, {one}"),
        "rate_rps",
        ours=one,
        theirs=two,
        shown=rate_text,
        target=target,
    )
