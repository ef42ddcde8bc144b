"""What speaks against a load is named by its code, most serious first."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from seatrial.analysis.worst import merge_alike
from seatrial.model.finding import Severity
from seatrial.stats.arrivals import check_arrivals, check_rate
from seatrial.stats.converge import ConvergeVerdict, Decision
from seatrial.stats.independence import check_independence
from seatrial.stats.stationarity import check_stationarity
from seatrial.stats.verdict import LoadEvidence, judge_load_run

US = 1000.0
MS = 1_000_000
FINE = LoadEvidence(
    planned_count=100_000,
    sent_count=100_000,
    answered_count=99_990,
    backlog_before_count=4,
    backlog_after_count=10,
    offered_between_count=50_000,
    mean_gap_ns=100 * US,
    pacing_lag_ns={"p50": 0.1 * US, "p99": 15 * US},
    response_time_ns={"p50": 80 * US, "p99": 250 * US},
)


def test_a_load_that_went_well_is_ok() -> None:
    """Nothing is found, and the verdict says ok."""
    verdict = judge_load_run(FINE)
    assert verdict.findings == ()
    assert verdict.codes == ("ok",)
    assert verdict.is_ok


def test_82_thousand_offered_and_63_thousand_served() -> None:
    """R3: the case that the original tool printed without a word."""
    verdict = judge_load_run(
        LoadEvidence(planned_count=82_000, sent_count=80_048, answered_count=63_019)
    )
    assert verdict.codes == ("saturated",)
    (found,) = verdict.findings
    assert "63019 of 80048 sent requests were answered (78.7%, limit 99%)" in found.message
    assert "82000 were planned" in found.message
    assert found.evidence == {
        "answered_count": 63_019,
        "sent_count": 80_048,
        "planned_count": 82_000,
    }


@pytest.mark.parametrize(("p99_ns", "codes"), [(49 * MS, ("ok",)), (51 * MS, ("saturated",))])
def test_lost_requests_are_no_saturation(p99_ns: int, codes: tuple[str, ...]) -> None:
    """5 % are lost by a fast service; one that is full answers just before the time-out."""
    lossy = dataclasses.replace(
        FINE, answered_count=95_000, timeout_ns=100 * MS, response_time_ns={"p99": p99_ns}
    )
    assert judge_load_run(lossy).codes == codes


def test_a_service_that_answers_nothing_is_not_cleared() -> None:
    """Without a reply nobody knows whether requests wait or are lost."""
    dead = dataclasses.replace(FINE, answered_count=0, timeout_ns=100 * MS, response_time_ns={})
    assert judge_load_run(dead).codes == ("saturated",)


def test_a_growing_backlog_is_saturation() -> None:
    """Also when nearly all was answered at last, in the drain."""
    verdict = judge_load_run(
        dataclasses.replace(FINE, backlog_before_count=2000, backlog_after_count=4000)
    )
    assert verdict.codes == ("saturated",)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sent_count": 98_000, "answered_count": 97_900}, "98000 of 100000 planned"),
        ({"pacing_lag_ns": {"p99": 60 * US}}, "p99 pacing lag is 24%"),
        ({"pacing_lag_ns": {"p50": 25 * US}}, "p50 pacing lag is 31%"),
        (
            {
                "pacing_lag_ns": {"p99": 150 * US},
                "mean_gap_ns": 1000 * US,
                "response_time_ns": {"p99": 2000 * US},
            },
            "15% of the mean gap",
        ),
    ],
)
def test_generator_bound(change: dict[str, object], words: str) -> None:
    """R3: not sent, late beside the response, or late beside the gap."""
    verdict = judge_load_run(dataclasses.replace(FINE, **change))
    assert verdict.codes == ("generator-bound",)
    assert any(words in one.message for one in verdict.findings)


@pytest.mark.parametrize(
    "change",
    [
        # 15 us are late beside a gap of 20 us, and less than any timer can promise.
        {"mean_gap_ns": 20 * US},
        # 200 us bend the gaps, but 10 ms of response time hardly feel it.
        {"pacing_lag_ns": {"p99": 200 * US}, "response_time_ns": {"p99": 10_000 * US}},
        # What found no free place was not held back by the generator.
        {"sent_count": 90_000, "answered_count": 89_900, "blocked_count": 10_000},
    ],
)
def test_not_generator_bound(change: dict[str, object]) -> None:
    """Lags that no number shows, and requests that the service held back."""
    assert judge_load_run(dataclasses.replace(FINE, **change)).codes == ("ok",)


def test_arrivals_and_rate() -> None:
    """R17: sends that do not follow the configured process are the generator's fault."""
    rng = np.random.default_rng(1)
    bent = check_arrivals(rng.random(5000) ** 1.5, law="poisson")
    slow = check_rate(planned_rps=1000, sent_count=9000, duration_ns=10**10)
    found = judge_load_run(dataclasses.replace(FINE, arrivals=bent, rate=slow)).findings
    assert [one.code for one in found] == ["generator-bound", "generator-bound"]
    assert "as the poisson process has it" in found[0].message
    assert found[0].evidence["gaps_count"] == 5000
    assert "900 /s were sent where 1.00 k/s were planned" in found[1].message
    kept = check_arrivals(rng.random(5000), law="poisson")
    assert judge_load_run(dataclasses.replace(FINE, arrivals=kept)).is_ok


def test_course_and_dependence() -> None:
    """A slide is not-stationary; dependence is a remark unless the intervals ignore it."""
    rng = np.random.default_rng(2)
    slide = rng.exponential(size=20_000) * np.linspace(1, 2, 20_000)
    steady = np.repeat(rng.exponential(size=4000), 5)
    evidence = dataclasses.replace(
        FINE, stationarity=check_stationarity(slide), independence=check_independence(steady)
    )
    verdict = judge_load_run(evidence)
    assert verdict.codes == ("not-stationary",)
    assert [one.code for one in verdict.findings] == ["not-stationary", "not-independent"]
    assert "p = " in verdict.findings[0].message
    remark = verdict.findings[1]
    assert remark.severity is Severity.INFO
    assert "the intervals allow for it; at lag 5 they are independent" in remark.message
    assert remark.evidence["thinning"] == 5
    bare = dataclasses.replace(evidence, stationarity=None, is_dependence_corrected=False)
    assert judge_load_run(bare).codes == ("not-independent",)


def test_a_large_change_is_told_as_a_factor() -> None:
    """Nobody reads 99900 %."""
    slide = np.random.default_rng(4).exponential(size=20_000) * np.geomspace(1, 1000, 20_000)
    found = judge_load_run(dataclasses.replace(FINE, stationarity=check_stationarity(slide)))
    assert "windows range over a factor of" in found.findings[0].message


def test_all_at_once_are_in_order_of_weight() -> None:
    """Generator first: if it was late, the rest may be its doing."""
    rng = np.random.default_rng(3)
    slide = np.repeat(rng.exponential(size=4000), 5) * np.linspace(1, 2, 20_000)
    verdict = judge_load_run(
        dataclasses.replace(
            FINE,
            answered_count=50_000,
            pacing_lag_ns={"p99": 1000 * US},
            stationarity=check_stationarity(slide),
            independence=check_independence(slide),
            is_dependence_corrected=False,
            convergence=Decision(verdict=ConvergeVerdict.BUDGET, reason="p99: too wide"),
        )
    )
    assert verdict.codes == (
        "generator-bound",
        "saturated",
        "not-stationary",
        "not-independent",
        "not-converged",
    )
    assert verdict.findings[-1].message == "budget: p99: too wide"
    assert not verdict.is_ok


def test_what_converged_is_no_finding() -> None:
    """Only a goal that was missed speaks against the numbers."""
    done = Decision(verdict=ConvergeVerdict.CONVERGED, reason="p99=2% reached")
    assert judge_load_run(dataclasses.replace(FINE, convergence=done)).is_ok


def test_findings_of_several_trials_become_the_worst() -> None:
    """Two saturated trials at one point are one finding, that with the smaller answered share."""
    loads = [
        LoadEvidence(planned_count=1000, sent_count=1000, answered_count=answered)
        for answered in (900, 500)
    ]
    found = [("open", one) for load in loads for one in judge_load_run(load).findings]
    (merged,) = merge_alike(found)
    assert merged.evidence["answered_count"] == 500
    assert merged.evidence["findings_count"] == 2
