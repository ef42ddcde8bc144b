"""T1 to T4: the closed loop over TCP echo, against the least that a C client can do."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks import engine, yardstick
from benchmarks.peers import sockperf
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest, rate_text
from benchmarks.servers import echo_server, sockperf_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.series import Figures
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

CONNECTIONS = (16, 64)


def rows(settings: Settings) -> list[Row]:
    """Returns the rows of all four targets."""
    quiet = Quiet(settings)
    with echo_server(settings) as server:
        quiet.add_helpers([server.pid])
        return [
            *one_connection(settings, server, quiet),
            *many_connections(settings, server, quiet),
            *pipelined(settings, server, quiet),
        ]


def one_connection(settings: Settings, server: Address, quiet: Quiet) -> list[Row]:
    """T1 and T2: one request at a time, both ways of waiting."""
    done = contest(
        {
            "ours, blocking": ours(settings, server, wait="block"),
            "ours, spinning": ours(settings, server, wait="spin"),
            "C, blocking": theirs(settings, server, wait="block"),
            "C, spinning": theirs(settings, server, wait="spin"),
            "sockperf ping-pong": lambda: ping_pong(settings),
        },
        rounds=settings.rounds,
        quiet=quiet,
    )
    table = [
        ("T1", "blocking wait", "ours, blocking", "C, blocking", Target(must=0.97, stretch=1)),
        ("T2", "spinning wait", "ours, spinning", "C, spinning", Target(must=0.95, stretch=1)),
        ("T2", "spinning wait", "ours, spinning", "C, blocking", Target(must=1.3, stretch=1.45)),
        ("", "blocking wait, its own server", "ours, blocking", "sockperf ping-pong", None),
    ]
    return [
        done.ratio(
            Row(id=number, name=f"echo 64 B, 1 connection, {name}"),
            "rate_rps",
            ours=one,
            theirs=two,
            shown=rate_text,
            target=target,
        )
        for number, name, one, two, target in table
    ]


def ping_pong(settings: Settings) -> Figures:
    """Returns sockperf's figures; it speaks only to its own server, which lives for this run."""
    with sockperf_server(settings) as server:
        return sockperf.ping_pong(settings, server, seconds=settings.seconds)


def many_connections(settings: Settings, server: Address, quiet: Quiet) -> list[Row]:
    """T3: many connections, the content of every reply checked by our side only."""
    found = []
    for connections in CONNECTIONS:
        done = contest(
            {
                "ours": ours(settings, server, connections=connections),
                "C": theirs(settings, server, connections=connections),
            },
            rounds=settings.rounds,
            quiet=quiet,
        )
        found.append(
            done.ratio(
                Row(id="T3", name=f"echo 64 B, {connections} connections, replies verified"),
                "rate_rps",
                ours="ours",
                theirs="C",
                shown=rate_text,
                target=Target(must=0.95, stretch=1),
            )
        )
    return found


def pipelined(settings: Settings, server: Address, quiet: Quiet) -> list[Row]:
    """T4: 16 requests in flight on each of 16 connections."""
    done = contest(
        {
            "ours": ours(settings, server, connections=16, depth=16, options={"verify": "false"}),
            "ours, verified": ours(settings, server, connections=16, depth=16),
            "C": theirs(settings, server, connections=16, depth=16),
        },
        rounds=settings.rounds,
        quiet=quiet,
    )
    return [
        done.ratio(
            Row(id="T4", name=f"echo 64 B, 16 connections x 16 deep{what}"),
            "rate_rps",
            ours=one,
            theirs="C",
            shown=rate_text,
            target=target,
        )
        for one, what, target in (
            ("ours", "", Target(must=0.95, stretch=1)),
            ("ours, verified", ", replies verified", Target(must=0.8, stretch=0.92)),
        )
    ]


def ours(settings: Settings, server: Address, **changes: object) -> Callable[[], Figures]:
    """Returns our engine as a contender; it verifies every echo unless it is told not to."""
    return lambda: engine.load(settings, server.tcp, **changes)


def theirs(
    settings: Settings,
    server: Address,
    *,
    connections: int = 1,
    depth: int = 1,
    wait: str = "block",
) -> Callable[[], Figures]:
    """Returns the C client as a contender."""
    return lambda: yardstick.closed_loop(
        settings, server, connections=connections, depth=depth, wait=wait
    )
