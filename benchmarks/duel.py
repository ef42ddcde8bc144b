"""Two sides in turn, A B B A and then B A A B: each four runs are a comparison of their own.

For differences of a percent, on a machine whose speed drifts by ten within minutes. What drifts
evenly through four runs cancels out in their ratio, and what a run leaves behind for the next one
meets both sides as often. The ratio of a row is the geometric mean over the quads.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.rows import CONFIDENCE, Row, Target, interval_text
from benchmarks.series import Figures, one_line
from seatrial.errors import SeatrialError
from seatrial.model.estimate import NotAvailable
from seatrial.stats.paired import paired_ratio_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.quiet import Quiet
    from benchmarks.series import Shown

#: Positions of the first side and of the second one in an even quad; in an odd one they change.
OUTER, INNER = (0, 3), (1, 2)


@dataclass(slots=True, kw_only=True)
class Duel:
    """What two sides gave in every quad, or why there is nothing."""

    ours: str
    theirs: str
    quads: list[tuple[Figures, Figures]] = field(default_factory=list)
    foreign_cpus: list[float] = field(default_factory=list)
    trouble: str = ""

    def values(self, figure: str) -> tuple[list[float], list[float]]:
        """Returns a value a quad of ours, and of theirs."""
        ours, theirs = ([quad[side][figure] for quad in self.quads] for side in (0, 1))
        return ours, theirs

    def ratio(self, name: str, figure: str, *, shown: Shown, target: Target | None) -> Row:
        """Returns the row of ours over theirs, with its interval over the quads."""
        row = partial(Row, id="", target=target.text() if target else "")
        if self.trouble:
            return row(name=name, ours=f"none: {self.trouble}", verdict="not measured")
        ours, theirs = self.values(figure)
        row = partial(
            row,
            name=f"{name}; {len(self.quads)} quads",
            ours=shown(statistics.median(ours)),
            theirs=f"{self.theirs}: {shown(statistics.median(theirs))}",
            foreign=f"{max(self.foreign_cpus):.2f}",
        )
        estimate = paired_ratio_interval(ours, theirs, confidence=CONFIDENCE)
        if isinstance(estimate, NotAvailable):
            return row(ratio=estimate.reason, verdict="not measured")
        verdict = target.verdict(estimate.low, estimate.high) if target else ""
        return row(ratio=interval_text(estimate), verdict=verdict)


def duel(
    sides: Mapping[str, Callable[[], Figures]], *, rounds: int, quads: int, quiet: Quiet
) -> Duel:
    """Runs two sides, ours first, in quads; a round of them begins on a quiet machine.

    No quad is repeated or left out: what disturbs one disturbs both sides of it.
    """
    (ours, start_ours), (theirs, start_theirs) = sides.items()
    done = Duel(ours=ours, theirs=theirs)

    def one_round() -> Figures:
        for _ in range(quads):
            done.quads.append(_quad(start_ours, start_theirs, is_odd=len(done.quads) % 2 == 1))
        return {}

    try:
        for _ in range(rounds):
            done.foreign_cpus.append(quiet.measure(one_round).foreign_cpus)
    except SeatrialError as error:
        done.trouble = one_line(str(error))
    return done


def _quad(
    ours: Callable[[], Figures], theirs: Callable[[], Figures], *, is_odd: bool
) -> tuple[Figures, Figures]:
    outer, inner = (theirs, ours) if is_odd else (ours, theirs)
    runs = [outer(), inner(), inner(), outer()]
    of_outer, of_inner = (_middle(runs[one], runs[two]) for one, two in (OUTER, INNER))
    return (of_inner, of_outer) if is_odd else (of_outer, of_inner)


def _middle(one: Figures, two: Figures) -> Figures:
    """Geometric means of the figures of two runs."""
    return {name: math.sqrt(value * two[name]) for name, value in one.items()}
