"""Where a run has no number at all, and why: a gap is told as such, never drawn as a zero."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.model.summary import Gap
from seatrial.model.trial import TrialStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.analysis.evidence import TrialEvidence
    from seatrial.model.plan import Plan

#: The status of a point whose trials have not begun.
NOT_RUN: Final = "not-run"


def find_gaps(plan: Plan, trials: Sequence[TrialEvidence]) -> tuple[Gap, ...]:
    """Every driver and point of the plan without one good trial, in the order of points.

    The reason is that of the first of its trials that has one.
    """
    ended: dict[tuple[str, str], list[TrialEvidence]] = {}
    for trial in trials:
        ended.setdefault((trial.spec.point.key, trial.spec.driver), []).append(trial)
    planned = {(spec.point.key, spec.driver) for spec in plan.trials}
    found: list[Gap] = []
    for point in plan.points:
        for driver in plan.drivers:
            own = ended.get((point.key, driver), [])
            is_missing = (point.key, driver) in planned
            if not is_missing or any(trial.status is TrialStatus.OK for trial in own):
                continue
            status = own[0].status.value if own else NOT_RUN
            reasons = [trial.reason for trial in own if trial.reason]
            found.append(
                Gap(
                    point=point,
                    driver=driver,
                    status=status,
                    reason=reasons[0] if reasons else _plain(status),
                )
            )
    return tuple(found)


def _plain(status: str) -> str:
    return "the run was stopped before it" if status == NOT_RUN else f"its trials are {status}"
