"""What the options of ``seatrial load`` say about each other and about the URL they come with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.errors import ConfigError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from seatrial.loadtest.target import LoadTarget

TLS_SCHEMES: Final = "https://, grpcs://, rediss://, rpc+tls:// or tls://"


def check_options(args: argparse.Namespace, target: LoadTarget) -> None:
    """Refuses options that would do nothing with this URL or beside the others.

    Raises:
        ConfigError: there is such an option; every one is named as it was typed.
    """
    wrong = [*_misplaced(args, target), *_idle(args)]
    if wrong:
        raise ConfigError("; ".join(wrong), hint="`seatrial load --help` explains each option")


def _misplaced(args: argparse.Namespace, target: LoadTarget) -> Iterator[str]:
    """What belongs to another scheme; the engine would tell it by names of its own."""
    protocol = target.protocol
    transport = target.targets[0].partition("://")[0]
    scheme = args.urls[0].partition("://")[0]
    http = ["-X"] * (args.method is not None) + ["-d"] * (args.body is not None)
    if protocol != "http" and http:
        yield (
            f"{', '.join(http)} belongs to http; {scheme}:// takes its settings as "
            "--option NAME=VALUE"
        )
    tls = ["--cacert"] * (args.cacert is not None) + ["--insecure"] * args.insecure
    rows = (
        (tls if transport != "tls" else [], TLS_SCHEMES),
        (["-H"] if args.header and protocol not in {"http", "grpc"} else [], "http or grpc"),
        (
            ["--operation"]
            if args.operation != "empty" and (protocol not in {"rpc", "grpc"})
            else [],
            "rpc:// or grpc:// (a server of `seatrial serve`)",
        ),
        (
            ["--no-verify"]
            if args.no_verify and protocol not in {"echo", "resp", "memcached"}
            else [],
            "tcp://, tls://, unix://, redis:// or memcached://, whose replies are compared",
        ),
    )
    for flags, expected in rows:
        if flags:
            verb = "needs" if len(flags) == 1 else "need"
            yield f"{' and '.join(flags)} {verb} a URL of {expected}; got one of {scheme}://"
    if args.no_verify and transport == "udp":
        yield "--no-verify cannot be meant with udp: datagrams are told apart by what is in them"
    if args.operation != "empty" and protocol == "grpc" and "method" in target.options:
        yield (
            "--operation belongs to the method of `seatrial serve grpc`; leave it out, or the "
            f"method {target.options['method']} of the URL"
        )


def _idle(args: argparse.Namespace) -> Iterator[str]:
    """What would do nothing without another option."""
    if args.budget is not None and not args.ci:
        yield "--budget needs --ci: it is the longest that --ci may go on"
    if args.latency_rate is not None and not args.latency_agents:
        yield "--latency-rate needs --latency-agents: it is the rate of those"
    if args.cacert is not None and args.insecure:
        yield "--cacert says whom to trust, --insecure to trust anybody; leave one out"
