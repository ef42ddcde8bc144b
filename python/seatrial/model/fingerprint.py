"""What machine a number was measured on. ``seatrial.probes.fingerprint`` reads the facts."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from seatrial.model.scalar import Scalar

# The facts that a restart with the same configuration leaves alone and that move numbers; of a
# host's many facts these decide whether two runs may be laid side by side.
IDENTITY_FACTS: Final = (
    "machine",
    "cpu_model",
    "microcode",
    "processors_count",
    "processors_usable_count",
    "governor",
    "smt",
    "memory_bytes",
    "kernel",
    "hypervisor",
    "cgroup_mode",
    "transparent_hugepage",
    "mitigations",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """The facts of a host, by name; None means that a fact could not be read."""

    facts: Mapping[str, Scalar | None] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits, equal for hosts that agree on every identity fact."""
        facts = {name: self.facts.get(name) for name in IDENTITY_FACTS}
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]

    def differences(self, other: "Fingerprint") -> tuple[str, ...]:
        """The names of the identity facts on which two hosts differ."""
        return tuple(
            name for name in IDENTITY_FACTS if self.facts.get(name) != other.facts.get(name)
        )
