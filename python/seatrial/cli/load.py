"""``seatrial load``: load on any service, judged, with exit codes for CI."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.cli.load_check import check_options
from seatrial.cli.load_files import check_files, given_files, write_files
from seatrial.cli.load_help import DESCRIPTION, EPILOG
from seatrial.cli.load_options import ShowOptions
from seatrial.cli.load_stop import StopSignals
from seatrial.cli.load_trouble import failed, refused
from seatrial.errors import ConfigError, ExitCode, TrialFailed
from seatrial.model.finding import Severity
from seatrial.units import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

    from seatrial.loadtest.result import LoadTestResult
    from seatrial.loadtest.settings import LoadTestSettings

#: What the server of `seatrial serve` does.
OPERATIONS: Final = ("empty", "checksum", "spin", "spin_wall", "sleep", "touch")
#: Unless the command line says otherwise.
WARM_UP_NS: Final = 1_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description, parser.epilog = DESCRIPTION, EPILOG
    parser.add_argument("urls", nargs="+", metavar="URL", help="the service (forms: see below)")
    _add_load(parser.add_argument_group("load"))
    _add_request(parser.add_argument_group("requests"))
    _add_proof(parser.add_argument_group("how sure, and what has to hold"))
    _add_engine(parser.add_argument_group("how it is offered"))
    _add_output(parser.add_argument_group("output"))


def _add_load(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--rate",
        type=_rate,
        metavar="N/s",
        help="open loop at this mean rate, of all connections together",
    )
    group.add_argument(
        "--arrival", metavar="LAW", help="open loop: law of the gaps (default: poisson)"
    )
    group.add_argument(
        "--pattern",
        type=_pattern,
        default="fixed",
        metavar="PATTERN",
        help="the rate over time (default: fixed)",
    )
    group.add_argument(
        "--think", default="none", metavar="LAW", help="closed loop: pause before the next request"
    )
    group.add_argument(
        "--duration", type=_duration, default="10s", metavar="TIME", help="measured (default: 10s)"
    )
    group.add_argument("--count", type=_count, metavar="N", help="end after this many requests")
    group.add_argument(
        "--warm-up",
        type=_duration,
        metavar="TIME",
        help="not counted (default: 1s; with --count: 0s, as its requests are part of N)",
    )
    group.add_argument(
        "--cool-down",
        type=_duration,
        default="0s",
        metavar="TIME",
        help="offered after the measured time, not counted (default: 0s)",
    )
    group.add_argument(
        "-c", "--connections", type=_count, default=16, metavar="N", help="in all (default: 16)"
    )
    group.add_argument(
        "--depth",
        type=_count,
        default=1,
        metavar="N",
        help="requests at once a connection (default: 1)",
    )
    group.add_argument(
        "--outstanding", type=_count, metavar="N", help="most requests at once on all connections"
    )
    group.add_argument(
        "--timeout", type=_duration, default="1s", metavar="TIME", help="of a request (default: 1s)"
    )
    group.add_argument(
        "--seed", type=_seed, default=0, metavar="N", help="decides the schedule (default: 0)"
    )


def _add_request(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        type=_pair,
        metavar="NAME=VALUE",
        help="setting of the protocol, such as read_ratio=1 (only reads) of redis and memcached",
    )
    group.add_argument(
        "--help-options",
        action=ShowOptions,
        nargs=0,
        help="explain every NAME of --option, and end",
    )
    group.add_argument("-X", "--method", metavar="NAME", help="http: GET, POST, ...")
    group.add_argument(
        "-H",
        "--header",
        action="append",
        default=[],
        type=_header,
        metavar="'NAME: VALUE'",
        help="http, grpc",
    )
    group.add_argument("-d", "--body", metavar="TEXT", help="http: body of each request")
    group.add_argument(
        "--cacert", metavar="FILE", help="TLS: certificates to trust (PEM; see below)"
    )
    group.add_argument("--insecure", action="store_true", help="TLS: do not verify (it is said)")
    group.add_argument(
        "--payload", type=_size, default="0B", metavar="SIZE", help="rpc, grpc, echo (64B there)"
    )
    group.add_argument(
        "--operation",
        default="empty",
        choices=OPERATIONS,
        metavar="NAME",
        help="rpc, grpc of `seatrial serve`: empty, checksum, spin, spin_wall, sleep, touch",
    )
    group.add_argument(
        "--demand", default="none", metavar="LAW", help="its work: constant:100us, exponential:1ms"
    )
    group.add_argument(
        "--no-verify",
        action="store_true",
        help="echo, redis, memcached: do not compare replies with what they should be",
    )


def _add_proof(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--ci",
        action="append",
        default=[],
        metavar="p99=2%",
        help="go on until the 95 %% interval is at most so wide (share, or time: p99=10us)",
    )
    group.add_argument(
        "--budget", type=_duration, metavar="TIME", help="most time for --ci (default: 5min)"
    )
    group.add_argument(
        "--slo",
        action="append",
        default=[],
        metavar="'p99<5ms'",
        help="has to hold, or exit code 1; also 'failed<0.1%%'; may be given several times",
    )
    group.add_argument(
        "--find-capacity",
        action="store_true",
        help="search the highest rate at which --slo holds, from --rate on (default: 100/s)",
    )
    group.add_argument(
        "--strict", action="store_true", help="exit code 1 for every verdict that is not ok"
    )


def _add_engine(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--threads", type=_count, default=1, metavar="N", help="of the generator (default: 1)"
    )
    group.add_argument(
        "--wait",
        choices=("spin", "hybrid", "block"),
        help="for the next instant: spin costs a core, block is late by some 50us, hybrid sleeps, "
        "then spins (default: hybrid if a core is free, else block; closed loop: block)",
    )
    group.add_argument("--cpus", type=_cpus, default=(), metavar="1,2", help="pin threads to these")
    group.add_argument(
        "--timestamps",
        choices=("user", "kernel", "hardware"),
        default="user",
        help="kernel and hardware stamps tell the wire's share (default: user)",
    )
    group.add_argument(
        "--agents", type=_count, default=0, metavar="N", help="share the load over N processes"
    )
    group.add_argument(
        "--latency-agents",
        type=_count,
        default=0,
        metavar="N",
        help="and measure latency by N more, with a light load of their own",
    )
    group.add_argument("--latency-rate", type=_rate, metavar="N/s", help="of those (default: 1k/s)")


def _add_output(group: argparse._ArgumentGroup) -> None:
    form = group.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print the whole result as JSON")
    form.add_argument(
        "--lancet", action="store_true", help="print Lancet's columns (#ReqCount QPS RxBw TxBw)"
    )
    group.add_argument("--quiet", action="store_true", help="no live table while it runs")
    group.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="keep everything in a new directory, with a page (seatrial report DIR reads it)",
    )
    group.add_argument("--hdr", type=Path, metavar="FILE", help="write an HDR histogram log 1.3")
    group.add_argument("--k6", type=Path, metavar="FILE", help="write points as k6 does (NDJSON)")
    group.add_argument("--parquet", type=Path, metavar="FILE", help="write the kept requests")


def settings_of(args: argparse.Namespace) -> LoadTestSettings:
    """Returns what the command line asks for.

    Raises:
        ConfigError: a URL, an option or a combination cannot be meant.
    """
    from seatrial.loadtest.settings import ARRIVAL, BUDGET_NS, LATENCY_RATE_RPS, LoadTestSettings
    from seatrial.loadtest.target import parse_target

    target = parse_target(args.urls)
    check_options(args, target)
    payload_bytes = args.payload or (64 if target.protocol == "echo" else 0)
    settings = LoadTestSettings(
        target=target,
        rate_rps=args.rate if args.rate or not args.find_capacity else 100.0,
        arrival=args.arrival or ARRIVAL,
        pattern=args.pattern,
        think=args.think,
        duration_ns=args.duration,
        requests_max=args.count,
        warm_up_ns=_warm_up_ns(args),
        cool_down_ns=args.cool_down,
        drain_ns=args.timeout,
        request_timeout_ns=args.timeout,
        connections=args.connections,
        depth=args.depth,
        outstanding_max=args.outstanding,
        threads=args.threads,
        wait=args.wait,
        cpus=args.cpus,
        timestamps=args.timestamps,
        operation=args.operation,
        payload_bytes=payload_bytes,
        demand=args.demand,
        options=_protocol_options(args),
        seed=args.seed,
        agents_count=args.agents,
        latency_agents_count=args.latency_agents,
        latency_rate_rps=LATENCY_RATE_RPS if args.latency_rate is None else args.latency_rate,
        precision=tuple(args.ci),
        budget_ns=BUDGET_NS if args.budget is None else args.budget,
        objectives=tuple(args.slo),
        finds_capacity=args.find_capacity,
        is_strict=args.strict,
    )
    settings.check()
    if args.arrival is not None and not settings.is_open:
        # The settings cannot tell a law that was asked for from the default one.
        raise ConfigError(
            f"--arrival {args.arrival} needs --rate: it is the law of an open loop",
            hint="add --rate N/s; a closed loop has pauses instead, by --think LAW",
        )
    return settings


def _warm_up_ns(args: argparse.Namespace) -> int:
    """As asked for; by default none that could eat up a stated number of requests."""
    if args.warm_up is None:
        return WARM_UP_NS if args.count is None else 0
    return int(args.warm_up)


def _protocol_options(args: argparse.Namespace) -> dict[str, str]:
    """The conveniences as the protocol's own options, then what --option says."""
    options: dict[str, str] = {}
    if args.method:
        options["method"] = args.method
    if args.body is not None:
        options["body"] = args.body
    if args.header:
        options["header"] = "\n".join(args.header)
    if args.cacert:
        options["tls_ca"] = args.cacert
    if args.insecure:
        options["tls_insecure"] = "true"
    if args.no_verify:
        options["verify"] = "false"
    return options | dict(args.option)


def execute(args: argparse.Namespace) -> int:
    """Offers the load, prints what came of it, and returns the exit code."""
    settings = settings_of(args)
    check_files(args)
    act = _find_capacity if settings.finds_capacity else _run
    try:
        with StopSignals() as signals:
            return act(args, settings, signals)
    except ConfigError as error:
        raise refused(error) from error
    except TrialFailed as error:
        raise failed(error, settings.target) from error


def _run(args: argparse.Namespace, settings: LoadTestSettings, signals: StopSignals) -> int:
    from seatrial.cli import output
    from seatrial.loadtest.perform import perform
    from seatrial.report.load_live import LiveTable

    with LiveTable(output.stderr_console(), settings, is_quiet=args.quiet) as live:
        performed = perform(settings, view=live, on_offered=signals.hold)
    try:
        _tell(args, performed.result)
    finally:
        # Whoever closed standard output still gets the files.
        write_files(args, settings, performed)
    return exit_code(performed.result, is_strict=settings.is_strict)


def _tell(args: argparse.Namespace, result: LoadTestResult) -> None:
    from seatrial.cli import output
    from seatrial.report.load_text import lancet_lines, render_result

    if args.json:
        output.data_json(result)
    elif args.lancet:
        for line in lancet_lines(result):
            output.data(line)
    else:
        output.render(render_result(result))


def _find_capacity(
    args: argparse.Namespace, settings: LoadTestSettings, signals: StopSignals
) -> int:
    from seatrial.cli import output
    from seatrial.loadtest.capacity import find_capacity
    from seatrial.report.capacity_text import TrialLines, render_capacity
    from seatrial.stats.capacity import CapacityVerdict

    given = [*given_files(args)]
    if given or settings.precision:
        given += ["--ci"] if settings.precision else []
        message = f"--find-capacity makes many loads; {', '.join(given)} belongs to one"
        raise ConfigError(message, hint="load at the rate that was found to get its files")
    view = None if args.quiet else TrialLines(output.talk)
    result = find_capacity(settings, view=view)
    signals.hold()
    if args.json:
        output.data_json(result)
    else:
        output.render(render_capacity(result))
    if result.capacity.verdict is CapacityVerdict.INTERRUPTED:
        return ExitCode.INTERRUPTED
    is_found = result.capacity.verdict is CapacityVerdict.FOUND
    is_doubtful = settings.is_strict and bool(result.doubts)
    return ExitCode.OK if is_found and not is_doubtful else ExitCode.FINDING


def exit_code(result: LoadTestResult, *, is_strict: bool) -> int:
    """Returns what the process ends with; objectives and errors count, warnings if strict."""
    if result.was_interrupted:
        return ExitCode.INTERRUPTED
    if any(objective.holds is not True for objective in result.objectives):
        return ExitCode.FINDING
    if any(finding.severity is Severity.ERROR for finding in result.verdicts):
        return ExitCode.FINDING
    is_doubtful = any(finding.severity is not Severity.INFO for finding in result.verdicts)
    return ExitCode.FINDING if is_strict and is_doubtful else ExitCode.OK


def _by(parse: Callable[[str], object]) -> Callable[[str], object]:
    from seatrial.errors import UnitError

    def read(text: str) -> object:
        try:
            return parse(text)
        except UnitError as error:
            raise argparse.ArgumentTypeError(error.message) from error

    return read


def _duration(text: str) -> object:
    from seatrial.units import parse_duration_ns

    return _by(parse_duration_ns)(text)


def _rate(text: str) -> object:
    from seatrial.units import parse_rate_rps

    return _by(parse_rate_rps)(text)


def _pattern(text: str) -> str:
    """The engine's form of a pattern: it wants rates as plain numbers per second."""
    from seatrial.units import parse_rate_rps

    name, colon, rest = text.partition(":")
    fields = []
    for field in rest.split(","):
        key, equals, value = field.partition("=")
        told = f"{_by(parse_rate_rps)(value)}" if "/" in value else value
        fields.append(f"{key}{equals}{told}")
    return f"{name}{colon}{','.join(fields)}"


def _size(text: str) -> object:
    from seatrial.units import parse_size_bytes

    return _by(parse_size_bytes)(text)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        message = f"got {text!r}; expected a whole number from 1"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _seed(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > INT64_MAX:
        message = f"got {text!r}; expected a whole number from 0 to {INT64_MAX}"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _cpus(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() for word in words):
        message = f"got {text!r}; expected numbers of processors such as 1 or 2,3"
        raise argparse.ArgumentTypeError(message)
    return tuple(int(word) for word in words)


def _header(text: str) -> str:
    """One field: the engine divides several at the ends of lines."""
    if any(letter in text for letter in "\r\n\0"):
        message = f"got {text!r}; expected one field without ends of lines (repeat -H for more)"
        raise argparse.ArgumentTypeError(message)
    return text


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        message = f"got {text!r}; expected NAME=VALUE"
        raise argparse.ArgumentTypeError(message)
    return name, value
