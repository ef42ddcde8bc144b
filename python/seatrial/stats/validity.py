"""Validity: from evidence to findings, by rule, without looking at anything else.

Every limit is a named constant, printed in the message, so that a reader can disagree with it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from seatrial.model.finding import Finding, Severity
from seatrial.stats.drift import COLD_LIMIT_RATIO, DRIFT_LIMIT_RATIO
from seatrial.stats.rounds import (
    FIRST_ROUND_RATIO_HIGH,
    FIRST_ROUND_RATIO_LOW,
    TREND_CHANGE_RATIO_MIN,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from seatrial.stats.drift import ColdFirstRound, Drift
    from seatrial.stats.storms import FirstRounds, TrialsTrend

#: A pacing lag beyond this share of the response time at the same quantile distorts that quantile.
PACING_LAG_SHARE_MAX = 0.20
#: ... unless it is below what a timer on a general-purpose kernel can do anyway.
PACING_LAG_FLOOR_NS = 20_000
#: More requests left unanswered in the second half of a phase than this share of those due in it:
#: the queue was growing.
BACKLOG_SHARE_MAX = 0.03
#: Fewer replies than this share of the requests that were due in the same time: overload.
ANSWERED_SHARE_MIN = 0.99
#: An engine thread that is busier than this has no idle time left to prove that it kept up.
GENERATOR_CPU_SHARE_MAX = 0.90
#: Shares of all CPUs in a timed window.
FOREIGN_CPU_RATIO_MAX = 0.10
STEAL_RATIO_MAX = 0.02
#: Shares of the timed windows that may be noisy before the finding becomes a warning.
NOISY_WINDOWS_SHARE_MAX = 0.10


def check_generator(
    *,
    quantile: str,
    pacing_lag_ns: float,
    response_time_ns: float,
    trial_id: str | None = None,
    driver: str | None = None,
) -> Finding | None:
    """Generator-bound: the engine's own lateness is a visible part of the response time.

    Like is compared with like: the lag's p50 with the p50 that users see, its p99 with the p99.
    """
    limit_ns = max(PACING_LAG_FLOOR_NS, PACING_LAG_SHARE_MAX * response_time_ns)
    if pacing_lag_ns <= limit_ns:
        return None
    return Finding(
        code="generator-bound",
        severity=Severity.WARNING,
        message=f"the {quantile} pacing lag is {pacing_lag_ns / response_time_ns:.0%} of the "
        f"{quantile} response time (limit {PACING_LAG_SHARE_MAX:.0%}): part of it is the "
        "generator's own; use a lower rate, a quieter machine or more processors",
        evidence={
            "quantile": quantile,
            "pacing_lag_ns": pacing_lag_ns,
            "response_time_ns": response_time_ns,
            "limit_ns": limit_ns,
        },
        trial_id=trial_id,
        driver=driver,
    )


def check_saturation(
    *,
    offered_count: int,
    backlog_before_count: int,
    backlog_after_count: int,
    trial_id: str | None = None,
    driver: str | None = None,
) -> Finding | None:
    """Saturated: the number of unanswered requests grew while nothing but load went on.

    ``offered_count`` requests were due between two instants, at which the given numbers were due
    but unanswered. A slow service holds many requests, but no more at the end than before; only
    load above capacity makes them grow. Three standard deviations of two Poisson counts are
    allowed for.
    """
    if offered_count == 0:
        return None
    growth_count = backlog_after_count - backlog_before_count
    chance_count = 3 * math.sqrt(backlog_before_count + backlog_after_count + 1)
    if growth_count <= max(BACKLOG_SHARE_MAX * offered_count, chance_count):
        return None
    return Finding(
        code="saturated",
        severity=Severity.WARNING,
        message=f"unanswered requests grew from {backlog_before_count} to {backlog_after_count} "
        f"while {offered_count} were due (limit {BACKLOG_SHARE_MAX:.0%}): the load is above "
        "capacity, so delays depend on how long one measures",
        evidence={
            "offered_count": offered_count,
            "backlog_before_count": backlog_before_count,
            "backlog_after_count": backlog_after_count,
        },
        trial_id=trial_id,
        driver=driver,
    )


def check_answered(
    *,
    due_count: int,
    answered_count: int,
    trial_id: str | None = None,
    driver: str | None = None,
) -> Finding | None:
    """Saturated: in the same stretch of time far fewer replies came than requests were due.

    What is under way at its begin and at its end makes both differ by chance; three standard
    deviations of a Poisson count as large as the difference are allowed for.
    """
    missing_count = due_count - answered_count
    chance_count = 3 * math.sqrt(max(0, missing_count) + 1)
    if missing_count <= max((1 - ANSWERED_SHARE_MIN) * due_count, chance_count):
        return None
    return Finding(
        code="saturated",
        severity=Severity.WARNING,
        message=f"{answered_count} replies came while {due_count} requests were due: "
        f"{answered_count / due_count:.1%} (limit {ANSWERED_SHARE_MIN:.0%}): the load is above "
        "capacity, so latencies depend on how long one measures",
        evidence={"due_count": due_count, "answered_count": answered_count},
        trial_id=trial_id,
        driver=driver,
    )


def check_server_counters(
    *,
    server_count: int,
    sent_count: int,
    answered_count: int,
    trial_id: str | None = None,
    driver: str | None = None,
) -> Finding | None:
    """Counter-mismatch: servers read another number of requests than clients sent.

    A request that was sent and never answered, because the clients gave up before, may or may not
    have been read; where all were answered the numbers have to be equal.
    """
    if answered_count <= server_count <= sent_count:
        return None
    return Finding(
        code="counter-mismatch",
        severity=Severity.ERROR,
        message=f"the servers counted {server_count} requests, the clients sent {sent_count} and "
        f"got {answered_count} replies: requests were lost or doubled on the way, or one side "
        "counts wrongly",
        evidence={
            "server_count": server_count,
            "sent_count": sent_count,
            "answered_count": answered_count,
        },
        trial_id=trial_id,
        driver=driver,
    )


def check_generator_cpu(
    *,
    generator_cpu_ns: int,
    length_ns: int,
    threads_count: int,
    trial_id: str | None = None,
    driver: str | None = None,
) -> Finding | None:
    """Generator-bound: the engine's threads had no time left, so the peak is their own."""
    capacity_ns = length_ns * threads_count
    if capacity_ns == 0 or generator_cpu_ns <= GENERATOR_CPU_SHARE_MAX * capacity_ns:
        return None
    return Finding(
        code="generator-bound",
        severity=Severity.WARNING,
        message=f"the load engine used {generator_cpu_ns / capacity_ns:.0%} of its "
        f"{threads_count} thread(s) (limit {GENERATOR_CPU_SHARE_MAX:.0%}): the rate may be the "
        "generator's peak and not the service's",
        evidence={
            "generator_cpu_ns": generator_cpu_ns,
            "length_ns": length_ns,
            "threads_count": threads_count,
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
            **({} if drift.low_ratio is None else {"change_ratio_low": drift.low_ratio}),
            **({} if drift.high_ratio is None else {"change_ratio_high": drift.high_ratio}),
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


def check_round_trend(
    trend: TrialsTrend | None, *, where: str, driver: str | None = None
) -> Finding | None:
    """Rounds-drifting: a mean over the rounds hides that they changed."""
    if trend is None or not trend.is_drifting:
        return None
    return Finding(
        code="rounds-drifting",
        severity=Severity.WARNING,
        message=f"{where}: the makespan changed by {trend.change_ratio:+.0%} over the rounds of a "
        f"trial (limit {TREND_CHANGE_RATIO_MIN:.0%}; t = {trend.t:.1f}, Mann-Kendall z = "
        f"{trend.kendall_z:.1f}): its mean depends on how many rounds there are",
        evidence={
            "slope_ns": trend.slope_ns,
            "slope_ns_low": trend.low_ns,
            "slope_ns_high": trend.high_ns,
            "change_ratio": trend.change_ratio,
            "kendall_z": trend.kendall_z,
            "rounds_count": trend.rounds_count,
        },
        driver=driver,
    )


def check_first_round(
    first: FirstRounds | None, *, where: str, driver: str | None = None
) -> Finding | None:
    """First-round-outlier: what the first round found was not what the others found."""
    if first is None or not first.is_outlier:
        return None
    return Finding(
        code="first-round-outlier",
        severity=Severity.INFO,
        message=f"{where}: the first round took {first.ratio:.2f} times the median round of its "
        f"trial (limits {FIRST_ROUND_RATIO_LOW} and {FIRST_ROUND_RATIO_HIGH}, median of "
        f"{first.trials_count} trials); it is kept in the sample",
        evidence={"ratio": first.ratio, "trials_count": first.trials_count},
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
    told = (
        "there are no latencies"
        if failed_count == starts_count
        else "latencies are of the others only"
    )
    return Finding(
        code="start-failures",
        severity=Severity.ERROR,
        message=f"{failed_count} of {starts_count} starts failed: {told}{because}",
        evidence={"failed_count": failed_count, "starts_count": starts_count},
        trial_id=trial_id,
        driver=driver,
    )
