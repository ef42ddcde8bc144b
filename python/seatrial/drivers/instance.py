"""What a session knows about one sandbox of its own, and what its driver says about it."""

import os
from dataclasses import dataclass
from pathlib import Path

from seatrial.drivers.base import SandboxSpec
from seatrial.launch import Isolation
from seatrial.network import Veth
from seatrial.probes.cgroup import Cgroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One planned sandbox and what was made for it."""

    id: str
    token: str
    index: int
    spec: SandboxSpec
    directory: Path
    cgroup: Cgroup | None
    veth: Veth | None
    namespace_fd: int | None
    """Held open where the launcher cannot see the namespace by its name."""

    @property
    def namespace_path(self) -> str | None:
        """The path by which the launcher and its children open the network namespace."""
        if self.veth is None:
            return None
        if self.namespace_fd is not None:
            return f"/proc/{os.getpid()}/fd/{self.namespace_fd}"
        return str(self.veth.namespace_path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """How a sandbox is started; the parts of a start plan that differ between drivers."""

    argv: tuple[str, ...]
    isolation: Isolation | None = None
    network_namespace: str | None = None
    kill_argv: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenProcess:
    """A live process of a sandbox, as roles are told from."""

    pid: int
    name: str
    first_word: str
    group: str
    """The group below the sandbox's outer group; "" is the outer group itself."""
