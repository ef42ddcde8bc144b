"""From the raw readings of the bench ``density`` to samples and findings; METHODOLOGY 4. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.benches.base import Samples
from seatrial.model.finding import Finding, Severity
from seatrial.units import format_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.model.plan import Point

    Values = dict[str, float | None]

NS_PER_S: Final = 1_000_000_000
#: Columns of a reading that are shares of all sandboxes together, and what becomes of them.
_SHARES: Final = (
    ("memory_pss_bytes", "pss_bytes"),
    ("memory_uss_bytes", "uss_bytes"),
    ("memory_rss_bytes", "rss_bytes"),
    ("memory_cgroup_bytes", "cgroup_bytes"),
    ("memory_kernel_bytes", "kernel_bytes"),
    ("memory_kernel_growth_bytes", "kernel_growth_bytes"),
    ("memory_available_drop_bytes", "mem_available_drop_bytes"),
)
_TOTALS: Final = (
    ("memory_pss_total_bytes", "pss_bytes"),
    ("memory_cgroup_total_bytes", "cgroup_bytes"),
    ("memory_daemon_bytes", "daemon_pss_bytes"),
)
#: What is not given when a process is missing: a sum over some is not the sum.
_OF_PROCESSES: Final = ("pss_bytes", "uss_bytes", "rss_bytes")
#: How the steps of a fill end that were not stopped by a bound.
ALIVE: Final = "alive"


def derive_density(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns one sample of each metric."""
    values = _filled(tables) if "fill" in point.values else _settled(tables, point)
    return tuple(
        Samples(metric=name, values=(float(value),))
        for name, value in values.items()
        if value is not None
    )


def _filled(tables: Mapping[str, pl.DataFrame]) -> Values:
    fill = tables.get("fill")
    if fill is None:
        return {}
    rows = list(fill.iter_rows(named=True))
    alive = [row["count"] for row in rows if row["stopped_by"] == ALIVE]
    reached = [row["count"] for row in rows if row["stopped_by"] not in {None, ALIVE}]
    # One that came up and died again does not count as living.
    return {"density_count": min(reached[-1], alive[-1])} if alive and reached else {}


def _settled(tables: Mapping[str, pl.DataFrame], point: Point) -> Values:
    row = final_reading(tables)
    if row is None:
        return {}
    count = int(point.values["count"])
    if row["dead_count"] or row["unreadable_count"]:
        row = {**row, **dict.fromkeys(_OF_PROCESSES)}
    values: Values = {name: _share(row.get(column), count) for name, column in _SHARES}
    values |= {name: _share(row.get(column), 1) for name, column in _TOTALS}
    memory = tables["memory"]
    settling = memory.filter(~memory["is_final"])
    if settling.height > 0 and row["is_settled"]:
        values["settle_ns"] = float(settling["since_last_start_ns"].to_list()[-1])
    values |= _idle(tables, count)
    return values | _guest_view(tables)


def final_reading(tables: Mapping[str, pl.DataFrame]) -> dict[str, object] | None:
    """Returns the reading that counts: of several the one with the median PSS."""
    memory = tables.get("memory")
    if memory is None:
        return None
    rows = list(memory.filter(memory["is_final"]).iter_rows(named=True))
    rows.sort(key=lambda row: row.get("pss_bytes") or 0)
    # Of an even number the lower one: a reading is never made up of two.
    return rows[(len(rows) - 1) // 2] if rows else None


def _idle(tables: Mapping[str, pl.DataFrame], count: int) -> Values:
    idle = tables.get("idle")
    if idle is None or idle.height == 0:
        return {}
    book = idle.row(0, named=True)
    span_ns = count * book["window_ns"]
    return {
        "idle_cpu_ratio": _over(book.get("cpu_ns"), span_ns),
        "idle_switches_rps": _over(book.get("switches_count"), span_ns / NS_PER_S),
        "idle_drift_bytes_per_s": _over(book.get("pss_growth_bytes"), span_ns / NS_PER_S),
    }


def _guest_view(tables: Mapping[str, pl.DataFrame]) -> Values:
    limits = tables.get("limits")
    if limits is None or limits.height == 0:
        return {}
    row = limits.row(0, named=True)
    total, available = row.get("guest_total_bytes"), row.get("guest_available_bytes")
    if total is None or available is None:
        return {}
    return {
        "memory_guest_total_bytes": total,
        "memory_guest_used_bytes": total - available,
    }


def _share(total: object, count: int) -> float | None:
    return total / count if isinstance(total, int | float) else None


def _over(total: float | None, span: float) -> float | None:
    return None if total is None or span <= 0 else total / span


def judge_density(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
    """Returns what was wrong with readings and limits, and which bound a fill ended at."""
    found = [_bound_reached(tables), _limits(tables)]
    row = final_reading(tables)
    if row is not None:
        found += [_settling(row, tables, point), _missing(row, point), _uneven(row)]
    return tuple(finding for finding in found if finding is not None)


def _settling(
    row: Mapping[str, object], tables: Mapping[str, pl.DataFrame], point: Point
) -> Finding | None:
    if row["is_settled"]:
        return None
    return Finding(
        code="not-settled",
        severity=Severity.WARNING,
        message=f"memory of {point.values['count']} sandboxes was still moving when it was read",
        evidence={"readings_count": tables["memory"].height},
    )


def _missing(row: Mapping[str, object], point: Point) -> Finding | None:
    dead, unreadable = row["dead_count"], row["unreadable_count"]
    if not dead and not unreadable:
        return None
    assert isinstance(dead, int) and isinstance(unreadable, int)  # noqa: PT018 - for the types
    return Finding(
        code="incomplete-reading",
        severity=Severity.WARNING,
        message=f"of {point.values['count']} sandboxes {dead} had no process and {unreadable} "
        "processes could not be read: PSS, USS and RSS are not given",
        evidence={"dead_count": dead, "unreadable_count": unreadable},
    )


def _uneven(row: Mapping[str, object]) -> Finding | None:
    """Incomplete-reading: equal sandboxes must have equally many processes."""
    fewest, most = row.get("fewest_processes_count"), row.get("most_processes_count")
    if not isinstance(fewest, int) or not isinstance(most, int) or fewest in {most, 0}:
        return None
    return Finding(
        code="incomplete-reading",
        severity=Severity.WARNING,
        message=f"equal sandboxes had between {fewest} and {most} processes: some were missed, or "
        "had not come up whole, so their memory is not of the same things",
        evidence={"fewest_processes_count": fewest, "most_processes_count": most},
    )


def _limits(tables: Mapping[str, pl.DataFrame]) -> Finding | None:
    """Limit-not-enforced: a sandbox without its limit would only look faster, or smaller."""
    limits = tables.get("limits")
    if limits is None or limits.height == 0:
        return None
    row = limits.row(0, named=True)
    asked = row["asked_bytes"]
    if asked is None:
        return None
    highest, guest_total = row["highest_bytes"], row.get("guest_total_bytes")
    is_kept = row["unlimited_count"] == 0 and highest is not None and highest <= asked
    # The memory of a virtual machine is its limit, and no group needs another.
    is_in_guest = guest_total is not None and guest_total <= asked
    if is_kept or is_in_guest:
        return None
    shown = "none" if highest is None else format_bytes(highest)
    return Finding(
        code="limit-not-enforced",
        severity=Severity.ERROR,
        message=f"a memory limit of {format_bytes(asked)} was asked for; of {row['count']} "
        f"sandboxes {row['unlimited_count']} have none, and the highest is {shown}",
        evidence={"asked_bytes": asked, "unlimited_count": row["unlimited_count"]},
    )


def _bound_reached(tables: Mapping[str, pl.DataFrame]) -> Finding | None:
    """Density-bound: what ended the filling, without which the count says little."""
    fill = tables.get("fill")
    if fill is None:
        return None
    rows = list(fill.iter_rows(named=True))
    ended = [row for row in rows if row["stopped_by"] not in {None, ALIVE}]
    if not ended:
        return None
    alive = next((row["count"] for row in rows if row["stopped_by"] == ALIVE), 0)
    last = ended[-1]
    is_bound = last["stopped_by"] in {"count", "memory", "ready"}
    words = f"bound '{last['stopped_by']}'" if is_bound else last["stopped_by"]
    return Finding(
        code="density-bound",
        severity=Severity.INFO if is_bound else Severity.WARNING,
        message=f"filling ended at {last['count']} sandboxes, {alive} of them alive, by {words}; "
        f"{format_bytes(last['available_bytes'])} of the host's memory was available",
        evidence={
            "count": last["count"],
            "alive_count": alive,
            "available_bytes": last["available_bytes"],
        },
    )
