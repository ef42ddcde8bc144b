"""Whether the requests of an open loop left as their process has it; one rule for every load."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from seatrial.loadgen import arrival_process
from seatrial.stats.arrivals import check_arrivals, check_fixed_schedule
from seatrial.stats.scatter import MMPP, TRACE, count_dispersion, law_name
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from seatrial.stats.arrivals import ArrivalCheck

FIXED: Final = "fixed"
#: As many sends are held against the law: more would find what does not matter.
SENDS_MAX: Final = 100_000
#: If more of the requests than this had to wait for a free place, the instants at which requests
#: left are the service's doing, and say nothing about the generator.
QUEUED_SHARE_MAX: Final = 0.005


def is_service_bent(*, waited_count: int, intended_count: int) -> bool:
    """Tell whether so many requests waited for a place that their sends are not the generator's."""
    return waited_count > QUEUED_SHARE_MAX * intended_count


def check_sends(
    measured: pl.DataFrame,
    *,
    law: str,
    rate_rps: float | None,
    pattern: str,
    started_at_ns: int,
) -> ArrivalCheck | None:
    """Compare the instants of sending with the process; None when nothing was sent, and for mmpp.

    Neighbouring gaps of ``mmpp`` depend on each other, and the test is one of independent ones.

    Args:
        measured: every request of the measure phase: ``intended_at_ns``, ``sent_at_ns`` (null:
            never).
        law: of the gaps. One that says every instant beforehand (``fixed``, a trace) is held
            against those instants, in units of the gap that the rate has just then; any other by
            where its gaps lie in the law.
        rate_rps: of the process; None where the law has its own.
        pattern: how the rate changes.
        started_at_ns: when the process began.
    """
    sent = measured.filter(pl.col("sent_at_ns").is_not_null())
    sent = sent.sort("intended_at_ns").head(SENDS_MAX)
    if sent.height == 0 or law_name(law) == MMPP:
        return None
    process = arrival_process(law, rate_rps, pattern=pattern)
    if law == FIXED or law_name(law) == TRACE:
        offsets = (sent["intended_at_ns"] - started_at_ns).to_list()
        late_ns = (sent["sent_at_ns"] - sent["intended_at_ns"]).cast(pl.Float64).to_numpy()
        rates = np.array([rate or 0.0 for rate in process.rates_rps(offsets)])
        return check_fixed_schedule(late_ns * rates / NS_PER_S, mean_gap_ns=1.0, law=law)
    offsets = (sent["sent_at_ns"].sort() - started_at_ns).to_list()
    return check_arrivals(process.places(offsets), law=law)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a process has due in a stretch of time."""

    count: float
    """Arrivals, above 0."""
    dispersion: float
    """Variance over mean of their number."""


def planned_sends(
    *, law: str, rate_rps: float | None, pattern: str, start_ns: int, end_ns: int, asked_ns: int
) -> Planned | None:
    """Give what is due from one instant on until another; None where its scatter is not known.

    Args:
        law: of the gaps.
        rate_rps: of the process; None where the law has its own.
        pattern: how the rate changes.
        start_ns: begin of the stretch, since the begin of the process.
        end_ns: its end, likewise.
        asked_ns: how long it was to be: it is shorter where a trace ends in it.
    """
    if end_ns <= start_ns:
        return None
    process = arrival_process(law, rate_rps, pattern=pattern)
    if law_name(law) == TRACE:
        # Its counts are of all arrivals up to an instant. A phase does not have its last instant,
        # unless it is short because the trace ends there.
        last_ns = end_ns if end_ns - start_ns < asked_ns else end_ns - 1
        (within,) = process.expected_counts([max(0, last_ns)])
        (before,) = process.expected_counts([start_ns - 1]) if start_ns > 0 else (0.0,)
    else:
        before, within = process.expected_counts([start_ns, end_ns])
    count = within - before
    if count <= 0:
        return None
    dispersion = count_dispersion(law, rate_rps=rate_rps, expected_count=count)
    return None if dispersion is None else Planned(count=count, dispersion=dispersion)
