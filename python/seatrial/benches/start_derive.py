"""From the raw rows of the bench ``start`` to its samples; METHODOLOGY 3 has each formula. Pure."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from seatrial.benches.base import Group, Samples

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from seatrial.launch.plan import StartResult, StopResult
    from seatrial.model.plan import Point

    Values = dict[str, list[float]]

NS_PER_S = 1_000_000_000


def start_row(result: StartResult, stop: StopResult | None) -> dict[str, object]:
    """Returns a start's raw instants as one row, completed by what its stop brought."""
    row: dict[str, object] = dataclasses.asdict(result)
    if stop is not None:
        for name in ("stop_requested_at_ns", "exit_seen_at_ns", "exit_code", "signal"):
            if row.get(name) is None:
                row[name] = getattr(stop, name)
        row["stop_error"] = stop.error
        for name in ("user_ns", "system_ns", "max_rss_bytes"):
            if getattr(stop, name) is not None:
                row[name] = getattr(stop, name)
    return row


def differences(frame: pl.DataFrame, end: str, start: str) -> list[float]:
    """Returns end - start of the rows that reached both, in row order (ns)."""
    rows = frame.select((frame[end] - frame[start]).alias("difference")).drop_nulls()
    return [float(value) for value in rows["difference"].to_list()]


_SPANS = (
    ("start_first_byte_ns", "first_byte_at_ns", "due_at_ns"),
    ("start_created_ns", "accepted_at_ns", "due_at_ns"),
    ("start_pod_ns", "pod_at_ns", "due_at_ns"),
    ("start_container_created_ns", "container_created_at_ns", "due_at_ns"),
    ("start_container_started_ns", "container_started_at_ns", "due_at_ns"),
    ("start_ready_ns", "ready_at_ns", "due_at_ns"),
    ("start_first_reply_ns", "first_reply_at_ns", "due_at_ns"),
    ("start_launch_lag_ns", "invoked_at_ns", "due_at_ns"),
)
_BOOKS = (
    ("start_cpu_ns", "cgroup_cpu_ns"),
    ("start_cpu_user_ns", "cgroup_user_ns"),
    ("start_cpu_system_ns", "cgroup_system_ns"),
)


def derive_start(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
    """Returns every start metric, for the runtime and for the floor."""
    del point  # the formulas are the same at every point
    starts, batches = tables.get("starts"), tables.get("batches")
    if starts is None or batches is None:
        return ()
    samples: list[Samples] = []
    for group in Group:
        is_floor = group is Group.FLOOR
        rows = starts.filter(starts["is_floor"] == is_floor)
        values = _of_starts(rows, is_floor=is_floor)
        _add_batches(values, rows, batches.filter(batches["is_floor"] == is_floor))
        if "books" in tables:
            _add_books(values, tables["books"], is_floor=is_floor)
        if not is_floor:
            _add_background(values, tables)
        samples += [
            Samples(metric=name, values=taken, group=group)
            for name, taken in values.items()
            if taken
        ]
    return tuple(samples)


def obeyed(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the sandboxes that ended because they were asked to."""
    return rows.filter(rows["stop_error"].is_null() & rows["stop_requested_at_ns"].is_not_null())


def _of_starts(rows: pl.DataFrame, *, is_floor: bool) -> Values:
    succeeded = rows.filter(rows["outcome"] == "ok")
    values = {
        name: differences(succeeded, end, start)
        for name, end, start in _SPANS
        if {end, start} <= set(succeeded.columns)
    }
    if "guest_hello_mono_ns" in succeeded.columns:
        values["start_first_instruction_ns"] = _first_instructions(succeeded)
    if {"user_ns", "system_ns"} <= set(succeeded.columns):
        tree = (succeeded["user_ns"] + succeeded["system_ns"]).drop_nulls()
        values["start_tree_cpu_ns"] = [float(value) for value in tree.to_list()]
    if not is_floor:  # the floor is about starting
        ended = obeyed(succeeded)
        values["stop_exit_ns"] = differences(ended, "exit_seen_at_ns", "stop_requested_at_ns")
        values["teardown_ns"] = differences(ended, "gone_at_ns", "stop_requested_at_ns")
    values["start_success_ratio"] = [float(v == "ok") for v in rows["outcome"].to_list()]
    return values


def _first_instructions(rows: pl.DataFrame) -> list[float]:
    """First byte less what the guest says it did before; its clock is used for that length only."""
    inside = rows["guest_hello_mono_ns"] - rows["guest_first_instruction_mono_ns"]
    spans = (rows["first_byte_at_ns"] - rows["due_at_ns"] - inside).drop_nulls()
    return [float(value) for value in spans.to_list()]


def _add_batches(values: Values, rows: pl.DataFrame, batches: pl.DataFrame) -> None:
    """Adds the metrics that exist once a batch, or only for batches without a failure."""
    for batch in batches.iter_rows(named=True):
        members = rows.filter(rows["round"] == batch["round"])
        cpu_ns = batch["launcher_user_ns"] + batch["launcher_system_ns"]
        append(values, "start_launcher_cpu_ns", cpu_ns / batch["starts_count"])
        append(values, "image_resident_ratio", batch.get("resident_ratio"))
        invoked = members["invoked_at_ns"].drop_nulls().to_list()
        if invoked:
            append(values, "start_release_skew_ns", max(invoked) - min(invoked))
        if members.height != batch["starts_count"] or not (members["outcome"] == "ok").all():
            # Books are read when the whole batch is decided: a failure that took its deadline
            # would charge the others for having waited. Of a batch without all of its rows
            # nobody knows which was the last.
            continue
        makespan_ns = makespan(members, batch["released_at_ns"])
        append(values, "start_makespan_ns", makespan_ns)
        append(values, "start_rps", members.height / makespan_ns * NS_PER_S)
        for name, column in _BOOKS:
            values.setdefault(name, []).extend(
                float(value) for value in members[column].drop_nulls().to_list()
            )
        if not batch["is_floor"]:
            _add_teardown(values, members)


def makespan(members: pl.DataFrame, released_at_ns: int) -> float:
    """From the release to the last first byte of a batch that came up whole (ns, > 0)."""
    return float(max(members["first_byte_at_ns"].to_list()) - released_at_ns)


def _add_teardown(values: Values, members: pl.DataFrame) -> None:
    gone = members["gone_at_ns"]
    if obeyed(members).height < members.height or gone.null_count() > 0:
        return
    spent_ns = max(gone.to_list()) - min(members["stop_requested_at_ns"].to_list())
    append(values, "teardown_makespan_ns", spent_ns)


def _add_books(values: Values, books: pl.DataFrame, *, is_floor: bool) -> None:
    """Adds what the batches cost beside the sandboxes' own books, idling subtracted."""
    control = next(books.filter(books["is_control"]).iter_rows(named=True), None)
    batches = books.filter(~books["is_control"] & (books["is_floor"] == is_floor))
    for batch in batches.iter_rows(named=True):
        count = batch["starts_count"]
        append(values, "start_tool_cpu_ns", batch["tool_cpu_ns"] / count)
        daemon_ns = _above_idle(batch, control, ("daemon_cpu_ns",))
        append(values, "start_daemon_cpu_ns", None if daemon_ns is None else daemon_ns / count)
        host_ns = _above_idle(batch, control, ("host_user_ns", "host_system_ns"))
        if host_ns is None or control is None:
            continue  # without a control window nobody knows what the host does by itself
        append(values, "start_host_cpu_ns", host_ns / count)
        if batch["sandboxes_cpu_ns"] is not None:
            booked_ns = batch["sandboxes_cpu_ns"] + batch["tool_cpu_ns"] + (daemon_ns or 0)
            append(values, "start_unbooked_cpu_ns", (host_ns - booked_ns) / count)


def _above_idle(
    batch: Mapping[str, int | None],
    control: Mapping[str, int | None] | None,
    names: tuple[str, ...],
) -> float | None:
    """Sum of some books over a batch, less what they grew by in the same time without a start."""
    used_ns = [batch[name] for name in names]
    if None in used_ns:
        return None
    total_ns = float(sum(value for value in used_ns if value is not None))
    idle_ns = [control[name] for name in names] if control is not None else []
    if control is None or None in idle_ns:
        return total_ns
    idle_total_ns = sum(value for value in idle_ns if value is not None)
    return total_ns - idle_total_ns * length(batch) / length(control)


def length(window: Mapping[str, int | None]) -> int:
    """How long a window was (ns, > 0)."""
    return max((window["ended_at_ns"] or 0) - (window["started_at_ns"] or 0), 1)


def _add_background(values: Values, tables: Mapping[str, pl.DataFrame]) -> None:
    background, books = tables.get("background"), tables.get("books")
    if background is None:
        return
    append(values, "background_memory_bytes", background.row(0, named=True)["pss_bytes"])
    if books is None:
        return
    control = next(books.filter(books["is_control"]).iter_rows(named=True), None)
    if control is not None and control["background_cpu_ns"] is not None:
        append(values, "background_cpu_ratio", control["background_cpu_ns"] / length(control))


def append(values: Values, name: str, value: float | None) -> None:
    """Adds a value to a metric's, unless there is none."""
    if value is not None:
        values.setdefault(name, []).append(float(value))
