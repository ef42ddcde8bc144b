"""Why a service cannot be loaded at all, in the words of the command line, with what to do."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from seatrial.errors import ConfigError, EnvironmentTrouble, TrialFailed
from seatrial.units import format_duration, format_rate

if TYPE_CHECKING:
    from seatrial.loadtest.target import LoadTarget

#: Codes of a service that cannot be loaded at all.
UNREACHABLE: Final = frozenset({"connect-failed", "preload-failed"})
#: An agent died or fell silent in the middle of a load.
AGENT_LOST: Final = "agent-lost"
#: {what the engine calls it: what this command line does}; an experiment has other names.
WORDS: Final = {
    "tls_insecure=true": "--insecure",
    "in tls_ca": "with --cacert",
    "Other(OtherError(CaUsedAsEndEntity))": (
        "the server shows the certificate of an authority (CA:TRUE) as its own"
    ),
}
#: How far the engine came does not say how many connections worked: they are made all at once.
NUMBERED: Final = re.compile(r"^connection \d+ of (\d+) to ")
#: (what the message has, what to do), the first that fits.
HINTS: Final = (
    (
        "CA:TRUE",
        "make its own with basicConstraints=critical,CA:FALSE (docs/load.md), or use --insecure",
    ),
    ("certificate", "the server is there, but what it showed is not trusted"),
    (
        "AUTH: ",
        "the server is there, but refused the password: redis://[USER]:PASSWORD@HOST gives one",
    ),
    ("SELECT: ", "the server is there, but has no such database: redis://HOST/NUMBER"),
    (
        "does not speak HTTP/2",
        "the server is there, but is none of gRPC on this port; http:// loads HTTP/1.1",
    ),
    ("TLS", "something listens there, but not with TLS: check the port, or use a URL without TLS"),
    ("not a", "something listens there, but speaks another protocol: check scheme and port"),
    ("source port", "use fewer connections: -c N"),
    ("may not open more files", "or use fewer connections: -c N"),
    ("os error 111", "check that the server is up and listens there"),
    ("os error 2)", "check that the server is up, and the path of its socket"),
    ("os error", "check that the server is up and can be reached from here"),
)
#: {what a plan of the engine calls it: the option that sets it}
OPTIONS: Final = {
    "rate_rps": "--rate",
    "measure_ns": "--duration",
    "warm_up_ns": "--warm-up",
    "cool_down_ns": "--cool-down",
    "drain_ns": "--timeout",
    "request_timeout_ns": "--timeout",
    "connections": "--connections",
    "depth": "--depth",
    "outstanding_max": "--outstanding",
    "threads": "--threads",
    "requests_max": "--count",
    "payload_bytes": "--payload",
    "seed": "--seed",
    "agents": "--agents",
    "cpus": "--cpus",
}
PLAN: Final = re.compile(r"^load plan: (\w+) (is|has) ([^,\s]+), expected ")
#: How the engine begins about a file of certificates.
CA_FILE: Final = "tls option tls_ca="
#: The limit of a rate as the engine writes it.
RATE_MAX: Final = "1e9"
#: A number that no type of the engine holds, beside what is said of one that is merely too large.
BEYOND: Final = "a whole number from 0 within the documented bounds"


def refused(error: ConfigError) -> ConfigError:
    """Returns what the engine refuses under the name of the option that asked for it."""
    if error.message.startswith(CA_FILE):
        told = error.message.removeprefix(CA_FILE).replace(", expected ", "; expected ", 1)
        return ConfigError(f"--cacert: got {told}", hint=error.hint, code=error.code)
    found = PLAN.match(error.message)
    option = OPTIONS.get(found[1]) if found is not None else None
    if found is None or option is None:
        return error
    expected = error.message[found.end() :].replace(BEYOND, "a number that is far closer to 0")
    if found[1] == "rate_rps":
        expected = expected.replace(RATE_MAX, format_rate(float(RATE_MAX)))
    told = f"{option}: got {_with_unit(found[1], found[3])}; expected {expected}"
    return ConfigError(told, hint="`seatrial load --help` explains each option", code=error.code)


def _with_unit(name: str, value: str) -> str:
    if name.endswith("_ns") and value.isdecimal():
        return format_duration(int(value))
    if name.endswith("_rps"):
        return format_rate(float(value))
    return value


def failed(error: TrialFailed, target: LoadTarget) -> EnvironmentTrouble:
    """Returns why there is no result at all, in words of this command line.

    That is no verdict on the service, so it has not the exit code of one.
    """
    if error.code in UNREACHABLE:
        return unreachable(error, target)
    if error.code != AGENT_LOST:
        return EnvironmentTrouble(error.message, hint=error.hint, code=error.code)
    return EnvironmentTrouble(
        f"{error.message}; what the other agents measured is not kept: with a hole in it this is "
        "not the load that was asked for",
        hint="run it again; if the agent was killed for want of memory, use fewer --agents",
        code=error.code,
    )


def unreachable(error: TrialFailed, target: LoadTarget) -> EnvironmentTrouble:
    """Returns the same in words of this command line, with a hint that fits its cause."""
    message = NUMBERED.sub(r"one of \1 connections to ", error.message)
    for address, url in zip(target.targets, target.text.split(" "), strict=True):
        shown = _shown(url, address).replace("\\", r"\\")
        # Not where it begins a longer one, as port 80 does 8080.
        message = re.sub(rf"{re.escape(address)}(?!\w)", shown, message)
    for name, told in WORDS.items():
        message = message.replace(name, told)
    hint = error.hint
    if error.code == "connect-failed":
        hint = next((told for word, told in HINTS if word in message), hint)
    return EnvironmentTrouble(message, hint=hint, code=error.code)


def _shown(url: str, address: str) -> str:
    """The URL as it was typed, without login, path and query, and the address it stands for."""
    scheme, _, rest = url.partition("://")
    if address.startswith("unix://"):
        return f"{scheme}://{rest.partition('?')[0]}"
    host = rest.partition("/")[0].partition("?")[0].rpartition("@")[2]
    numeric = address.partition("://")[2]
    is_said = host == numeric or f"{host}:" == numeric[: len(host) + 1]
    return f"{scheme}://{host}" if is_said else f"{scheme}://{host} ({numeric})"
