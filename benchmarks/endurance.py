"""``python -m benchmarks.endurance``: long at a steady rate, and over very many connections.

Both are loads of empty rpc requests against our guest's server, in two parts:

- `steady`: `--minutes` at `--rate`, over 64 connections;
- `wide`: one minute at the same rate, over `--connections` at once.

A part passes when every request that was due has its correct reply, the server counted as many
requests and connections as the engine made, and neither process grew by more than 8 MiB. The exit
code is 1 when one does not. It is no part of `make bench`: it asks whether things hold, not how
fast they are.
"""

from __future__ import annotations

import argparse
import resource
import socket
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import engine, page
from benchmarks.__main__ import write
from benchmarks.rows import Row
from benchmarks.series import rate_text
from benchmarks.servers import HOST
from benchmarks.settings import Settings, processors
from benchmarks.watched import ENGINE, Watched, watch
from seatrial import proc
from seatrial.errors import EnvironmentTrouble, SeatrialError
from seatrial.guest.binary import guest_binary
from seatrial.guest.channel import GuestChannel
from seatrial.units import MIB, NS_PER_MIN, NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.guest.stats import ServerStats

GROWTH_BYTES_MAX = 8 * MIB
STEADY_CONNECTIONS = 64
WIDE_NS = 60 * NS_PER_S
DEPTH = 64
SERVER = "server"
#: One reading of memory each second, and more often in runs too short for that.
READINGS_MIN = 60
#: Beside one descriptor for each connection.
OTHER_FILES = 64
DRAIN_NS = 10 * NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One of the two loads."""

    name: str
    rate_rps: float
    connections: int
    length_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that must hold: what was seen, what was expected."""

    name: str
    seen: str
    expected: str
    holds: bool


def main() -> int:
    """Runs the chosen parts and prints what held; returns 1 when something did not."""
    args = parsed()
    raise_files_limit(args.connections + OTHER_FILES)
    parts = [
        Part(
            name="steady",
            rate_rps=args.rate,
            connections=STEADY_CONNECTIONS,
            length_ns=int(args.minutes * NS_PER_MIN),
        ),
        Part(
            name="wide",
            rate_rps=args.rate,
            connections=args.connections,
            length_ns=min(WIDE_NS, int(args.minutes * NS_PER_MIN)),
        ),
    ]
    rows: list[Row] = []
    has_failed = False
    server_cpu, client_cpu = processors()
    with tempfile.TemporaryDirectory(prefix="seatrial-endurance-") as folder:
        settings = Settings(build=Path(folder), server_cpu=server_cpu, client_cpu=client_cpu)
        for part in parts:
            if args.part in (None, part.name):
                checks = run(settings, part)
                rows += [row(part, check) for check in checks]
                has_failed |= not all(check.holds for check in checks)
    text = page.family_text(rows, how="Of each process the resident memory.", versions={})
    print(text)
    if args.write:
        write({page.ENDURANCE: text})
    return 1 if has_failed else 0


def parsed() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.endurance", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--minutes", type=float, default=30.0, help="of the steady part (30)")
    parser.add_argument("--rate", type=float, default=50_000.0, help="requests a second (50000)")
    parser.add_argument("--connections", type=int, default=10_000, help="of the wide part (10000)")
    parser.add_argument("--part", choices=("steady", "wide"), help="only this part")
    parser.add_argument("--write", action="store_true", help="write the table to RESULTS.md")
    args = parser.parse_args()
    for name, value in (("minutes", args.minutes), ("rate", args.rate)):
        if value <= 0:
            parser.error(f"--{name} {value}: expected more than 0")
    if args.connections < 1:
        parser.error(f"--connections {args.connections}: expected at least 1")
    return args


def run(settings: Settings, part: Part) -> list[Check]:
    """Returns what held in one part; trouble that ends it is a check that does not hold."""
    try:
        with counting_server(settings) as (channel, url, pid):
            values = engine.request(
                settings,
                url,
                protocol="rpc",
                operation="empty",
                payload_bytes=0,
                arrival="poisson",
                rate_rps=part.rate_rps,
                connections=part.connections,
                depth=DEPTH,
                wait="hybrid",
                measure_ns=part.length_ns,
                drain_ns=DRAIN_NS,
                request_timeout_ns=DRAIN_NS,
                requests_max=int(2 * part.rate_rps * (part.length_ns / NS_PER_S + 10)),
            )
            pause = min(1.0, part.length_ns / NS_PER_S / READINGS_MIN)
            watched = watch(settings, values, pause=pause, others={SERVER: pid})
            return checked(part, watched, channel.stats())
    except SeatrialError as error:
        return [Check(name="the run", seen=str(error), expected="to end well", holds=False)]


def checked(part: Part, watched: Watched, stats: ServerStats) -> list[Check]:
    """Returns every check of a run that ended."""
    figures = watched.figures
    due, sent, ok = (int(figures[f"{name}_count"]) for name in ("intended", "sent", "ok"))
    expected = part.rate_rps * part.length_ns / NS_PER_S
    counts = [
        ("correct replies, of what was due", ok, due),
        ("requests that the server counted, of what was sent", stats.requests, sent),
        ("replies that the server counted, of correct ones", stats.replies, ok),
        ("bad requests", stats.bad_requests, 0),
        ("connections that the server took", stats.accepted_connections, part.connections),
    ]
    checks = [
        Check(name=name, seen=f"{seen:,}", expected=f"{wanted:,}", holds=seen == wanted)
        for name, seen, wanted in counts
    ]
    # Five standard deviations of a Poisson count, whose variance is its mean.
    holds = abs(figures["rate_rps"] * part.length_ns / NS_PER_S - expected) < 5 * expected**0.5
    checks.append(
        Check(
            name="rate",
            seen=rate_text(figures["rate_rps"]),
            expected=rate_text(part.rate_rps),
            holds=holds,
        )
    )
    return checks + [growth(watched, name) for name in (ENGINE, SERVER)]


def growth(watched: Watched, name: str) -> Check:
    """Returns whether the memory of a process stayed as it was."""
    grown = watched.growth_bytes(name)
    last = watched.readings[name][-1]
    return Check(
        name=f"growth of the {name}'s memory",
        seen=f"{grown / MIB:+.2f} MiB, to {last / MIB:.1f} MiB",
        expected=f"<= {GROWTH_BYTES_MAX / MIB:g} MiB",
        holds=grown <= GROWTH_BYTES_MAX,
    )


def row(part: Part, check: Check) -> Row:
    """Returns a check as a line of the results."""
    length = part.length_ns / NS_PER_S
    name = (
        f"{part.name}: {part.rate_rps:,.0f}/s for {length:,.0f} s, {part.connections:,} connections"
    )
    return Row(
        id="",
        name=f"{name}: {check.name}",
        ours=check.seen,
        target=check.expected,
        verdict="holds" if check.holds else "does not hold",
    )


@contextmanager
def counting_server(settings: Settings) -> Iterator[tuple[GuestChannel, str, int]]:
    """Our guest's rpc server with its control channel: the channel, its address and its process."""
    host, inside = socket.socketpair()
    with inside:
        argv = [str(guest_binary()), "--channel-fd", str(inside.fileno()), "serve"]
        argv += ["--protocol", "rpc", "--listen", f"tcp:{HOST}:0"]
        child = proc.spawn(settings.for_server(argv), pass_fds=[inside.fileno()])
    with child, GuestChannel(host) as channel:
        channel.hello()
        (endpoint,) = channel.ready().endpoints
        yield channel, f"tcp://{endpoint.removeprefix('tcp:')}", child.pid
        channel.stop()


def raise_files_limit(count: int) -> None:
    """Lets this process and its children open so many files.

    Raises:
        EnvironmentTrouble: the machine's hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft >= count:
        return
    if hard != resource.RLIM_INFINITY and hard < count:
        raise EnvironmentTrouble(f"at most {hard} files may be open here, expected {count}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


if __name__ == "__main__":
    sys.exit(main())
