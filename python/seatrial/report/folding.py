"""Findings of one code as one line: twenty of a kind must not push the numbers off a screen."""

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
    """Driver and point; the analysis puts the key of the point before the message of a trial."""
    key, colon, _ = finding.message.partition(": ")
    point = key if colon and "=" in key else ""
    return f"{finding.driver or ''} {point}".strip()
