"""The settings of each protocol as ``seatrial load --help-options`` tells them."""

from __future__ import annotations

import argparse
import dataclasses
import textwrap
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: What of a line a terminal of usual width shows.
WIDTH: Final = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolOption:
    """One ``--option NAME=VALUE``; the engine checks the value, this says what it takes."""

    name: str
    default: str
    form: str
    meaning: str


def _option(name: str, default: str, form: str, meaning: str) -> ProtocolOption:
    return ProtocolOption(name=name, default=default, form=form, meaning=meaning)


_STORE: Final = (
    _option("keys", "10000", "1 to 2^48", "how many keys there are"),
    _option(
        "key_bytes",
        "16",
        "SIZES, at most 64 KiB (memcached: 250 bytes)",
        "length of a key's name: its number with zeros before it, so all digits fit in any case",
    ),
    _option("value_bytes", "100", "SIZES, at most 1000000 bytes", "length of a key's value"),
    _option(
        "popularity",
        "uniform",
        "uniform, round-robin or zipf:skew=S with 0 < S <= 10",
        "which key a request is for",
    ),
    _option(
        "read_ratio",
        "0.9",
        "0 to 1",
        "share of requests that read (GET); the others WRITE (SET); read_ratio=1 only reads",
    ),
    _option("miss", "ok", "ok or error", "whether a key that is not there is a failure"),
    _option(
        "verify", "true", "true or false", "compare values that are read with what was written"
    ),
    _option(
        "preload",
        "false",
        "true or false",
        "write every key before the load begins (at most 10000000 keys)",
    ),
)
_WORK: Final = (
    _option("reply_bytes", "2048", "0 to 1048576", "payload of a reply"),
    _option("touch_bytes", "1048576", "1 to 268435456", "memory that --operation touch goes over"),
)
#: {protocol as its URLs name it: its options}
OPTIONS: Final[Mapping[str, Sequence[ProtocolOption]]] = {
    "http": (
        _option("method", "GET", "capital letters, not CONNECT", "same as -X"),
        _option(
            "path",
            "of the URL",
            "/...",
            "what is asked for; {id}: number of the request, {demand_ns}: the work of --demand",
        ),
        _option("host", "of the URL", "HOST[:PORT]", "the field Host"),
        _option("header", "none", "NAME: VALUE, one a line", "same as -H, which may be repeated"),
        _option("expect_status", "2xx", "200,404 or 2xx,3xx", "codes that are a correct reply"),
        _option(
            "check_body",
            "none",
            "none, same, length:BYTES or crc32:8 hex digits",
            "what every body has to be; same: as the first one",
        ),
        _option("keep_alive", "true", "true or false", "false: a new connection for each request"),
        _option("body", "none", "TEXT, with {id} and {demand_ns} filled in", "same as -d"),
        _option("body_bytes", "none", "0 to 16777216", "a body of so many bytes instead"),
        _option("body_file", "none", "FILE of at most 16 MiB", "the bytes of a file instead"),
    ),
    "grpc": (
        _option(
            "method",
            "of the URL",
            "/package.Service/Method",
            "which method; by default that of `seatrial serve`, /seatrial.v1.Load/Call",
        ),
        _option("authority", "of the URL", "HOST[:PORT]", "whom requests are for"),
        _option("header", "none", "name: value, one a line", "metadata; same as -H"),
        _option("message", "none", "TEXT of at most 1 MiB", "message to another method"),
        _option("message_hex", "none", "hex digits", "the same, as bytes"),
        _option("expect", "any", "any or echo", "whether such a method has to answer the message"),
        *_WORK,
    ),
    "redis": (
        *_STORE,
        _option(
            "command",
            "none",
            "words with {key}, {value}, {id}, {demand_ns}",
            "sent instead of GET and SET",
        ),
        _option("auth", "of the URL", "PASSWORD or USER:PASSWORD", "AUTH on each connection"),
        _option("db", "of the URL or 0", "0 to 65535", "SELECT on each connection"),
    ),
    "memcached": (
        *_STORE,
        _option("dialect", "text", "text or meta", "get and set, or mg and ms"),
    ),
    "rpc": _WORK,
    "echo": (
        _option(
            "verify",
            "true",
            "true or false",
            "compare replies with requests; same as --no-verify; udp: always true",
        ),
    ),
    "tls": (
        _option("tls_ca", "the system's", "FILE (PEM)", "certificates to trust; same as --cacert"),
        _option("tls_insecure", "false", "true or false", "trust anybody; same as --insecure"),
        _option(
            "tls_server_name",
            "of the URL",
            "a host name or an address",
            "the name that the certificate has to be for",
        ),
        _option(
            "tls_alpn",
            "of the protocol",
            "names such as h2,http/1.1, or none",
            "protocols to ask for",
        ),
        _option("tls_resumption", "true", "true or false", "resume sessions of connections before"),
    ),
}
HEAD: Final = """\
--option NAME=VALUE, by the protocol of the URL; may be repeated.
  SIZES  bytes such as 100 or 4KiB, or a law: constant:100, exponential:1KiB, uniform:low=,high=,
         lognormal:mean=,cv=, gamma:mean=,cv=, weibull:mean=,shape=, pareto:mean=,shape=,
         gev:location=,scale=,shape=, bimodal:low=,high=,share=, fb_key, fb_val
"""
TITLES: Final = {
    "http": "http, https, http+unix",
    "grpc": "grpc, grpcs, grpc+unix",
    "redis": "redis, rediss, redis+unix (writes by default: read_ratio)",
    "memcached": "memcached, memcached+unix (writes by default: read_ratio)",
    "rpc": "rpc, rpc+unix, rpc+udp, rpc+tls, fake",
    "echo": "tcp, udp, tls, unix (bytes echoed as they came)",
    "tls": "every one with TLS: https, grpcs, rediss, rpc+tls, tls",
}


class ShowOptions(argparse.Action):
    """Prints the settings of every protocol and ends, as --help does."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Prints and exits with 0."""
        del namespace, values, option_string
        from seatrial.cli import output

        output.data(options_text())
        parser.exit(0)


def options_text() -> str:
    """Every option with its default, its form and its meaning."""
    lines = [HEAD]
    for protocol, options in OPTIONS.items():
        lines.append(TITLES[protocol])
        for option in options:
            told = f"{option.form} (default: {option.default})"
            lines.append(f"  {option.name:<16} {told}")
            lines += textwrap.wrap(
                option.meaning, WIDTH, initial_indent=" " * 19, subsequent_indent=" " * 19
            )
        lines.append("")
    return "\n".join(lines)


def option_names() -> str:
    """The names alone, a protocol a line or more, for --help."""
    return "\n".join(
        textwrap.fill(
            " ".join(option.name for option in options),
            WIDTH - 2,
            initial_indent=f"  {protocol:<10} ",
            subsequent_indent=" " * 13,
        )
        for protocol, options in OPTIONS.items()
    )


def options_markdown() -> str:
    """The same as a table, for docs/load.md."""
    rows = [
        f"| {protocol} | `{one.name}` | {one.default} | {one.form} | {one.meaning} |"
        for protocol, options in OPTIONS.items()
        for one in options
    ]
    head = ["| protocol | option | default | form | meaning |", "| --- | --- | --- | --- | --- |"]
    return "\n".join([*head, *rows])
