"""Which numbers a finding is about: marks on cells, so that no table shows them without it."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from seatrial.model.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from seatrial.analysis.evidence import TrialEvidence
    from seatrial.model.summary import Cell

#: Times of requests that count from the instant at which they were due.
_RESPONSES: Final = frozenset(
    {"response_time_ns", "response_mean_ns", "send_lag_ns", "best_target_ns", "worst_target_ns"}
)
#: ... and from the instant at which they were sent.
_SERVICES: Final = frozenset({"service_time_ns", "wire_time_ns"})
_RATES: Final = frozenset({"achieved_rps", "fleet_achieved_rps", "rpc_rps", "client_rps"})
#: The metrics whose numbers a finding changes, by code, the most serious first. A saturated service
#: still tells its peak rate, and one that changed its mean rate; a generator that was late or busy
#: bends all of them.
MARKED_METRICS: Final[Mapping[str, frozenset[str]]] = {
    "generator-bound": _RESPONSES | _SERVICES | _RATES | {"answered_ratio"},
    "saturated": _RESPONSES | _SERVICES,
    "not-stationary": _RESPONSES | _SERVICES,
}


def mark_cells(cells: Iterable[Cell], trials: Iterable[TrialEvidence]) -> tuple[Cell, ...]:
    """The cells with the codes of the findings that weigh on them.

    A finding of one trial marks the numbers of its driver at its point, since they are made of all
    trials there together; remarks mark nothing.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for trial in trials:
        for finding in trial.findings:
            if finding.severity is not Severity.INFO:
                place = (trial.spec.point.key, finding.driver or trial.spec.driver)
                found.setdefault(place, set()).add(finding.code)
    return tuple(
        dataclasses.replace(cell, marks=_marks(cell, found.get((cell.point.key, cell.driver))))
        for cell in cells
    )


def _marks(cell: Cell, codes: set[str] | None) -> tuple[str, ...]:
    return tuple(
        code
        for code, metrics in MARKED_METRICS.items()
        if code in (codes or ()) and cell.metric in metrics
    )
