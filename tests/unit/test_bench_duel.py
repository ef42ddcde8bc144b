"""How two sides are compared four runs at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from benchmarks.duel import duel
from benchmarks.quiet import Quiet
from benchmarks.rows import Target
from benchmarks.series import micros_text
from benchmarks.settings import smoke
from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

TARGET = Target(must=1.03, is_upper=True)


class Machine:
    """Gets slower by a twentieth with every run, whoever's it is, and notes who ran."""

    def __init__(self) -> None:
        self.log: list[str] = []

    def side(self, name: str, takes_ns: float) -> Callable[[], Mapping[str, float]]:
        """Returns a side whose run takes this long at the beginning."""

        def run() -> dict[str, float]:
            slower = 1.05 ** len(self.log)
            self.log.append(name)
            return {"took_ns": takes_ns * slower}

        return run


def test_what_drifts_evenly_is_not_in_the_ratio(tmp_path: Path) -> None:
    """Between the first and the last run the machine has become 2.4 times slower."""
    machine = Machine()
    sides = {"ours": machine.side("a", 1020.0), "C": machine.side("b", 1000.0)}
    done = duel(sides, rounds=2, quads=3, quiet=Quiet(smoke(tmp_path)))
    assert "".join(machine.log) == "abbabaab" * 3
    row = done.ratio("a start", "took_ns", shown=micros_text, target=TARGET)
    assert (row.name, row.ratio, row.verdict) == ("a start; 6 quads", "1.02 [1.02 .. 1.02]", "met")
    assert row.theirs.startswith("C: ")
    assert row.target == "<= 1.03"
    assert float(row.foreign) >= 0


@pytest.mark.parametrize(
    ("ours", "verdict"),
    [
        ([0.98, 1.01, 1.0, 0.99], "met"),
        ([1.1, 0.9, 1.05, 0.95], "uncertain"),
        ([1.07, 1.08, 1.07, 1.06], "not met"),
    ],
)
def test_the_whole_interval_decides(tmp_path: Path, ours: list[float], verdict: str) -> None:
    """A point within the target is not enough."""
    takes = iter(value for one in ours for value in (one, one))
    sides = {"ours": lambda: {"took_ns": next(takes)}, "C": lambda: {"took_ns": 1.0}}
    done = duel(sides, rounds=1, quads=4, quiet=Quiet(smoke(tmp_path)))
    assert done.ratio("x", "took_ns", shown=micros_text, target=TARGET).verdict == verdict


def test_one_quad_is_no_comparison(tmp_path: Path) -> None:
    """It has no spread, so nothing is claimed."""
    machine = Machine()
    sides = {"ours": machine.side("a", 1.0), "C": machine.side("b", 1.0)}
    done = duel(sides, rounds=1, quads=1, quiet=Quiet(smoke(tmp_path)))
    row = done.ratio("x", "took_ns", shown=micros_text, target=TARGET)
    assert (row.ratio, row.verdict) == ("n/a (need >= 2 blocks)", "not measured")


def test_a_side_that_fails_is_told(tmp_path: Path) -> None:
    """Half a duel is none."""

    def fails() -> dict[str, float]:
        raise EnvironmentTrouble("no such\n program")

    sides = {"ours": Machine().side("a", 1.0), "C": fails}
    done = duel(sides, rounds=2, quads=2, quiet=Quiet(smoke(tmp_path)))
    row = done.ratio("x", "took_ns", shown=micros_text, target=TARGET)
    assert (row.ours, row.theirs, row.ratio) == ("none: no such program", "", "")
    assert row.verdict == "not measured"
