"""``seatrial agent``: one process that offers its part of a load, as its coordinator says."""

from __future__ import annotations

import argparse
import os
import signal
import socket
from typing import Final

from seatrial.errors import ConfigError, EnvironmentTrouble, ExitCode

CONNECT_TIMEOUT_S: Final = 10.0
DESCRIPTION: Final = """\
Offers its part of loads, as the coordinator at the other end of a connection says, until that one
ends. `seatrial load --agents N` starts agents of its own; this command is for starting one
elsewhere on the same host, such as in a sandbox. The token that both ends have to know is taken
from the variable SEATRIAL_AGENT_TOKEN, which other users cannot read, never from an argument.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.add_argument("--name", required=True, help="how the coordinator calls this agent")
    place = parser.add_mutually_exclusive_group(required=True)
    place.add_argument("--fd", type=int, metavar="N", help="descriptor of a connected socket")
    place.add_argument("--connect", metavar="ADDRESS", help="tcp://HOST:PORT or unix:///PATH")


def execute(args: argparse.Namespace) -> int:
    """Obeys until the coordinator says BYE."""
    from seatrial.agents.peer import Peer, own_identity
    from seatrial.agents.worker import work

    token = _token()
    if args.fd is not None:
        # Who stops a whole group or container stops the coordinator, too, which still wants what
        # was measured. It ends its agents itself; when it dies, so do they.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    work(Peer(_connected(args)), token, own_identity(args.name))
    return ExitCode.OK


def _token() -> bytes:
    from seatrial.agents.peer import AGENT_VARIABLE, TOKEN_BYTES_MIN

    text = os.environ.pop(AGENT_VARIABLE, "")
    try:
        token = bytes.fromhex(text)
    except ValueError:
        token = b""
    if len(token) < TOKEN_BYTES_MIN:
        message = f"{AGENT_VARIABLE} holds no token; expected at least 32 hexadecimal digits"
        raise ConfigError(message, hint="take it from `Team.token_text` of the coordinator")
    return token


def _connected(args: argparse.Namespace) -> socket.socket:
    try:
        return _open(args)
    except (OSError, ValueError) as error:
        where = f"descriptor {args.fd}" if args.connect is None else args.connect
        message = f"cannot reach the coordinator at {where}: {error}"
        raise EnvironmentTrouble(message, hint="check that it listens there") from error


def _open(args: argparse.Namespace) -> socket.socket:
    if args.connect is None:
        return socket.socket(fileno=args.fd)
    scheme, _, rest = args.connect.partition("://")
    if scheme == "unix":
        stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        stream.connect(rest)
        return stream
    if scheme == "tcp":
        host, _, port = rest.rpartition(":")
        return socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_TIMEOUT_S)
    message = f"--connect {args.connect}: expected tcp://HOST:PORT or unix:///PATH"
    raise ConfigError(message)
