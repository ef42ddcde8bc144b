"""A benchmark is a set of rounds; in each, all contenders run in turn, so all see the same minutes.

The order is turned round from round to round (A B, B A), so that a machine that slowly gets faster
or slower favours nobody. Each round gives each contender one value of each figure; a comparison is
the ratio of the medians over the rounds, with an interval that resamples whole rounds.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from benchmarks.rows import CONFIDENCE, Row, Target, interval_text, median_bounds
from benchmarks.tools import ROOT
from seatrial.errors import SeatrialError
from seatrial.model.estimate import NotAvailable
from seatrial.stats.ratio import median_ratio_interval
from seatrial.units import NS_PER_MS, NS_PER_US

if TYPE_CHECKING:
    from benchmarks.quiet import Quiet

#: What one run of one contender gave: numbers by name, their units in the names.
Figures: TypeAlias = Mapping[str, float]
#: Turns a median into text.
Shown: TypeAlias = Callable[[float], str]

REASON_CHARS_MAX = 160
#: Above it, three digits would hide some.
THREE_DIGITS_MAX = 999.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run of one contender."""

    figures: Figures
    foreign_cpus: float
    """Processors that others kept busy meanwhile, on average."""


@dataclass(slots=True, kw_only=True)
class Side:
    """All runs of one contender, or why it has none."""

    runs: list[Run] = field(default_factory=list)
    trouble: str = ""

    def values(self, figure: str) -> list[float]:
        """Returns one value a round."""
        return [run.figures[figure] for run in self.runs]

    def median_text(self, figure: str, shown: Shown) -> str:
        """Returns the median over the rounds, or why there is none."""
        if self.trouble:
            return f"none: {self.trouble}"
        return shown(statistics.median(self.values(figure)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contest:
    """What every contender gave in every round."""

    sides: Mapping[str, Side]

    def foreign(self, *names: str) -> str:
        """Returns what others kept busy in the worst run of the named contenders."""
        runs = [run for name in names for run in self.sides[name].runs]
        return f"{max(run.foreign_cpus for run in runs):.2f}" if runs else ""

    def ratio(
        self,
        what: Row,
        figure: str,
        *,
        ours: str,
        theirs: str,
        shown: Shown,
        target: Target | None,
        inverse: bool = False,
    ) -> Row:
        """Returns the row of a comparison: ours over theirs, or theirs over ours if `inverse`."""
        one, two = self.sides[ours], self.sides[theirs]
        filled = self._row(what, ours, theirs, target)
        filled["ours"] = one.median_text(figure, shown)
        filled["theirs"] = f"{theirs}: {two.median_text(figure, shown)}"
        if one.trouble or two.trouble:
            return Row(**filled, ratio="", verdict="not measured")
        top, bottom = ([[value] for value in side.values(figure)] for side in (one, two))
        if inverse:
            top, bottom = bottom, top
        estimate = median_ratio_interval(top, bottom, confidence=CONFIDENCE)
        if isinstance(estimate, NotAvailable):
            return Row(**filled, ratio=estimate.reason, verdict="not measured")
        verdict = target.verdict(estimate.low, estimate.high) if target else ""
        return Row(**filled, ratio=interval_text(estimate), verdict=verdict)

    def bound(
        self,
        what: Row,
        figure: str,
        *,
        ours: str,
        reference: str | None = None,
        shown: Shown,
        scale: float,
        target: Target | None,
    ) -> Row:
        """Returns the row of a value of ours against a fixed bound, the reference beside it.

        `scale` is what one unit of the target is in the unit of the figure.
        """
        one = self.sides[ours]
        filled = self._row(what, ours, reference, target)
        filled["ours"] = one.median_text(figure, shown)
        if reference is not None:
            filled["theirs"] = f"{reference}: {self.sides[reference].median_text(figure, shown)}"
        if one.trouble:
            return Row(**filled, verdict="not measured")
        values = one.values(figure)
        bounds = median_bounds(values)
        if bounds is None:
            return Row(**filled, ratio="n/a (need >= 6 rounds)", verdict="not measured")
        low, high = bounds
        filled["ours"] += f" [{shown(low)} .. {shown(high)}]"
        verdict = target.verdict(low / scale, high / scale) if target else ""
        return Row(**filled, verdict=verdict)

    def _row(
        self, what: Row, ours: str, theirs: str | None, target: Target | None
    ) -> dict[str, str]:
        names = (ours,) if theirs is None else (ours, theirs)
        return {
            "id": what.id,
            "name": what.name,
            "target": target.text() if target else "",
            "foreign": self.foreign(*names),
            "date": what.date,
        }


def contest(
    contenders: Mapping[str, Callable[[], Figures]], *, rounds: int, quiet: Quiet
) -> Contest:
    """Runs all contenders in each round, in turned order; who fails is out, with its reason."""
    sides = {name: Side() for name in contenders}
    for number in range(rounds):
        for name in order(list(contenders), number):
            side = sides[name]
            if side.trouble:
                continue
            try:
                side.runs.append(quiet.measure(contenders[name]))
            except SeatrialError as error:
                side.trouble = one_line(str(error))
    return Contest(sides=sides)


def order(names: Sequence[str], round_number: int) -> list[str]:
    """Returns the names as they are in even rounds, turned round in odd ones."""
    return list(names) if round_number % 2 == 0 else list(reversed(names))


def one_line(text: str) -> str:
    """Returns a reason short enough for a cell, its end kept: the cause comes last.

    Where this clone lies is nobody's business.
    """
    for folder in (str(ROOT), tempfile.gettempdir(), str(Path.home())):
        text = text.replace(f"{folder}/", "")
    flat = " ".join(text.split()).replace("|", "/")
    return flat if len(flat) <= REASON_CHARS_MAX else "..." + flat[3 - REASON_CHARS_MAX :]


def rate_text(value: float) -> str:
    """Returns a rate a second with thousands, as a reader compares it."""
    return f"{value:,.0f}/s"


def millis_text(value_ns: float) -> str:
    """Returns a duration in milliseconds."""
    value = value_ns / NS_PER_MS
    return f"{value:.3g} ms" if value < THREE_DIGITS_MAX else f"{value:,.0f} ms"


def micros_text(value_ns: float) -> str:
    """Returns a duration in microseconds."""
    value = value_ns / NS_PER_US
    return f"{value:.3g} us" if value < THREE_DIGITS_MAX else f"{value:,.0f} us"
