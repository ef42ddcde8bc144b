"""Runtime handlers of the private containerd, as data: which shim, and its options a network mode.

A handler of CRI is a name in the server's configuration. ``cri/NAME`` on a server of somebody else
uses whatever NAME means there; for the private one this is the table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where Kata's packages put the configurations of its hypervisors.
KATA_DIRECTORIES: Final = (
    "/etc/kata-containers",
    "/opt/kata/share/defaults/kata-containers",
    "/usr/share/defaults/kata-containers",
)


#: What a pod costs beyond its containers, as Kata's own RuntimeClasses tell a kubelet.
KATA_QEMU_OVERHEAD_BYTES: Final = 160 << 20
KATA_OTHERS_OVERHEAD_BYTES: Final = 130 << 20


class ChannelKind(StrEnum):
    """How a guest reaches its host."""

    UNIX = "unix"
    """On a unix socket in a directory that is bound into the pod."""
    TCP = "tcp"
    """By TCP over the pod's network, with a secret token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """One runtime behind containerd."""

    shim: str
    runtime_type: str
    shim_hint: str
    program: str | None = None
    """The runtime that the shim calls; None: the shim itself is the runtime."""
    version_marker: str = ""
    package_hint: str = ""
    platform: str | None = None
    """gVisor's way of intercepting system calls."""
    configuration: str | None = None
    """The name of the runtime's configuration file, looked for in Kata's directories."""
    shares_host_clock: bool = True
    needs_kvm: bool = False
    channel: ChannelKind = ChannelKind.UNIX
    is_machine: bool = False
    """Each pod is a virtual machine: kernel, clock and sockets of its own, and never the host's
    network, which Kata takes apart when it is given it."""
    overhead_bytes: int = 0
    """What a memory limit on a pod's group leaves to the machine around the container."""
    needs_block_devices: bool = False
    """It shares no files with the host, so images have to come on block devices."""


def _runsc(platform: str) -> Handler:
    return Handler(
        shim="containerd-shim-runsc-v1",
        runtime_type="io.containerd.runsc.v1",
        shim_hint="'make setup' builds gVisor's shim together with runsc",
        program="runsc",
        version_marker="runsc version ",
        package_hint="'make setup' builds a current one",
        platform=platform,
        shares_host_clock=False,
    )


def _kata(configuration: str, *, overhead_bytes: int, needs_block_devices: bool = False) -> Handler:
    return Handler(
        shim="containerd-shim-kata-v2",
        runtime_type="io.containerd.kata.v2",
        shim_hint="install Kata Containers (its packages bring the shim)",
        configuration=configuration,
        shares_host_clock=False,
        needs_kvm=True,
        channel=ChannelKind.TCP,
        is_machine=True,
        overhead_bytes=overhead_bytes,
        needs_block_devices=needs_block_devices,
    )


HANDLERS: Final[Mapping[str, Handler]] = {
    "runc": Handler(
        shim="containerd-shim-runc-v2",
        runtime_type="io.containerd.runc.v2",
        shim_hint="apt-get install containerd",
        program="runc",
        version_marker="runc version ",
        package_hint="apt-get install runc",
    ),
    "crun": Handler(
        shim="containerd-shim-runc-v2",
        runtime_type="io.containerd.runc.v2",
        shim_hint="apt-get install containerd",
        program="crun",
        version_marker="crun version ",
        package_hint="apt-get install crun",
    ),
    "runsc": _runsc("systrap"),
    "runsc-ptrace": _runsc("ptrace"),
    "runsc-kvm": _runsc("kvm"),
    "kata-qemu": _kata("configuration-qemu.toml", overhead_bytes=KATA_QEMU_OVERHEAD_BYTES),
    "kata-clh": _kata("configuration-clh.toml", overhead_bytes=KATA_OTHERS_OVERHEAD_BYTES),
    "kata-fc": _kata(
        "configuration-fc.toml",
        overhead_bytes=KATA_OTHERS_OVERHEAD_BYTES,
        needs_block_devices=True,
    ),
}

#: Any other handler of Kata on somebody's server, which is called so: kata, kata-dragonball...
OTHER_KATA: Final = _kata("configuration.toml", overhead_bytes=KATA_QEMU_OVERHEAD_BYTES)
OTHER_KATA_PATTERN: Final = re.compile(r"kata([-.].*)?")

#: What ``--network`` of runsc is in each mode: its own stack on the pod's veth, ours, or none.
RUNSC_NETWORKS: Final[Mapping[NetworkMode, str]] = {
    NetworkMode.NONE: "none",
    NetworkMode.HOST: "host",
    NetworkMode.VETH: "sandbox",
}


def known_handler(name: str) -> Handler | None:
    """Give what is known of a handler, on a server of somebody else too."""
    found = HANDLERS.get(name)
    if found is None and OTHER_KATA_PATTERN.fullmatch(name):
        return OTHER_KATA
    return found


def configured_name(handler: str, network: NetworkMode) -> str:
    """Give the name under which the private daemon's configuration has a handler in a mode."""
    return f"{handler}.{network}"
