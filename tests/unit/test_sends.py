"""The sends of an open loop against their process, whatever kept the records."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from seatrial.benches.sends import check_sends, is_service_bent
from seatrial.loadgen import arrivals

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.stats.arrivals import ArrivalCheck

STARTED_AT_NS = 77_000
RATE_RPS = 1000.0
PATTERN = "spike:at=1s,for=60s,factor=10"
MILLISECOND_NS = 1_000_000


def sends(pattern: str, late_ns: int, law: str = "fixed") -> pl.DataFrame:
    """Requests that all left so much after they were due."""
    due = [STARTED_AT_NS + at for at in arrivals(law, RATE_RPS, seed=1, n=6000, pattern=pattern)]
    return pl.DataFrame({"intended_at_ns": due, "sent_at_ns": [at + late_ns for at in due]})


def fixed_check(pattern: str, late_ns: int) -> ArrivalCheck:
    """What is said of a fixed schedule when every request leaves so much later."""
    check = check_sends(
        sends(pattern, late_ns),
        law="fixed",
        rate_rps=RATE_RPS,
        pattern=pattern,
        started_at_ns=STARTED_AT_NS,
    )
    assert check is not None
    return check


def test_lateness_counts_in_gaps_of_the_rate_at_that_time() -> None:
    """Half a millisecond is half a gap at 1000 a second, and five at ten times as many."""
    for pattern, gaps in (("fixed", 0.5), (PATTERN, 5.0)):
        assert fixed_check(pattern, 0).is_kept
        late = fixed_check(pattern, MILLISECOND_NS // 2)
        assert late.statistic == pytest.approx(gaps)
        assert late.is_kept is False


def test_a_trace_is_held_against_its_instants_under_its_own_name(tmp_path: Path) -> None:
    """Half of its mean gap late is too late, and the verdict does not call it a fixed schedule."""
    trace = tmp_path / "trace"
    trace.write_text("".join(f"{at * MILLISECOND_NS}\n" for at in range(100)), "utf-8")
    law = f"trace:{trace}"
    due = [STARTED_AT_NS + at * MILLISECOND_NS for at in range(100)]
    late = [at + MILLISECOND_NS // 2 for at in due]
    check = check_sends(
        pl.DataFrame({"intended_at_ns": due, "sent_at_ns": late}),
        law=law,
        rate_rps=None,
        pattern="fixed",
        started_at_ns=STARTED_AT_NS,
    )
    assert check is not None
    assert (check.law, check.is_kept) == (law, False)
    assert check.statistic == pytest.approx(0.5)


def test_a_law_is_known_by_its_gaps() -> None:
    """All sends late by the same are still a Poisson process; evenly spaced ones are none."""
    late = sends("fixed", MILLISECOND_NS, law="poisson")
    for frame, is_kept in ((late, True), (sends("fixed", 0), False)):
        check = check_sends(
            frame, law="poisson", rate_rps=RATE_RPS, pattern="fixed", started_at_ns=STARTED_AT_NS
        )
        assert check is not None
        assert check.is_kept is is_kept


def test_what_was_never_sent_is_no_arrival() -> None:
    """Nothing to look at is no answer, neither good nor bad."""
    frame = sends("fixed", 0).with_columns(sent_at_ns=pl.lit(None, dtype=pl.Int64))
    found = check_sends(
        frame, law="fixed", rate_rps=RATE_RPS, pattern="fixed", started_at_ns=STARTED_AT_NS
    )
    assert found is None


def test_a_few_waits_are_allowed() -> None:
    """Half a percent (METHODOLOGY 5)."""
    assert not is_service_bent(waited_count=5, intended_count=1000)
    assert is_service_bent(waited_count=6, intended_count=1000)


def test_dependent_gaps_are_not_judged() -> None:
    """Gaps of an mmpp come in clusters, which a test of independent ones takes for another law."""
    law = "mmpp:factor=5,burst=10,calm=100"
    found = check_sends(
        sends("fixed", 0, law=law),
        law=law,
        rate_rps=RATE_RPS,
        pattern="fixed",
        started_at_ns=STARTED_AT_NS,
    )
    assert found is None
