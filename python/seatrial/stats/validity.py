"""Validity: from evidence to findings, by rule, without looking at anything else.

Every limit is a named constant, printed in the message, so that a reader can disagree with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.model.finding import Finding, Severity
from seatrial.stats.drift import COLD_LIMIT_RATIO, DRIFT_LIMIT_RATIO

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.stats.drift import ColdFirstRound, Drift

#: A p99 pacing lag beyond this share of the median response time is visible in every quantile.
PACING_LAG_SHARE_MAX = 0.10
#: ... unless it is below what a timer on a general-purpose kernel can do anyway.
PACING_LAG_FLOOR_NS = 20_000
#: A target that answers less than this share of what it was offered is past its capacity; three
#: per cent is what the random count of a Poisson second allows for.
ACHIEVED_SHARE_MIN = 0.97
#: More outstanding requests at the end than this share of all of them: the queue was growing.
BACKLOG_SHARE_MAX = 0.03
#: Shares of all CPUs in a timed window.
FOREIGN_CPU_RATIO_MAX = 0.10
STEAL_RATIO_MAX = 0.02
#: Shares of the timed windows that may be noisy before the finding becomes a warning.
NOISY_WINDOWS_SHARE_MAX = 0.10


def check_generator(
    *,
    pacing_lag_ns_p99: float,
    response_time_ns_p50: float,
    trial_id: str | None = None,
    driver: str | None = None,
) -> Finding | None:
    """Generator-bound: the engine sent so late that the response times are partly its own."""
    limit_ns = max(PACING_LAG_FLOOR_NS, PACING_LAG_SHARE_MAX * response_time_ns_p50)
    if pacing_lag_ns_p99 <= limit_ns:
        return None
    return Finding(
        code="generator-bound",
        severity=Severity.WARNING,
        message=f"the p99 pacing lag is {pacing_lag_ns_p99 / response_time_ns_p50:.0%} of the "
        f"median response time (limit {PACING_LAG_SHARE_MAX:.0%}): part of the delay is our own",
        evidence={
            "pacing_lag_ns_p99": pacing_lag_ns_p99,
            "response_time_ns_p50": response_time_ns_p50,
            "limit_ns": limit_ns,
        },
        trial_id=trial_id,
        driver=driver,
    )


def check_saturation(
    *,
    offered_count: int,
    answered_count: int,
    backlog_count: int = 0,
    trial_id: str | None = None,
    driver: str | None = None,
) -> Finding | None:
    """Saturated: fewer replies than arrivals, or a queue that was still growing at the end.

    ``offered_count`` is what the schedule truly intended, not rate times duration: the number of
    Poisson arrivals is random without anyone's fault.
    """
    if offered_count == 0:
        return None
    achieved = answered_count / offered_count
    backlog = backlog_count / offered_count
    if achieved >= ACHIEVED_SHARE_MIN and backlog <= BACKLOG_SHARE_MAX:
        return None
    return Finding(
        code="saturated",
        severity=Severity.WARNING,
        message=f"{achieved:.1%} of the offered requests were answered in time (limit "
        f"{ACHIEVED_SHARE_MIN:.0%}) and {backlog:.1%} were open at the end: the load is above "
        "capacity, so delays depend on how long one measures",
        evidence={
            "offered_count": offered_count,
            "answered_count": answered_count,
            "backlog_count": backlog_count,
        },
        trial_id=trial_id,
        driver=driver,
    )


def check_noise(
    *,
    foreign_cpu_ratios: Sequence[float],
    steal_ratios: Sequence[float],
    driver: str | None = None,
) -> Finding | None:
    """Noisy-host: others used the processors in too many of the timed windows."""
    windows = max(len(foreign_cpu_ratios), len(steal_ratios))
    foreign = sum(ratio > FOREIGN_CPU_RATIO_MAX for ratio in foreign_cpu_ratios)
    stolen = sum(ratio > STEAL_RATIO_MAX for ratio in steal_ratios)
    if foreign + stolen == 0:
        return None
    is_common = max(foreign, stolen) > NOISY_WINDOWS_SHARE_MAX * windows
    worst_foreign = max(foreign_cpu_ratios, default=0.0)
    worst_steal = max(steal_ratios, default=0.0)
    return Finding(
        code="noisy-host",
        severity=Severity.WARNING if is_common else Severity.INFO,
        message=f"of {windows} timed windows, {foreign} had more than "
        f"{FOREIGN_CPU_RATIO_MAX:.0%} foreign CPU (worst {worst_foreign:.0%}) and {stolen} more "
        f"than {STEAL_RATIO_MAX:.0%} steal (worst {worst_steal:.0%})",
        evidence={
            "windows_count": windows,
            "foreign_windows_count": foreign,
            "steal_windows_count": stolen,
            "foreign_cpu_ratio_max": worst_foreign,
            "steal_ratio_max": worst_steal,
        },
        driver=driver,
    )


def check_drift(drift: Drift | None) -> Finding | None:
    """Drifting: the sentinel did not stay what it was."""
    if drift is None or not drift.is_drifting:
        return None
    return Finding(
        code="drifting",
        severity=Severity.WARNING,
        message=f"the sentinel changed by {drift.change_ratio:+.0%} from first to last block and "
        f"ranged over {drift.range_ratio:.0%} (limit {DRIFT_LIMIT_RATIO:.0%}): ratios within a "
        "block stand, absolute numbers do not",
        evidence={
            "change_ratio": drift.change_ratio,
            "change_ratio_low": drift.low_ratio,
            "change_ratio_high": drift.high_ratio,
            "range_ratio": drift.range_ratio,
            "blocks_count": drift.blocks,
        },
    )


def check_cold_first_round(
    cold: ColdFirstRound | None, *, metric: str, driver: str | None = None
) -> Finding | None:
    """Cold-first-round: the first round is slower than chance explains."""
    if cold is None or not cold.is_cold:
        return None
    return Finding(
        code="cold-first-round",
        severity=Severity.INFO,
        message=f"{metric}: first rounds took {cold.ratio:.2f} times as long as later ones (limit "
        f"{COLD_LIMIT_RATIO}, p = {cold.p_value:.1g}); they are kept in the sample",
        evidence={
            "metric": metric,
            "ratio": cold.ratio,
            "p_value": cold.p_value,
            "first_count": cold.n_first,
            "rest_count": cold.n_rest,
        },
        driver=driver,
    )


def check_sample_size(
    *, n: int, n_needed: int, what: str, driver: str | None = None
) -> Finding | None:
    """Too-few-samples: a headline number has no interval."""
    if n >= n_needed:
        return None
    return Finding(
        code="too-few-samples",
        severity=Severity.WARNING,
        message=f"{what}: {n} values where {n_needed} are needed",
        evidence={"samples_count": n, "needed_count": n_needed},
        driver=driver,
    )


def check_leftovers(
    *, leftovers: Sequence[str], trial_id: str | None = None, driver: str | None = None
) -> Finding | None:
    """Leftovers: what a trial made was still there after its teardown."""
    if not leftovers:
        return None
    shown = ", ".join(leftovers[:3]) + (" ..." if len(leftovers) > 3 else "")  # noqa: PLR2004 - as many as fit a line
    return Finding(
        code="leftovers",
        severity=Severity.ERROR,
        message=f"{len(leftovers)} left after teardown: {shown}",
        evidence={"leftovers_count": len(leftovers), "first": leftovers[0]},
        trial_id=trial_id,
        driver=driver,
    )


def check_starts(
    *,
    failed_count: int,
    starts_count: int,
    reason: str = "",
    trial_id: str | None = None,
    driver: str | None = None,
) -> Finding | None:
    """Start-failures: latencies are of the successes only, so they flatter the runtime."""
    if failed_count == 0:
        return None
    because = f"; first: {reason}" if reason else ""
    return Finding(
        code="start-failures",
        severity=Severity.ERROR,
        message=f"{failed_count} of {starts_count} starts failed: latencies are of the others "
        f"only{because}",
        evidence={"failed_count": failed_count, "starts_count": starts_count},
        trial_id=trial_id,
        driver=driver,
    )
