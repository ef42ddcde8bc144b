"""``seatrial serve``: the synthetic server, which is the guest on this host, in the foreground."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import select
import signal
import socket
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.errors import SeatrialError
    from seatrial.guest.channel import GuestChannel
    from seatrial.guest.stats import ServerStats
    from seatrial.loadgen import Histogram

PROTOCOLS: Final = ("echo", "rpc", "http", "grpc")
DEFAULT_LISTEN: Final = "tcp:127.0.0.1:7000"
QUANTILES: Final = (0.5, 0.9, 0.95, 0.99, 0.999)
#: A quantile is printed when all of a sample lie below it with at most this probability.
UNSUPPORTED_PROBABILITY: Final = 0.025
#: For the guest to begin and to listen.
START_TIMEOUT_NS: Final = 10_000_000_000
#: Of a protocol without messages, for what would be a number of them.
NOT_COUNTED: Final = "not counted (byte stream)"

EPILOG: Final = """\
protocols:
  echo   bytes go back as they came; over UDP, one datagram is one request; over TCP and unix
         sockets there are no messages to count, only bytes and connections
  rpc    Seatrial's own binary format: empty, checksum (fresh payload and its XXH64 in each
         reply), spin (CPU time), spin_wall, sleep, touch (memory); also over UDP
  http   HTTP/1.1, keep-alive and pipelining; GET, HEAD or POST of / /ok /bytes/N /echo
         /spin/100us /spin_wall/100us /sleep/1ms /touch/N /status/503 /chunked/N /close
  grpc   unary calls over plain HTTP/2: our own method seatrial.v1.Load/Call, and echoes for others

examples:
  seatrial serve                                    rpc on tcp:127.0.0.1:7000
  seatrial serve http --listen tcp:0.0.0.0:8080 --workers 4
  seatrial serve rpc --listen udp:127.0.0.1:0 --drop-ratio 0.01
  seatrial serve echo --listen unix:/tmp/echo --listen tcp:[::1]:7000 --json

It serves until Ctrl-C or SIGTERM, then prints what it counted. Service time is from the begin of a
request's service to its reply, queue time from the read of its last byte to that begin: the wait
behind other requests of the same read. It is 0 for requests that are read one by one, even if they
waited in the kernel's buffer while the worker was busy: no clock of the server sees that wait. A
client's service time less the server's has it, and the way there and back.

exit codes: 0 ended as asked, 2 wrong options, 3 the server could not start or ended by itself
"""


@dataclasses.dataclass(frozen=True, slots=True)
class _Scope:
    """Which of a server's endpoints have messages that it can count."""

    uncounted: tuple[str, ...]
    has_messages: bool

    @classmethod
    def of(cls, protocol: str, endpoints: tuple[str, ...]) -> _Scope:
        """An echo does not see where a message ends in a stream; a datagram is one."""
        is_blind = protocol == "echo"
        streams = tuple(one for one in endpoints if is_blind and not one.startswith("udp:"))
        return cls(uncounted=streams, has_messages=len(streams) < len(endpoints))

    @property
    def note(self) -> str:
        """What a count leaves out."""
        return ", datagrams only" if self.uncounted else ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument(
        "protocol",
        metavar="PROTOCOL",
        nargs="?",
        choices=PROTOCOLS,
        default="rpc",
        help=f"{', '.join(PROTOCOLS)} (default: rpc)",
    )
    parser.add_argument(
        "--listen",
        metavar="ADDRESS",
        action="append",
        help="tcp:IP:PORT, udp:IP:PORT or unix:/PATH, up to four times; port 0: any that is free "
        f"(default: {DEFAULT_LISTEN})",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        default="1",
        help="threads that serve, 1 to 64; each serves one request after another (default: 1)",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        default="1",
        help="what checksum payloads and losses are made from (default: 1)",
    )
    parser.add_argument(
        "--drop-ratio",
        metavar="R",
        help="share of datagrams to lose on purpose, 0 to 1 (default: 0; only with udp)",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print endpoints and counts as JSON, one object a line",
    )


def execute(args: argparse.Namespace) -> int:
    """Serves until it is told to end; returns 0."""
    from seatrial.errors import DriverError

    try:
        with _guest(_role(args)) as (channel, end):
            channel.hello(timeout_ns=START_TIMEOUT_NS)
            endpoints = channel.ready(timeout_ns=START_TIMEOUT_NS).endpoints
            with contextlib.suppress(KeyboardInterrupt):
                _announce(endpoints, is_json=args.json)
                select.select([end], [], [])  # readable before its time: it has ended or complains
            stats = channel.stats()
            channel.stop()
    except DriverError as error:
        _fail(error)
    _report(stats, _Scope.of(stats.protocol, endpoints), is_json=args.json)
    return 0


def _role(args: argparse.Namespace) -> list[str]:
    options = ["--protocol", args.protocol, "--workers", args.workers, "--seed", args.seed]
    for address in args.listen or [DEFAULT_LISTEN]:
        options += ["--listen", address]
    if args.drop_ratio is not None:
        options += ["--drop-ratio", args.drop_ratio]
    return ["serve", *options]


@contextlib.contextmanager
def _guest(role: list[str]) -> Iterator[tuple[GuestChannel, socket.socket]]:
    """A guest in a role; SIGTERM is as good as Ctrl-C meanwhile."""
    from seatrial import proc
    from seatrial.guest.binary import guest_binary
    from seatrial.guest.channel import GuestChannel

    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        host, inside = socket.socketpair()
        number = inside.fileno()
        argv = [str(guest_binary()), "--channel-fd", str(number), *role]
        with (
            GuestChannel(host, name="the server") as channel,
            inside,
            proc.spawn(argv, pass_fds=(number,), stderr="null"),
        ):
            inside.close()
            yield channel, host
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _fail(error: SeatrialError) -> NoReturn:
    """Tells a mistake of the user from trouble of the machine."""
    from seatrial.errors import ConfigError, EnvironmentTrouble

    if error.code == "guest-usage":
        _, _, what = error.message.rpartition("serve: ")
        raise ConfigError(what, hint="see 'seatrial serve --help'") from error
    if error.code == "guest-listen-failed":
        _, _, what = error.message.rpartition("cannot listen")
        hint = "another program may have it: choose another port (0: any) or path"
        raise EnvironmentTrouble(f"cannot listen{what}", hint=hint) from error
    raise error


def _announce(endpoints: tuple[str, ...], *, is_json: bool) -> None:
    from seatrial.cli import output

    if is_json:
        output.data_line({"endpoints": list(endpoints)})
    for endpoint in () if is_json else endpoints:
        output.data(endpoint)
    output.flush()
    output.talk("serving until Ctrl-C")


def _report(stats: ServerStats, scope: _Scope, *, is_json: bool) -> None:
    from seatrial.cli import output
    from seatrial.units import format_bytes

    if is_json:
        output.data_line(_record(stats, scope))
        return
    connections = (
        f"{stats.accepted_connections} accepted, {stats.closed_connections} closed, "
        f"{stats.refused_connections} refused"
    )
    rows = [
        *_messages(stats, scope),
        ("connections", connections),
        ("bytes", f"{format_bytes(stats.received_bytes)} in, {format_bytes(stats.sent_bytes)} out"),
    ]
    if stats.dropped_datagrams:
        rows.append(("datagrams lost on purpose", str(stats.dropped_datagrams)))
    rows += [
        ("service time", _time(stats.service_histogram, scope)),
        ("queue time", _time(stats.queue_histogram, scope)),
    ]
    output.table(("what", "count"), rows)


def _messages(stats: ServerStats, scope: _Scope) -> list[tuple[str, str]]:
    """What was counted of messages, where a byte stream has any."""
    operations = ", ".join(f"{name} {count}" for name, count in stats.operations.items() if count)
    counts = {
        "requests": f"{stats.requests} ({operations or 'none'})",
        "replies": str(stats.replies),
        "bad requests": str(stats.bad_requests),
        "not found": str(stats.unknown_requests),
    }
    if not scope.has_messages:
        return [(name, NOT_COUNTED) for name in ("requests", "replies")]
    return [(name, f"{count}{scope.note}") for name, count in counts.items()]


def _time(histogram: Histogram, scope: _Scope) -> str:
    from seatrial.units import format_duration

    if not scope.has_messages:
        return NOT_COUNTED
    parts = [f"{key} {format_duration(value)}" for key, value in _quantiles(histogram).items()]
    text = ", ".join(parts) or "no request"
    if parts and histogram.max_ns == 0:
        text = "none: no request was read together with others"
    return f"{text}{scope.note}"


def _record(stats: ServerStats, scope: _Scope) -> dict[str, object]:
    of_messages: dict[str, object] = {
        "requests": stats.requests,
        "replies": stats.replies,
        "bad_requests": stats.bad_requests,
        "unknown_requests": stats.unknown_requests,
        "operations": dict(stats.operations),
        "worker_requests": list(stats.worker_requests),
        "service_time_ns": _quantiles(stats.service_histogram),
        "queue_time_ns": _quantiles(stats.queue_histogram),
    }
    if not scope.has_messages:
        of_messages = dict.fromkeys(of_messages)
    return {
        "protocol": stats.protocol,
        "uncounted_endpoints": list(scope.uncounted),
        **of_messages,
        "dropped_datagrams": stats.dropped_datagrams,
        "accepted_connections": stats.accepted_connections,
        "closed_connections": stats.closed_connections,
        "refused_connections": stats.refused_connections,
        "received_bytes": stats.received_bytes,
        "sent_bytes": stats.sent_bytes,
    }


def _quantiles(histogram: Histogram) -> dict[str, int]:
    """The quantiles that the sample supports (p99 needs 368 requests), and the maximum."""
    count = histogram.count
    supported = [q for q in QUANTILES if q**count <= UNSUPPORTED_PROBABILITY]
    values = {f"p{100 * q:g}": histogram.quantile(q) for q in supported} | {"max": histogram.max_ns}
    return {name: value for name, value in values.items() if value is not None}
