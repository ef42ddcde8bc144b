"""Tries of work inside of sandboxes, reduced to what judging them takes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from seatrial.benches.attempts import ATTEMPTS, FIRST, READINGS, Outcome
from seatrial.benches.inside_metrics import inside_test
from seatrial.benches.inside_probes import METRIC_OF, probe_values
from seatrial.model.experiment import InsideTest
from seatrial.model.trial import TrialStatus

if TYPE_CHECKING:
    import polars as pl

    from seatrial.model.plan import TrialSpec

INSIDE: Final = "inside"
#: Stands for all work of a trial that ended before its tries.
ALL_WORK: Final = ""
STEADY: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """One try; of a probe of the guest, the median of a trial's batches is one."""

    work: str
    position: int
    outcome: Outcome
    reason: str | None = None
    readings: Mapping[str, float] = field(default_factory=dict)
    """Values by metric."""
    device_ratios: Mapping[str, float] = field(default_factory=dict)
    """Bytes of the device over bytes of the tool, by metric, in the metric's direction."""
    is_direct: bool = False
    has_files: bool = False
    """Bytes of files are in it, whether or not a device could be asked about them."""
    route: str | None = None

    @property
    def is_first(self) -> bool:
        """Whether it is first touch."""
        return self.position == FIRST


def tries_of(
    spec: TrialSpec,
    tables: Mapping[str, pl.DataFrame],
    *,
    status: TrialStatus,
    reason: str | None,
) -> tuple[Try, ...]:
    """All tries of a trial; of one that ended badly there is one more that says so."""
    if spec.point.bench != INSIDE:
        return ()
    found = _of_probes(tables) if inside_test(spec.point) is InsideTest.PROBES else _rows(tables)
    if status is TrialStatus.OK or status is TrialStatus.INTERRUPTED:
        return found
    is_unsupported = status is TrialStatus.UNSUPPORTED
    outcome = Outcome.UNSUPPORTED if is_unsupported else Outcome.FAILED
    return (*found, Try(work=ALL_WORK, position=STEADY, outcome=outcome, reason=reason))


def _of_probes(tables: Mapping[str, pl.DataFrame]) -> tuple[Try, ...]:
    return tuple(
        Try(
            work=probe,
            position=position,
            outcome=Outcome.OK,
            readings={METRIC_OF[probe]: statistics.median(values)},
        )
        for position, is_first in ((FIRST, True), (STEADY, False))
        for probe, values in probe_values(tables, is_first=is_first).items()
    )


def _rows(tables: Mapping[str, pl.DataFrame]) -> tuple[Try, ...]:
    attempts, readings = tables.get(ATTEMPTS), tables.get(READINGS)
    if attempts is None:
        return ()
    values: dict[tuple[str, int], dict[str, float]] = {}
    if readings is not None:
        for row in readings.iter_rows(named=True):
            values.setdefault((row["work"], row["position"]), {})[row["metric"]] = row["value"]
    return tuple(
        _of_row(row, values.get((row["work"], row["position"]), {}))
        for row in attempts.iter_rows(named=True)
    )


def _of_row(row: Mapping[str, object], readings: Mapping[str, float]) -> Try:
    ratios: dict[str, float] = {}
    for metric in readings:
        side = "written" if "write" in metric else "read"
        told, seen = row[f"{side}_bytes"], row[f"device_{side}_bytes"]
        if isinstance(told, int) and isinstance(seen, int) and told > 0:
            ratios[metric] = seen / told
    reason, route = row["reason"], row["route"]
    return Try(
        work=str(row["work"]),
        position=int(str(row["position"])),
        outcome=Outcome(str(row["outcome"])),
        reason=None if reason is None else str(reason),
        readings=readings,
        device_ratios=ratios,
        is_direct=bool(row["is_direct"]),
        has_files=row["filesystem"] is not None,
        route=None if route is None else str(route),
    )
