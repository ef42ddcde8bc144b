"""Why a service cannot be loaded at all, in the words of the command line, with what to do."""

from __future__ import annotations

import re
from typing import Final

from seatrial.errors import EnvironmentTrouble, TrialFailed

#: Codes of a service that cannot be loaded at all.
UNREACHABLE: Final = frozenset({"connect-failed", "preload-failed"})
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
        "make it one with basicConstraints=critical,CA:FALSE, or do not verify: --insecure",
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


def unreachable(error: TrialFailed) -> EnvironmentTrouble:
    """Returns the same in words of this command line, with a hint that fits its cause."""
    message = NUMBERED.sub(r"one of \1 connections to ", error.message)
    for name, told in WORDS.items():
        message = message.replace(name, told)
    hint = error.hint
    if error.code == "connect-failed":
        hint = next((told for word, told in HINTS if word in message), hint)
    return EnvironmentTrouble(message, hint=hint, code=error.code)
