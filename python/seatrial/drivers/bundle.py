"""OCI bundles: the ``config.json`` of one sandbox, built by a pure function.

The same for every runtime, so that what differs in a comparison is the runtime: read-only root,
own /proc, small /dev, tmpfs /tmp, no capabilities, no seccomp profile, no resource limits of the
process (raising one takes CAP_SYS_RESOURCE, which a container host may lack), a group of its own.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from seatrial.drivers.base import CHANNEL_FD, DATA_PATH, TOOLS_PATH
from seatrial.guest.rootfs import GUEST_PATH
from seatrial.model.experiment import NetworkMode
from seatrial.probes.cgroup import CPU_PERIOD_US, CgroupHost, CgroupMode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seatrial.drivers.base import SandboxSpec

Json: TypeAlias = "str | int | bool | list[Json] | dict[str, Json] | None"

UNIFIED_MOUNT: Final = "/sys/fs/cgroup/unified"
OCI_VERSION: Final = "1.0.2"
HOSTNAME: Final = "seatrial"
CAPABILITY_SETS: Final = ("bounding", "effective", "inheritable", "permitted", "ambient")
#: Devices every container has by the specification; listed where a runtime needs to be told.
DEV_SIZE: Final = "size=65536k"
#: What stands in the flags of every OCI driver, since it is inside the clock.
FLAGS: Final[Mapping[str, str]] = {
    "root": "read-only, tmpfs /tmp",
    "seccomp": "none",
    "capabilities": "none",
    "rlimits": "inherited",
    "console": "none",
}


def hidden_from_crun() -> tuple[str, ...]:
    """Give the mounts that crun must not see: it refuses a hybrid hierarchy.

    Without root they cannot be hidden; crun then says for itself what is wrong.
    """
    is_hybrid = CgroupHost.detect().mode is CgroupMode.HYBRID
    return (UNIFIED_MOUNT,) if is_hybrid and os.geteuid() == 0 else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdMapping:
    """The one user that a rootless sandbox has: us, seen inside as root."""

    uid: int
    gid: int


def build_config(
    spec: SandboxSpec,
    *,
    root: Path,
    cgroups_path: str | None,
    network_namespace: str | None,
    environment: Sequence[str] = (),
    rootless: IdMapping | None = None,
) -> dict[str, Json]:
    """Give the configuration of one sandbox; pure.

    ``network_namespace`` is the path of the one to join; without it a new, empty one is made unless
    the sandbox shares the host's. A rootless sandbox has neither group nor limits.
    """
    linux: dict[str, Json] = {"namespaces": _namespaces(spec, network_namespace, rootless)}
    if rootless is None:
        if cgroups_path is not None:
            linux["cgroupsPath"] = cgroups_path
        linux["resources"] = _resources(spec)
    else:
        linux["uidMappings"] = [{"containerID": 0, "hostID": rootless.uid, "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": rootless.gid, "size": 1}]
    return {
        "ociVersion": OCI_VERSION,
        "process": _process(spec, environment),
        "root": {"path": str(root), "readonly": True},
        "hostname": HOSTNAME,
        "mounts": _mounts(spec),
        "linux": linux,
    }


def write_bundle(directory: Path, config: Mapping[str, Json]) -> None:
    """Put the configuration into a bundle directory."""
    (directory / "config.json").write_text(json.dumps(config))


def _process(spec: SandboxSpec, environment: Sequence[str]) -> dict[str, Json]:
    capabilities: dict[str, Json] = {name: [] for name in CAPABILITY_SETS}
    return {
        "terminal": False,
        "user": {"uid": 0, "gid": 0},
        "args": [GUEST_PATH, "--channel-fd", str(CHANNEL_FD), *spec.role],
        "env": ["PATH=/bin", *environment],
        "cwd": "/",
        "capabilities": capabilities,
        "noNewPrivileges": True,
    }


def _mounts(spec: SandboxSpec) -> list[Json]:
    mounts: list[Json] = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", DEV_SIZE],
        },
        {
            "destination": "/tmp",  # noqa: S108 - a mount point inside the sandbox
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "nodev", "mode=1777"],
        },
    ]
    if spec.data_dir is not None:
        mounts.append(
            {
                "destination": DATA_PATH,
                "type": "bind",
                "source": str(spec.data_dir),
                "options": ["bind", "rw"],
            }
        )
    if spec.tools_dir is not None:
        mounts.append(
            {
                "destination": TOOLS_PATH,
                "type": "bind",
                "source": str(spec.tools_dir),
                "options": ["bind", "ro"],
            }
        )
    return mounts


def _namespaces(
    spec: SandboxSpec, network_namespace: str | None, rootless: IdMapping | None
) -> list[Json]:
    names: list[Json] = [{"type": name} for name in ("pid", "ipc", "uts", "mount")]
    if network_namespace is not None:
        names.append({"type": "network", "path": network_namespace})
    elif spec.network is not NetworkMode.HOST:
        names.append({"type": "network"})
    if rootless is not None:
        names.append({"type": "user"})
    return names


def _resources(spec: SandboxSpec) -> dict[str, Json]:
    resources: dict[str, Json] = {}
    if spec.memory_limit_bytes is not None:
        resources["memory"] = {"limit": spec.memory_limit_bytes}
    if spec.cpu_limit is not None:
        quota_us = int(spec.cpu_limit * CPU_PERIOD_US)
        resources["cpu"] = {"quota": quota_us, "period": CPU_PERIOD_US}
    return resources
