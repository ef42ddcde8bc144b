"""What a private containerd with a handler needs on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from seatrial.drivers.cri import config
from seatrial.drivers.cri.handlers import HANDLERS, KATA_DIRECTORIES, ChannelKind
from seatrial.drivers.local import find_program
from seatrial.drivers.tools import runsc_candidates, tools_directory
from seatrial.errors import DriverUnavailable, SeatrialError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.drivers.cri.handlers import Handler


def find_programs(name: str, *, elsewhere: str) -> tuple[Handler, Mapping[str, Path]]:
    """Find the programs of a private containerd with a handler.

    Raises:
        DriverUnavailable: something is missing, or the handler is none that it can be given;
            ``elsewhere`` says how another server is named.
    """
    handler = HANDLERS.get(name)
    if handler is None:
        raise DriverUnavailable(
            f"a private containerd knows no handler {name!r}; it knows {', '.join(HANDLERS)}",
            hint=elsewhere,
        )
    if os.geteuid() != 0:
        raise DriverUnavailable("containerd needs root", hint="run as root")
    found = {
        program: find_program(program, package="apt-get install containerd")
        for program in ("containerd", "ctr")
    }
    own = tools_directory() / handler.shim
    found[handler.shim] = find_program(handler.shim, package=handler.shim_hint, candidates=(own,))
    if handler.program is not None:
        candidates = runsc_candidates() if handler.program == "runsc" else ()
        found[handler.program] = find_program(
            handler.program, package=handler.package_hint, candidates=candidates
        )
    trouble, hint = _trouble(handler, elsewhere=elsewhere)
    if trouble:
        raise DriverUnavailable(f"cri/{name} {trouble}", hint=hint)
    return handler, found


def _trouble(handler: Handler, *, elsewhere: str) -> tuple[str, str]:
    """Say what a handler lacks besides programs, and what to do; empty: nothing."""
    if handler.needs_kvm and not Path("/dev/kvm").exists():
        return (
            "needs /dev/kvm, which this machine does not have",
            "use cri/runsc, which needs no virtualisation",
        )
    file = handler.configuration
    if file is not None and config.kata_configuration(file) is None:
        # Without it the shim would take its default, which may be another hypervisor.
        return (
            f"needs {file}, which is in none of {', '.join(KATA_DIRECTORIES)}",
            "install Kata's configurations, or link yours there",
        )
    if handler.needs_block_devices:
        return (
            "takes a pod's files from block devices only, and a private containerd makes none",
            f"{elsewhere}, with the snapshotter devmapper; see 'seatrial doctor --thin-pool'",
        )
    if handler.channel is ChannelKind.TCP:
        return channel_trouble()
    return "", ""


def channel_trouble() -> tuple[str, str]:
    """Say what keeps pods of a private containerd from calling by TCP, and what to do."""
    if config.cni_directory() is None:
        plugins = ", ".join(config.CNI_PLUGINS)
        return (
            f"calls by TCP over the pod's network, which takes the CNI plugins {plugins}",
            "apt-get install containernetworking-plugins",
        )
    return "", ""


def usable_handlers(*, elsewhere: str) -> Mapping[str, Mapping[str, Path]]:
    """Give the handlers that this machine has, and the programs of each."""
    usable = {}
    for name in HANDLERS:
        try:
            usable[name] = find_programs(name, elsewhere=elsewhere)[1]
        except SeatrialError:
            continue
    return usable
