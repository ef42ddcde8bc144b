"""How benchmarks are interleaved, compared, judged and written down."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from benchmarks import page
from benchmarks.audit import distances
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target, median_bounds
from benchmarks.series import Contest, Run, Side, contest, micros_text, one_line, order, rate_text
from benchmarks.settings import smoke
from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

WHAT = Row(id="T0", name="a thing")


def side(values: Sequence[float]) -> Side:
    """A contender that gave these values, undisturbed."""
    return Side(runs=[Run(figures={"rate_rps": value}, foreign_cpus=0.01) for value in values])


def compared(ours: Sequence[float], theirs: Sequence[float], target: Target) -> Row:
    """The row of a comparison."""
    done = Contest(sides={"ours": side(ours), "C": side(theirs)})
    return done.ratio(WHAT, "rate_rps", ours="ours", theirs="C", shown=rate_text, target=target)


def test_the_order_is_turned_round_from_round_to_round() -> None:
    """A B, then B A: what slowly changes favours nobody."""
    assert [order(["a", "b", "c"], number) for number in range(3)] == [
        ["a", "b", "c"],
        ["c", "b", "a"],
        ["a", "b", "c"],
    ]


def test_a_contest_runs_in_turn_and_survives_who_fails(tmp_path: Path) -> None:
    """Who fails is out with the reason, and the others go on."""
    log = []

    def works() -> dict[str, float]:
        log.append("works")
        return {"rate_rps": float(len(log))}

    def fails() -> dict[str, float]:
        log.append("fails")
        raise EnvironmentTrouble("no such\n program")

    done = contest({"works": works, "fails": fails}, rounds=3, quiet=Quiet(smoke(tmp_path)))
    assert log == ["works", "fails", "works", "works"]
    assert done.sides["works"].values("rate_rps") == [1, 3, 4]
    assert done.sides["fails"].trouble == "no such program"
    row = done.ratio(
        WHAT, "rate_rps", ours="works", theirs="fails", shown=rate_text, target=Target(must=1)
    )
    assert (row.ours, row.theirs) == ("3/s", "fails: none: no such program")
    assert (row.ratio, row.verdict) == ("", "not measured")


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        ([200, 201, 202, 203, 204, 205], "met, stretch too"),
        ([110, 111, 110, 111, 110, 111], "met"),
        ([90, 130, 95, 125, 100, 80], "uncertain"),
        ([50, 51, 50, 51, 50, 51], "not met"),
    ],
)
def test_a_ratio_is_judged_by_its_whole_interval(ours: list[float], expected: str) -> None:
    """The point alone decides nothing."""
    row = compared(ours, [100] * 6, Target(must=1, stretch=1.5))
    assert row.verdict == expected
    assert row.target == ">= 1 (stretch 1.5)"
    assert row.foreign == "0.01"


def test_one_round_has_no_interval_and_no_verdict() -> None:
    """Nothing is claimed of a single run."""
    row = compared([300], [100], Target(must=1))
    assert (row.ratio, row.verdict) == ("n/a (need >= 2 blocks)", "not measured")


def test_the_inverse_is_theirs_over_ours() -> None:
    """For times, where less is better, the ratio says how many times lower ours is."""
    done = Contest(sides={"ours": side([10.0] * 6), "C": side([50.0] * 6)})
    row = done.ratio(
        WHAT,
        "rate_rps",
        ours="ours",
        theirs="C",
        shown=micros_text,
        target=None,
        inverse=True,
    )
    assert row.ratio.startswith("5 [")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, 2, 3, 4, 5, 6], "met"),
        ([1, 2, 3, 4, 5, 9], "uncertain"),
        ([8, 9, 8, 9, 8, 9], "not met"),
        ([1, 2, 3, 4, 5], "not measured"),
    ],
)
def test_a_bound_is_judged_by_the_interval_of_the_median(
    values: list[float], expected: str
) -> None:
    """Six rounds are the fewest with a 95 % interval; its ends are then the extremes."""
    done = Contest(sides={"ours": side([value * 1000 for value in values])})
    row = done.bound(
        WHAT,
        "rate_rps",
        ours="ours",
        shown=micros_text,
        scale=1000,
        target=Target(must=6, is_upper=True, unit=" us"),
    )
    assert row.verdict == expected


def test_the_interval_of_a_median_needs_six_values() -> None:
    """2 * 2**-5 is more than 5 %, 2 * 2**-6 is less."""
    assert median_bounds([1, 2, 3, 4, 5]) is None
    assert median_bounds([6, 1, 5, 2, 4, 3]) == (1, 6)


def test_a_reason_fits_into_a_cell(tmp_path: Path) -> None:
    """The end is kept, since the cause comes last; bars would break the table."""
    text = one_line(f"{tmp_path}/x\n" + "a | b " * 100 + "the cause")
    assert len(text) == 160
    assert text.endswith("the cause")
    assert "|" not in text
    assert str(tmp_path) not in one_line(f"{tmp_path}/x failed")


def test_families_that_were_not_measured_stay_on_the_page() -> None:
    """A run of one family leaves the others' tables as they were."""
    row = Row(id="T1", name="a thing", ours="1/s", verdict="met", date="2026-01-02")
    old = {"One": page.family_text([row], how="6 rounds.", versions={"wrk": "4.1"}), "Two": "old\n"}
    sections = {"First": ["One"], "Second": ["Two", "Three"]}
    first = page.whole(sections, old)
    assert "Beside wrk 4.1." in first
    assert "| T1 | a thing | 1/s |  |  |  | met |  | 2026-01-02 |" in first
    kept = page.read_families(first)
    assert kept["One"].strip() == old["One"].strip()
    second = page.whole(sections, kept | {"Two": "new\n"})
    assert second == first.replace("old\n", "new\n")


def test_the_distance_from_a_comb(tmp_path: Path) -> None:
    """A steady delay is no lateness, and order of arrival does not matter."""
    settings = replace(smoke(tmp_path), seconds=1.0, warm_up=0.0)
    comb = [5_000_000 + 1_000_000 * number for number in range(1000)]
    assert distances(comb, rate_rps=1000, settings=settings) == {
        "distance_p50_ns": 0,
        "distance_p99_ns": 0,
    }
    late = [at + (70_000 if number % 20 == 3 else 0) for number, at in enumerate(comb)]
    found = distances(late[::-1], rate_rps=1000, settings=settings)
    assert found == {"distance_p50_ns": 0, "distance_p99_ns": 70_000}


def test_too_few_arrivals_are_another_rate(tmp_path: Path) -> None:
    """A client that did not keep the rate gets no distance from its comb."""
    settings = replace(smoke(tmp_path), seconds=1.0, warm_up=0.0)
    with pytest.raises(EnvironmentTrouble, match="899 requests came, expected 1000"):
        distances(list(range(899)), rate_rps=1000, settings=settings)
