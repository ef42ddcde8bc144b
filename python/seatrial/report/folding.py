"""Findings of a kind as one line: twenty of a kind must not push the numbers off a screen."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.model.finding import FINDING_CODES, Finding, Severity

if TYPE_CHECKING:
    from collections.abc import Sequence

#: As many places are named where there is one line for all of them.
PLACES_MAX: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Findings with the same message."""

    message: str
    members: tuple[Finding, ...]

    @property
    def about(self) -> str:
        """The drivers that it is about, or the run."""
        return ", ".join(dict.fromkeys(one.driver or "the run" for one in self.members))

    @property
    def told(self) -> str:
        """The message, and how often it came if that is not told by the drivers."""
        count = len(self.members)
        is_told = count == len({one.driver for one in self.members})
        return self.message if is_told else f"{self.message} ({count} times)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Findings of one code and severity, in their order; nothing is left out of it."""

    code: str
    severity: Severity
    members: tuple[Finding, ...]

    @property
    def is_single(self) -> bool:
        """Whether there is nothing to fold."""
        return len(self.members) == 1

    @property
    def first(self) -> Finding:
        """The one that is told in full."""
        return self.members[0]

    @property
    def is_told_whole(self) -> bool:
        """Whether each reason has its line.

        An error makes other numbers unusable, for a reason of its own; a warning that concerns a
        runtime or the run as a whole is rare, and would say nothing without its reason.
        """
        if self.is_single or self.severity is Severity.ERROR:
            return True
        if self.severity is Severity.INFO:
            return False
        drivers = {one.driver for one in self.members}
        return len(drivers) == len(self.members) and not any(map(_point, self.members))

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Each message once, with those that it is about."""
        found: dict[str, list[Finding]] = {}
        for one in self.members:
            found.setdefault(one.message, []).append(one)
        return tuple(Reason(message=message, members=tuple(found[message])) for message in found)

    @property
    def meaning(self) -> str:
        """What the code means, whatever the numbers are."""
        return FINDING_CODES[self.code]

    @property
    def drivers(self) -> dict[str, int]:
        """How many findings are about each driver; those about the run as a whole left out."""
        return dict(Counter(one.driver for one in self.members if one.driver))

    @property
    def places(self) -> str:
        """Where they were found, the first few by name."""
        known = dict.fromkeys(_place(one) for one in self.members)
        named = [place for place in known if place]
        rest = len(named) - PLACES_MAX
        shown = named if rest <= 0 else [*named[:PLACES_MAX], f"and {rest} more"]
        return ", ".join(shown)


def fold(findings: Sequence[Finding]) -> tuple[Fold, ...]:
    """Puts findings of the same code and severity together, in the order of the first of each."""
    groups: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings:
        groups.setdefault((finding.severity, finding.code), []).append(finding)
    return tuple(
        Fold(code=code, severity=severity, members=tuple(members))
        for (severity, code), members in groups.items()
    )


def _place(finding: Finding) -> str:
    return f"{finding.driver or ''} {_point(finding)}".strip()


def _point(finding: Finding) -> str:
    """The key of the point, which the analysis puts before the message of a trial."""
    key, colon, _ = finding.message.partition(": ")
    return key if colon and "=" in key else ""
