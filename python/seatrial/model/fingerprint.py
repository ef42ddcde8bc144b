"""What machine a number was measured on. ``seatrial.probes.fingerprint`` fills it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from seatrial.model.scalar import Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The facts of a host that move benchmark numbers; None means that it could not be read."""

    architecture: str | None = None
    cpu_model: str | None = None
    cpu_count: int | None = None
    cpu_microcode: str | None = None
    cpu_governor: str | None = None
    is_smt_active: bool | None = None
    is_turbo_enabled: bool | None = None
    memory_bytes: int | None = None
    swap_bytes: int | None = None
    kernel: str | None = None
    kernel_command_line: str | None = None
    distribution: str | None = None
    libc: str | None = None
    # Name of the hypervisor under us, "none" on bare metal.
    hypervisor: str | None = None
    clock_source: str | None = None
    # "v1", "hybrid" or "v2"
    cgroup_mode: str | None = None
    cgroup_controllers: tuple[str, ...] = ()
    transparent_huge_pages: str | None = None
    is_ksm_active: bool | None = None
    # {weakness: what the kernel does about it}
    mitigations: Mapping[str, str] = field(default_factory=dict)
    python: str | None = None
    is_root: bool | None = None
    state_filesystem: str | None = None
    # Further facts under names that carry their unit.
    extra: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits, equal for runs whose numbers may be laid side by side.

        Made of what a restart with the same configuration does not change.
        """
        facts = [
            self.architecture,
            self.cpu_model,
            self.cpu_count,
            self.cpu_microcode,
            self.cpu_governor,
            self.is_smt_active,
            self.is_turbo_enabled,
            self.memory_bytes,
            self.kernel,
            self.hypervisor,
            self.cgroup_mode,
            self.transparent_huge_pages,
            sorted(self.mitigations.items()),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
