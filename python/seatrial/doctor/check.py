"""What a check says: a level, the evidence, what follows from it, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final, TypeAlias

#: The same as numbers, for programs; names end in their units.
Values: TypeAlias = Mapping[str, object]
NO_VALUES: Final[Values] = MappingProxyType({})


class Level(StrEnum):
    """How a check ended, the worst first."""

    BROKEN = "broken"
    """It is there and does not work."""
    MISSING = "missing"
    """It is not there."""
    WARN = "warn"
    """It works, with a consequence for the numbers."""
    UNTRIED = "untried"
    """It could not be tried, and why."""
    OK = "ok"


class Group(StrEnum):
    """What the checks are about, in the order in which they run; ``--only`` takes these names."""

    NOISE = "noise"
    HOST = "host"
    CLOCKS = "clocks"
    LIMITS = "limits"
    KERNEL = "kernel"
    CGROUPS = "cgroups"
    ISOLATION = "isolation"
    NETWORK = "network"
    STORAGE = "storage"
    TOOLS = "tools"
    LAUNCHER = "launcher"
    RUNTIMES = "runtimes"
    KVM = "kvm"
    LEFTOVERS = "leftovers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One fact about this machine and what follows from it."""

    group: Group
    name: str
    level: Level
    evidence: str
    consequence: str = ""
    fix: str = ""
    is_needed: bool = False
    """Without it what the user chose cannot run at all."""
    values: Values = field(default_factory=dict)
    elapsed_ns: int = 0
    """How long the step took that gave this check, and perhaps others."""

    @property
    def is_blocking(self) -> bool:
        """Whether it keeps the chosen runtimes from running."""
        return self.is_needed and self.level in {Level.BROKEN, Level.MISSING}


@dataclass(frozen=True, slots=True)
class About:
    """Makes the checks of one group."""

    group: Group

    def ok(self, name: str, evidence: str, *, values: Values = NO_VALUES) -> Check:
        """All is well."""
        return Check(group=self.group, name=name, level=Level.OK, evidence=evidence, values=values)

    def untried(self, name: str, evidence: str, *, fix: str = "") -> Check:
        """It could not be tried."""
        return Check(group=self.group, name=name, level=Level.UNTRIED, evidence=evidence, fix=fix)

    def warn(
        self, name: str, evidence: str, *, so: str, fix: str, values: Values = NO_VALUES
    ) -> Check:
        """It works, with a consequence."""
        return self.bad(Level.WARN, name, evidence, so=so, fix=fix, values=values)

    def missing(
        self, name: str, evidence: str, *, so: str, fix: str, values: Values = NO_VALUES
    ) -> Check:
        """It is not there."""
        return self.bad(Level.MISSING, name, evidence, so=so, fix=fix, values=values)

    def broken(
        self, name: str, evidence: str, *, so: str, fix: str, values: Values = NO_VALUES
    ) -> Check:
        """It is there and does not work."""
        return self.bad(Level.BROKEN, name, evidence, so=so, fix=fix, values=values)

    def bad(
        self,
        level: Level,
        name: str,
        evidence: str,
        *,
        so: str,
        fix: str,
        values: Values = NO_VALUES,
    ) -> Check:
        """Something is to be said, and something to be done about it."""
        return Check(
            group=self.group,
            name=name,
            level=level,
            evidence=evidence,
            consequence=so,
            fix=fix,
            values=values,
        )
