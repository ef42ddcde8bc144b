"""Runtime handlers of the private containerd, as data: which shim, and its options a network mode.

A handler of CRI is a name in the server's configuration. ``cri/NAME`` on a server of somebody else
uses whatever NAME means there; for the private one this is the table.
"""

from __future__ import annotations

from dataclasses import dataclass
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


def _kata(configuration: str) -> Handler:
    return Handler(
        shim="containerd-shim-kata-v2",
        runtime_type="io.containerd.kata.v2",
        shim_hint="install Kata Containers (its packages bring the shim)",
        configuration=configuration,
        shares_host_clock=False,
        needs_kvm=True,
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
    "kata-qemu": _kata("configuration-qemu.toml"),
    "kata-clh": _kata("configuration-clh.toml"),
    "kata-fc": _kata("configuration-fc.toml"),
}

#: What ``--network`` of runsc is in each mode: its own stack on the pod's veth, ours, or none.
RUNSC_NETWORKS: Final[Mapping[NetworkMode, str]] = {
    NetworkMode.NONE: "none",
    NetworkMode.HOST: "host",
    NetworkMode.VETH: "sandbox",
}


def configured_name(handler: str, network: NetworkMode) -> str:
    """Give the name under which the private daemon's configuration has a handler in a mode."""
    return f"{handler}.{network}"
