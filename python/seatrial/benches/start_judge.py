"""What the raw rows of the bench ``start`` say about its validity. Pure.

Every limit is a named constant and stands in the message, so that a reader can disagree with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from seatrial.benches.start_derive import makespan, obeyed
from seatrial.model.experiment import CacheState
from seatrial.model.finding import Finding, Severity
from seatrial.stats.validity import check_starts

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.model.plan import Point

ERROR_TAIL_MAX: Final = 400
#: Of the makespan: a larger part of it would be the barrier's own.
SKEW_SHARE_MAX: Final = 0.05
#: Of the pages of the files that a start reads: more are no cold cache, fewer no warm one.
COLD_RESIDENT_MAX: Final = 0.01
WARM_RESIDENT_MIN: Final = 0.99


def judge_start(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
    """Returns failures with their counts, and what was not as the point asked for."""
    starts, batches = tables.get("starts"), tables.get("batches")
    if starts is None:
        return ()
    measured = starts.filter(~starts["is_floor"])
    findings = [_start_failures(measured), _stop_failures(measured)]
    if batches is not None:
        own = batches.filter(~batches["is_floor"])
        findings += [_skew(measured, own), _cache_state(own, point), _background(own)]
    return tuple(finding for finding in findings if finding is not None)


def _start_failures(measured: pl.DataFrame) -> Finding | None:
    failed = measured.filter(measured["outcome"] != "ok")
    counts: dict[str, int] = {}
    for outcome in failed["outcome"].to_list():
        counts[outcome] = counts.get(outcome, 0) + 1
    kinds = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    # How it ended, and the runtime's own words of why, of one that has said something.
    said = [
        (str(error or "").strip(), " ".join(str(tail or "").split())[-ERROR_TAIL_MAX:])
        for error, tail in failed.select("error", "stderr_tail").iter_rows()
    ]
    first = next((words for words in said if words[1]), said[0] if said else ())
    return check_starts(
        failed_count=failed.height,
        starts_count=measured.height,
        reason=": ".join((kinds, *filter(None, first))),
    )


def _stop_failures(measured: pl.DataFrame) -> Finding | None:
    up = measured.filter(measured["outcome"] == "ok")
    failed_count = up.height - obeyed(up).height
    if failed_count == 0:
        return None
    first = next((text for text in up["stop_error"].to_list() if text), "it ended by itself")
    return Finding(
        code="stop-failures",
        severity=Severity.WARNING,
        message=f"{failed_count} of {up.height} sandboxes did not end by the stop request; exit "
        f"and teardown times are of the others only; first: {first}",
        evidence={"failed_count": failed_count, "stops_count": up.height},
    )


def _skew(measured: pl.DataFrame, batches: pl.DataFrame) -> Finding | None:
    """Release-skew: the starts of a batch were not released together."""
    shares: list[float] = []
    skews: list[float] = []
    for batch in batches.iter_rows(named=True):
        members = measured.filter(measured["round"] == batch["round"])
        invoked = members["invoked_at_ns"].drop_nulls().to_list()
        if len(invoked) < 2 or not (members["outcome"] == "ok").all():  # noqa: PLR2004 - one alone has no skew
            continue
        skews.append(float(max(invoked) - min(invoked)))
        shares.append(skews[-1] / max(makespan(members, batch["released_at_ns"]), 1))
    if not shares or float(np.median(shares)) <= SKEW_SHARE_MAX:
        return None
    return Finding(
        code="release-skew",
        severity=Severity.WARNING,
        message=f"the starts of a batch were invoked within {np.median(shares):.0%} of its "
        f"makespan (limit {SKEW_SHARE_MAX:.0%}, median of {len(shares)} batches): with more starts "
        "than processors the release itself queues, and that wait is in the latencies",
        evidence={
            "skew_ns": float(np.median(skews)),
            "skew_share_ratio": float(np.median(shares)),
            "skew_share_ratio_max": max(shares),
            "batches_count": len(shares),
        },
    )


def _cache_state(batches: pl.DataFrame, point: Point) -> Finding | None:
    """Cache-state: the page cache did not hold what the point asked for."""
    asked = point.values.get("cache", CacheState.WARM)
    if "resident_ratio" not in batches.columns:
        return None
    ratios = [float(ratio) for ratio in batches["resident_ratio"].drop_nulls().to_list()]
    is_cold = asked == CacheState.COLD
    wrong = [
        ratio
        for ratio in ratios
        if (ratio > COLD_RESIDENT_MAX if is_cold else ratio < WARM_RESIDENT_MIN)
    ]
    if is_cold and not ratios:
        message = "cold caches were asked for, and which files a start reads is not known"
    elif not wrong:
        return None
    else:
        worst = max(wrong) if is_cold else min(wrong)
        limit = (
            f"at most {COLD_RESIDENT_MAX:.0%}" if is_cold else f"at least {WARM_RESIDENT_MIN:.0%}"
        )
        message = (
            f"{asked} caches were asked for, and {worst:.0%} of the pages that a start reads were "
            f"in the page cache before {len(wrong)} of {len(ratios)} batches ({limit} expected): "
            "pages that live processes map cannot be dropped"
        )
    return Finding(
        code="cache-state",
        severity=Severity.WARNING,
        message=message,
        evidence={"batches_count": len(ratios), "wrong_count": len(wrong)},
    )


def _background(batches: pl.DataFrame) -> Finding | None:
    """Background-lost: some of the sandboxes beside the measured ones ended meanwhile."""
    if "background_count" not in batches.columns:
        return None
    rows = batches.filter(
        batches["background_count"].is_not_null()
        & (batches["background_alive_count"] < batches["background_count"])
    )
    if rows.height == 0:
        return None
    fewest = int(min(rows["background_alive_count"].to_list()))
    count = int(rows["background_count"].to_list()[0])
    return Finding(
        code="background-lost",
        severity=Severity.ERROR,
        message=f"only {fewest} of {count} sandboxes beside the measured ones lived after "
        f"{rows.height} of {batches.height} batches: the density was not what the point says",
        evidence={"alive_count": fewest, "count": count, "batches_count": rows.height},
    )
