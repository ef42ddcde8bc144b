"""How guests in pods reach their host: on a unix socket that is bound into the pod, or by TCP.

A virtual machine shares no sockets with its host, so its guest calls by TCP over the pod's own
network. Everybody in that network may call there, hence each guest has a secret token, and the
launcher takes it for somebody only when it has said so.
"""

from __future__ import annotations

import ipaddress
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from seatrial.drivers.cri.handlers import ChannelKind
from seatrial.drivers.image import CHANNEL_DIRECTORY
from seatrial.drivers.options import OptionError
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.drivers.cri.handlers import Handler

CHANNEL_SOCKET: Final = "s"
#: 256 bits in hexadecimal digits, as guest and launcher expect it.
TOKEN_BYTES: Final = 32
TOKEN_VARIABLE: Final = "SEATRIAL_CHANNEL_TOKEN"  # noqa: S105 - the name of a variable
#: Where a pod in the host's network finds its host.
LOOPBACK: Final = "127.0.0.1"
ADDRESS_OPTION: Final = "channel_address"
#: Does the same for what starts without an experiment.
ADDRESS_VARIABLE: Final = "SEATRIAL_CRI_CHANNEL_ADDRESS"
EXAMPLE: Final = 'for example channel_address = "10.88.0.1"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How one guest reaches its host."""

    words: tuple[str, ...]
    """The guest's options."""
    environment: Mapping[str, str]
    mounts: tuple[tuple[str, str], ...] = ()
    """Pairs of host path and path in the container."""
    path: str | None = None
    """Where the launcher listens for this guest."""
    token: str | None = field(default=None, repr=False)
    """What the guest says to the launcher's one port."""


def by_socket(directory: Path) -> Way:
    """Give the way over a socket in a directory of the host, which becomes one of the pod."""
    return Way(
        words=("--channel-path", f"{CHANNEL_DIRECTORY}/{CHANNEL_SOCKET}"),
        environment={},
        mounts=((str(directory), CHANNEL_DIRECTORY),),
        path=str(directory / CHANNEL_SOCKET),
    )


def by_tcp(address: str, port: int) -> Way:
    """Give the way to a port of the host, with a new token."""
    host = f"[{address}]" if ":" in address else address
    token = secrets.token_hex(TOKEN_BYTES)
    return Way(
        words=("--channel-tcp", f"{host}:{port}"),
        # Not among the words: command lines are for everybody on the host to read.
        environment={TOKEN_VARIABLE: token},
        token=token,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelChoice:
    """What a session's guests do, and for a server of somebody else where its pods reach us."""

    kind: ChannelKind
    address: str = ""

    @classmethod
    def parse(
        cls,
        driver: str,
        handler: Handler | None,
        options: Mapping[str, object],
        *,
        has_own_server: bool,
    ) -> ChannelChoice:
        """Read the options ``channel`` and ``channel_address``.

        Raises:
            ConfigError: they contradict each other, the handler, or what there is.
        """

        def wrong(option: str, expected: str, hint: str | None = None) -> OptionError:
            where = f'driver."{driver}".{option}'
            needs = ("channel", "endpoint") if option == ADDRESS_OPTION else ()
            return OptionError(where, expected, value=options.get(option), needs=needs, hint=hint)

        kind = _kind(options, handler, wrong("channel", "expected unix or tcp"))
        address = str(options.get(ADDRESS_OPTION) or "")
        if kind is ChannelKind.UNIX and handler is not None and handler.is_machine:
            expected = "expected tcp: a virtual machine shares no sockets with its host"
            raise wrong("channel", expected)
        is_needed = kind is ChannelKind.TCP and not has_own_server
        if address and not is_needed:
            raise wrong(ADDRESS_OPTION, "expected only with endpoint and channel = 'tcp'")
        if is_needed:
            address = address or os.environ.get(ADDRESS_VARIABLE, "")
            if not _is_address(address):
                expected = "expected an address of this host that its pods reach"
                raise wrong(ADDRESS_OPTION, f"{expected}, got {address!r}", EXAMPLE)
        return cls(kind=kind, address=address)

    def network_of_pod(self, wanted: NetworkMode) -> NetworkMode:
        """Give the network that a pod gets: one that is to have none still has to call."""
        needs_one = self.kind is ChannelKind.TCP and wanted is NetworkMode.NONE
        return NetworkMode.VETH if needs_one else wanted

    def flags(self, *, has_own_server: bool) -> Mapping[str, str]:
        """Give what a run keeps of it: the channel, and what the network modes mean with it."""
        veth = "CNI ptp, host-local" if has_own_server else "the server's own pod network"
        none = "empty namespace by CNI" if has_own_server else veth
        if self.kind is ChannelKind.TCP:
            none = f"not empty: {veth}, for the control channel"
        channel = {
            ChannelKind.UNIX: "unix socket in a directory that is bound into the pod",
            ChannelKind.TCP: "TCP over the pod's network",
        }[self.kind]
        return {"channel": channel, "network none": none, "veth": veth}


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    # All addresses of the host at once are more than its pods need to reach.
    return not (address.is_unspecified or address.is_multicast)


def _kind(
    options: Mapping[str, object], handler: Handler | None, wrong: OptionError
) -> ChannelKind:
    default = ChannelKind.UNIX if handler is None else handler.channel
    try:
        return ChannelKind(str(options.get("channel", default)))
    except ValueError as error:
        raise wrong from error
