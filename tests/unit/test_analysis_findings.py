"""Findings of a run as a whole: which trials they speak for, and what they are made of."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pytest

from seatrial.analysis.evidence import TrialEvidence
from seatrial.analysis.judge import judge_run
from seatrial.analysis.summarise import summarise
from seatrial.analysis.worst import merge_alike
from seatrial.benches.base import Group
from seatrial.model.finding import Finding, Severity
from seatrial.model.plan import Point, TrialSpec
from seatrial.model.trial import TrialOutcome, TrialStatus
from seatrial.stats.validity import check_starts
from seatrial.store.journal import Event, EventKind
from seatrial.store.run_store import RunStore
from tests.support.requests import manifest, small_plan
from tests.support.synthetic import Script, experiment, make_run

if TYPE_CHECKING:
    from pathlib import Path

POINT = Point(bench="start", values={"concurrency": 4})


def _failures(trial_id: str, failed: int) -> Finding:
    found = check_starts(
        failed_count=failed,
        starts_count=8,
        reason=f"{failed} exited",
        trial_id=trial_id,
        driver="runc",
    )
    assert found is not None
    return found


def _trial(block: int, **parts: object) -> TrialEvidence:
    spec = TrialSpec(
        trial_id=f"t{block:04d}", index=block, block=block, driver="runc", point=POINT, seed=1
    )
    empty = TrialEvidence(
        spec=spec,
        status=TrialStatus.OK,
        reason=None,
        findings=(),
        samples={("start_first_byte_ns", Group.MEASURED): np.array([1.0])},
        sentinel_ns=(),
        foreign_cpu_ratios=(),
        steal_ratios=(),
    )
    return dataclasses.replace(empty, **parts)  # type: ignore[arg-type]  # fields by name


def _judge(*trials: TrialEvidence) -> dict[str, Finding]:
    found = judge_run(trials, (), headlines={}, confidence=0.95)
    return {finding.code: finding for finding in found}


def test_the_worst_of_merged_findings_is_shown_with_the_sums() -> None:
    """One failed start in the first trial does not hide seven in the third."""
    alike = [_failures(f"t{number}", failed) for number, failed in enumerate((1, 1, 7))]
    (found,) = merge_alike((POINT.key, one) for one in alike)
    assert "7 of 8 starts failed" in found.message
    assert "the worst of 3 such findings; 9 of 24 starts in all" in found.message
    assert (found.trial_id, found.evidence["failed_count"]) == ("t2", 7)
    assert found.evidence["failed_total_count"] == 9
    assert (found.evidence["findings_count"], found.evidence["trials_count"]) == (3, 3)


def test_what_says_something_else_is_not_merged() -> None:
    """Two degradations of one driver stay two; other points and drivers stay apart as well."""
    limits = Finding(code="degraded", severity=Severity.INFO, message="no limits", driver="runc")
    clock = dataclasses.replace(limits, message="coarse clock")
    other = dataclasses.replace(limits, driver="bwrap")
    merged = merge_alike(
        [("a", limits), ("a", clock), ("a", limits), ("b", limits), ("a", other)],
    )
    assert [one.message for one in merged] == [
        "a: no limits (one of 2 such findings)",
        "a: coarse clock",
        "b: no limits",
        "a: no limits",
    ]


def test_a_cold_first_round_is_found_at_any_concurrency() -> None:
    """Batches of four: the first round of each block takes twice as long as the later ones."""
    rounds = (2.0, 1.0, 1.01, 0.99, 1.02)
    found = _judge(*(_trial(block, round_medians_ns=rounds) for block in range(4)))
    cold = found["cold-first-round"]
    assert cold.message.startswith(f"{POINT.key}: ")
    assert cold.driver == "runc"
    assert (cold.evidence["first_count"], cold.evidence["rest_count"]) == (4, 16)


def test_rounds_are_read_from_the_table_of_starts(tmp_path: Path) -> None:
    """A script whose first rounds are slow raises the finding at concurrency 1 and 8."""
    asked = dataclasses.replace(
        experiment(drivers=("process", "runc"), blocks=3), density=None, load=None, inside=None
    )
    path = make_run(tmp_path, Script(blocks=3, cold_factor=2.0), asked=asked)
    with RunStore.open(path) as store:
        found = [one for one in summarise(store).findings if one.code == "cold-first-round"]
    places = {(one.message.partition(":")[0], one.driver) for one in found}
    assert places == {
        (f"start concurrency={count}", driver) for count in (1, 8) for driver in asked.drivers
    }


@pytest.mark.parametrize("blocks", [2, 3])
def test_drift_is_found_in_few_blocks(blocks: int) -> None:
    """A sentinel that is half as slow again in the last block is told, however few blocks."""
    trials = [
        _trial(block, sentinel_ns=tuple((1 + block) * one for one in (1.0, 1.02, 0.98, 1.01, 0.99)))
        for block in range(blocks)
    ]
    assert _judge(*trials)["drifting"].evidence["blocks_count"] == blocks


def test_degraded_drivers_are_told(tmp_path: Path) -> None:
    """What was known before the first trial stands beside the numbers, by driver."""
    known = dataclasses.replace(manifest(), degraded_drivers={"runc": "no memory limits"})
    with RunStore.create(tmp_path, known) as store:
        (found,) = [one for one in summarise(store).findings if one.code == "degraded"]
    assert (found.driver, found.message) == ("runc", "no memory limits")
    assert found.severity is Severity.WARNING


def _run_with_pause(root: Path, *, after: int) -> list[Finding]:
    plan = small_plan()
    with RunStore.create(root, manifest(plan)) as store:
        store.append(Event(kind=EventKind.RUN_STARTED))
        for number, spec in enumerate(plan.trials):
            if number == after:
                store.append(Event(kind=EventKind.RUN_RESUMED))
            store.append(Event(kind=EventKind.TRIAL_STARTED, trial_id=spec.trial_id))
            failed = TrialOutcome(
                trial_id=spec.trial_id, status=TrialStatus.FAILED, reason="scripted"
            )
            store.write_trial(failed)
        return [one for one in summarise(store).findings if one.code == "degraded"]


def test_a_block_of_two_sittings_is_told(tmp_path: Path) -> None:
    """Drivers of a block that was torn by a pause were not measured side by side."""
    per_block = len(small_plan().trials) // small_plan().experiment.blocks
    (found,) = _run_with_pause(tmp_path / "torn", after=per_block + 1)
    assert found.severity is Severity.INFO
    assert found.evidence["block"] == 1
    assert "ratios of that block are from two sittings" in found.message
    assert _run_with_pause(tmp_path / "between", after=per_block) == []
