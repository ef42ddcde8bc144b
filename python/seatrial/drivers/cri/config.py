"""The configuration files of the private containerd, and where the programs are that it needs."""

from __future__ import annotations

import ipaddress
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.drivers.cri.handlers import (
    KATA_DIRECTORIES,
    RUNSC_NETWORKS,
    Handler,
    configured_name,
)
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

CNI_VERSION: Final = "0.4.0"
CNI_DIRECTORIES: Final = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
#: What a network of its own needs: a veth with one end in the pod, and addresses.
CNI_PLUGINS: Final = ("ptp", "host-local", "loopback")
#: The name under which our own program is a plugin that connects the pod to nothing.
NO_NETWORK_PLUGIN: Final = "seatrial-none"
LOOPBACK_PLUGIN: Final = "loopback"
#: The capability without which a process cannot lower an oom_score_adj (capabilities(7)).
CAP_SYS_RESOURCE: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the private daemon keeps what."""

    base: Path

    @property
    def root(self) -> Path:
        """Images and snapshots."""
        return self.base / "root"

    @property
    def state(self) -> Path:
        """Pods and containers that live."""
        return self.base / "state"

    @property
    def socket(self) -> Path:
        """The server's address."""
        return self.base / "s"

    @property
    def config(self) -> Path:
        """The main configuration file."""
        return self.base / "config.toml"

    @property
    def plugins(self) -> Path:
        """Programs of CNI."""
        return self.base / "cni-bin"

    @property
    def tasks(self) -> Path:
        """One directory a container that has a shim."""
        return self.state / "io.containerd.runtime.v2.task" / "k8s.io"

    def networks(self, mode: NetworkMode) -> Path:
        """The network of pods in a mode."""
        return self.base / f"cni-{mode}"

    def runtime_config(self, handler: str) -> Path:
        """What a shim reads."""
        return self.base / f"{handler}.toml"


def cni_directory() -> Path | None:
    """Find where the plugins are that a network of its own needs."""
    for name in CNI_DIRECTORIES:
        if all((Path(name) / plugin).is_file() for plugin in CNI_PLUGINS):
            return Path(name)
    return None


def kata_configuration(name: str) -> Path | None:
    """Find the configuration of one of Kata's hypervisors."""
    candidates = (Path(directory) / name for directory in KATA_DIRECTORIES)
    return next((path for path in candidates if path.is_file()), None)


def kata_gaps(path: Path) -> tuple[str, ...]:
    """Say what a configuration of Kata keeps from being booked."""
    try:
        runtime = tomllib.loads(path.read_text()).get("runtime", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return (f"{path} cannot be read: {error}",)
    if isinstance(runtime, dict) and runtime.get("sandbox_cgroup_only") is True:
        return ()
    gap = (
        f"{path} does not set sandbox_cgroup_only = true: parts of each virtual machine are "
        "outside of its pod's group, and their CPU and memory in nobody's books"
    )
    return (gap,)


def has_capability(status: str, number: int) -> bool:
    """Tell from /proc/self/status whether this process has a capability; pure."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> number & 1)
    return False


def daemon_config(
    layout: Layout,
    handlers: Mapping[str, Handler],
    *,
    programs: Mapping[str, Path],
    pause_image: str,
    snapshotter: str,
    may_lower_oom_score: bool,
) -> str:
    """Give the main configuration file."""
    lines = [
        "version = 2",
        f"root = {_quote(layout.root)}",
        f"state = {_quote(layout.state)}",
        # What we do not use, and what would start on a timer and disturb a measurement.
        (
            'disabled_plugins = ["io.containerd.internal.v1.restart", '
            '"io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", '
            '"io.containerd.snapshotter.v1.aufs", "io.containerd.tracing.processor.v1.otlp", '
            '"io.containerd.internal.v1.tracing"]'
        ),
        "[grpc]",
        f"address = {_quote(layout.socket)}",
        "[debug]",
        'level = "warn"',
        f"address = {_quote(layout.base / 'd')}",
        '[plugins."io.containerd.grpc.v1.cri"]',
        f"sandbox_image = {_quote(pause_image)}",
        # Statistics are for a kubelet; the widest interval (seconds) there is.
        "stats_collect_period = 2147483647",
        "netns_mounts_under_state_dir = true",
        f"restrict_oom_score_adj = {str(not may_lower_oom_score).lower()}",
        "disable_tcp_service = true",
        '[plugins."io.containerd.grpc.v1.cri".cni]',
        f"bin_dir = {_quote(layout.plugins)}",
        f"conf_dir = {_quote(layout.networks(NetworkMode.NONE))}",
        '[plugins."io.containerd.grpc.v1.cri".containerd]',
        f"snapshotter = {_quote(snapshotter)}",
        f"default_runtime_name = {_quote(configured_name(next(iter(handlers)), NetworkMode.NONE))}",
    ]
    for name, handler in handlers.items():
        for mode in NetworkMode:
            lines += _handler_lines(layout, name, handler, mode=mode, programs=programs)
    return "\n".join(lines) + "\n"


def _handler_lines(
    layout: Layout,
    name: str,
    handler: Handler,
    *,
    mode: NetworkMode,
    programs: Mapping[str, Path],
) -> list[str]:
    table = (
        '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.'
        f"{_quote(configured_name(name, mode))}"
    )
    lines = [
        f"{table}]",
        f"runtime_type = {_quote(handler.runtime_type)}",
        f"cni_conf_dir = {_quote(layout.networks(mode))}",
        "cni_max_conf_num = 1",
        f"{table}.options]",
    ]
    if handler.platform is not None:
        config = layout.runtime_config(configured_name(name, mode))
        return [
            *lines,
            'TypeUrl = "io.containerd.runsc.v1.options"',
            f"ConfigPath = {_quote(config)}",
        ]
    if handler.program is not None:
        return [
            *lines,
            f"BinaryName = {_quote(programs[handler.program])}",
            f"Root = {_quote(layout.base / handler.program)}",
            "SystemdCgroup = false",
        ]
    found = None if handler.configuration is None else kata_configuration(handler.configuration)
    return lines if found is None else [*lines, f"ConfigPath = {_quote(found)}"]


def runsc_config(layout: Layout, handler: Handler, *, mode: NetworkMode, program: Path) -> str:
    """Give what gVisor's shim reads: where runsc is, and its flags."""
    lines = [
        f"binary_name = {_quote(program)}",
        f"root = {_quote(layout.base / 'runsc')}",
        'log_level = "warning"',
        "[runsc_config]",
        f"platform = {_quote(handler.platform or '')}",
        f"network = {_quote(RUNSC_NETWORKS[mode])}",
        # The guest calls on a socket of the host, in a directory that is bound into the sandbox.
        'host-uds = "open"',
    ]
    return "\n".join(lines) + "\n"


def no_network() -> str:
    """Give the network of pods without one: a name space with nothing but its loopback."""
    return json.dumps(
        {
            "cniVersion": CNI_VERSION,
            "name": "seatrial-none",
            "plugins": [{"type": NO_NETWORK_PLUGIN}],
        }
    )


def gateway_of(subnet: str) -> str:
    """Give the address of the host in a network of pods: its first."""
    return str(ipaddress.ip_network(subnet)[1])


def veth_network(subnet: str, data_directory: Path) -> str:
    """Give the network of pods with a veth of their own, routed to from the host only."""
    return json.dumps(
        {
            "cniVersion": CNI_VERSION,
            "name": "seatrial-veth",
            "plugins": [
                {
                    "type": "ptp",
                    "ipMasq": False,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": subnet, "gateway": gateway_of(subnet)}]],
                        "dataDir": str(data_directory),
                    },
                }
            ],
        }
    )


def _quote(value: object) -> str:
    # A JSON string is a basic string of TOML.
    return json.dumps(str(value))
