"""What a handler lets a driver do and what it lacks: capabilities, gaps and flags."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from seatrial.drivers.cri import config
from seatrial.drivers.cri.handlers import ChannelKind
from seatrial.drivers.local import host_capabilities
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.drivers.base import Capabilities
    from seatrial.drivers.cri.handlers import Handler
    from seatrial.model.scalar import Scalar

#: Options that an environment variable can give as well, for what starts without an experiment.
VARIABLES: Final[Mapping[str, str]] = {
    "endpoint": "SEATRIAL_CRI_ENDPOINT",
    "image": "SEATRIAL_CRI_IMAGE",
}


def with_environment(options: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Give the options, with those of the environment where an experiment names none."""
    named = {option: os.environ.get(variable, "") for option, variable in VARIABLES.items()}
    return {**{option: value for option, value in named.items() if value}, **options}


def handler_capabilities(handler: Handler | None) -> Capabilities:
    """Give what a driver can do with a handler; None: nothing is known of it."""
    capabilities = host_capabilities(
        has_own_root=True, shares_host_clock=handler is not None and handler.shares_host_clock
    )
    if handler is None or not handler.is_machine:
        return capabilities
    modes = tuple(mode for mode in capabilities.network_modes if mode is not NetworkMode.HOST)
    return replace(capabilities, network_modes=modes, limit_overhead_bytes=handler.overhead_bytes)


def handler_gaps(handler: Handler) -> tuple[str, ...]:
    """Say what a handler of the private containerd lacks here."""
    file = handler.configuration
    found = None if file is None else config.kata_configuration(file)
    return (*network_gaps(handler), *(() if found is None else config.kata_gaps(found)))


def network_gaps(handler: Handler) -> tuple[str, ...]:
    """Say what the network modes of a handler are not."""
    if handler.channel is not ChannelKind.TCP:
        return ()
    return ("network mode none has an interface to the host, for the control channel",)


def machine_flags(handler: Handler | None) -> Mapping[str, str]:
    """Give what a run keeps about pods that are virtual machines."""
    if handler is None or not handler.is_machine:
        return {}
    return {
        "guest clock": "its own",
        "guest memory": "default_memory of its configuration, plus the container's limit",
        "network host": "not offered",
    }
