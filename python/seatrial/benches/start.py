"""How fast does a sandbox start: alone, and N at once? What CPU does a start cost?

One round releases ``concurrency`` starts by one barrier in the launcher, waits until each sandbox
has answered a ping, reads its cgroup's CPU books, then asks all to stop and waits until nothing
of them is left. The launcher's floor, the same number of null starts, is taken in the same round,
before or after it in turn. METHODOLOGY 3 defines each number.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from seatrial.benches.base import BenchTrial, Group, Samples, TrialContext, TrialTables
from seatrial.drivers.base import SandboxSpec
from seatrial.model.finding import Finding, Severity
from seatrial.model.metric import Direction, Metric
from seatrial.stats.validity import check_leftovers, check_starts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from seatrial.drivers.base import DriverSession
    from seatrial.launch.plan import StartPlan, StartResult, StopResult
    from seatrial.model.experiment import Experiment, StartSettings
    from seatrial.model.plan import Point

NULL_DRIVER = "null"
STOP_GRACE_NS = 5_000_000_000
GONE_TIMEOUT_NS = 10_000_000_000
LAUNCH_MARGIN_NS = 15_000_000_000
ERROR_TAIL_MAX = 400


def _latency(name: str, meaning: str, method: str) -> Metric:
    return Metric(name=name, unit="ns", direction=Direction.LOWER, meaning=meaning, method=method)


METRICS = (
    _latency(
        "start_first_byte_ns",
        "From the release of the batch to the first byte that the sandbox's process sent",
        "first_byte_at - due_at, each start",
    ),
    _latency(
        "start_ready_ns",
        "From the release of the batch to the guest's word that it is ready",
        "ready_at - due_at, each start",
    ),
    _latency(
        "start_first_reply_ns",
        "From the release of the batch to the first answer to a ping",
        "first_reply_at - due_at, each start",
    ),
    _latency(
        "start_launch_lag_ns",
        "How late the launcher itself was: from the release to just before clone",
        "invoked_at - due_at, each start",
    ),
    _latency(
        "start_makespan_ns",
        "From the release of a batch to the last first byte in it",
        "max(first_byte_at) - released_at, each batch whose starts all succeeded",
    ),
    _latency(
        "start_release_skew_ns",
        "How far apart the starts of one batch were invoked",
        "max(invoked_at) - min(invoked_at), each batch",
    ),
    _latency(
        "start_cpu_ns",
        "CPU time of one start, runtime and payload, user and system",
        "CPU books of the sandbox's own outer cgroup when the batch has answered",
    ),
    _latency(
        "start_cpu_user_ns",
        "The user part of start_cpu_ns",
        "as start_cpu_ns; the kernel splits by tick sampling, so single values are coarse",
    ),
    _latency(
        "start_cpu_system_ns",
        "The system part of start_cpu_ns",
        "as start_cpu_ns; the kernel splits by tick sampling, so single values are coarse",
    ),
    _latency(
        "start_launcher_cpu_ns",
        "CPU time the launcher itself used for one start; not part of start_cpu_ns",
        "RUSAGE_SELF of the launcher over a batch / starts in it",
    ),
    _latency(
        "stop_exit_ns",
        "From the stop request to the exit of the process that was started",
        "exit_seen_at - stop_requested_at, each sandbox that obeyed",
    ),
    _latency(
        "teardown_ns",
        "From the stop request until no process, cgroup, state file or mount of it is left",
        "gone_at - stop_requested_at, batches of one sandbox only",
    ),
    _latency(
        "teardown_makespan_ns",
        "From the first stop request of a batch until nothing of any of its sandboxes is left",
        "max(gone_at) - min(stop_requested_at), each batch that obeyed",
    ),
    Metric(
        name="start_success_ratio",
        unit="ratio",
        direction=Direction.HIGHER,
        meaning="Share of starts that reached their first reply before the deadline",
        method="1 for a success, 0 for a failure, each start",
    ),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StartBench:
    """Start latency, makespan, CPU and teardown at one concurrency."""

    name: str = "start"
    question: str = "How fast does a sandbox start, alone and N at once, and what CPU does it cost?"
    headline: str = "start_first_byte_ns"
    metrics: tuple[Metric, ...] = METRICS

    def estimate_ns(self, experiment: Experiment, point: Point, driver: str) -> int:
        """Returns a rough length: the median start, queued on the processors, and teardown."""
        settings = cast("StartSettings", experiment.start)
        typical_ns = 180_000_000 if driver.startswith("runsc") else 30_000_000
        per_round_ns = 150_000_000 + typical_ns * (1 + int(point.values["concurrency"]) // 2)
        return settings.rounds * per_round_ns

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial."""
        return StartTrial(context)

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples; see METRICS for each formula."""
        return derive_start(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns start failures and a first round slower than the rest."""
        return judge_start(tables, point)


class StartTrial:
    """One trial: ``rounds`` batches, each with its floor."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._settings = cast("StartSettings", context.experiment.start)
        self._concurrency = int(context.spec.point.values["concurrency"])
        self._next_index = 0
        self.tables = TrialTables()
        self.findings: list[Finding] = []

    def set_up(self) -> None:
        """Opens the session of the runtime and of the null runtime."""
        self._session = self._context.open_session(self._context.spec.driver)
        self._floor = self._context.open_session(NULL_DRIVER)

    def warm_up(self) -> None:
        """Starts one sandbox and one null process; both are thrown away."""
        warm = TrialTables()
        self._batch(self._floor, count=1, round_number=0, tables=warm)
        self._batch(self._session, count=1, round_number=0, tables=warm)

    def measure(self) -> None:
        """Runs the rounds inside one gated window a round."""
        for round_number in range(self._settings.rounds):
            with self._context.window(f"round-{round_number}"):
                for session in self._order(round_number):
                    self._batch(
                        session,
                        count=self._concurrency,
                        round_number=round_number,
                        tables=self.tables,
                    )

    def _order(self, round_number: int) -> tuple[DriverSession, DriverSession]:
        """Lets floor and runtime go first in turn: whoever does finds colder caches."""
        both = (self._floor, self._session)
        return both if (round_number + self._context.spec.block) % 2 == 0 else both[::-1]

    def drain(self) -> None:
        """Does nothing: a round ends when its sandboxes are gone."""

    def tear_down(self) -> None:
        """Does nothing: the runner closes the sessions, which removes what a failure left."""

    def _batch(
        self, session: DriverSession, *, count: int, round_number: int, tables: TrialTables
    ) -> None:
        is_floor = session is self._floor
        plans = [self._plan(session, is_floor=is_floor) for _ in range(count)]
        with ExitStack() as stack:
            for plan in plans:
                stack.callback(session.release, plan.id)
            self._run_batch(
                session, plans, round_number=round_number, is_floor=is_floor, tables=tables
            )

    def _plan(self, session: DriverSession, *, is_floor: bool) -> StartPlan:
        index, self._next_index = self._next_index, self._next_index + 1
        spec = SandboxSpec(
            role=("idle",),
            network=self._context.experiment.network,
            ready="hello" if is_floor else "ready",
            deadline_ns=self._settings.deadline_ns,
        )
        return session.plan(spec, index)

    def _run_batch(
        self,
        session: DriverSession,
        plans: Sequence[StartPlan],
        *,
        round_number: int,
        is_floor: bool,
        tables: TrialTables,
    ) -> None:
        batch = session.launcher.start(
            plans,
            wait_for="hello" if is_floor else "reply",
            hold=True,
            timeout_ns=self._settings.deadline_ns + LAUNCH_MARGIN_NS,
        )
        books = {plan.id: session.cgroups(plan.id).read_cpu() for plan in plans}
        stops = {
            stop.id: stop for stop in session.launcher.stop(how="request", grace_ns=STOP_GRACE_NS)
        }
        tables.add(
            "batches",
            {
                "round": round_number,
                "is_floor": is_floor,
                "starts_count": len(plans),
                "released_at_ns": batch.released_at_ns,
                "launcher_user_ns": batch.launcher_user_ns,
                "launcher_system_ns": batch.launcher_system_ns,
            },
        )
        gone = session.wait_all_gone(list(books), time.monotonic_ns() + GONE_TIMEOUT_NS)
        self.findings += self._leftovers(gone)
        for position, result in enumerate(batch.results):
            cpu = books[result.id]
            row = start_row(result, stops.get(result.id))
            row.update(
                round=round_number,
                position=position,
                is_floor=is_floor,
                cgroup_cpu_ns=None if cpu is None else cpu.total_ns,
                cgroup_user_ns=None if cpu is None else cpu.user_ns,
                cgroup_system_ns=None if cpu is None else cpu.system_ns,
                gone_at_ns=gone[result.id],
            )
            tables.add("starts", row)

    def _leftovers(self, gone: Mapping[str, int | None]) -> list[Finding]:
        stayed = [plan_id for plan_id, gone_at_ns in gone.items() if gone_at_ns is None]
        finding = check_leftovers(leftovers=[f"sandbox {plan_id}" for plan_id in stayed])
        return [] if finding is None else [finding]


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


def _difference(frame: pl.DataFrame, end: str, start: str) -> list[float]:
    """Returns end - start of the rows that reached ``end``, in row order (ns)."""
    rows = frame.select((frame[end] - frame[start]).alias("difference")).drop_nulls()
    return [float(value) for value in rows["difference"].to_list()]


_SPANS = (
    ("start_first_byte_ns", "first_byte_at_ns", "due_at_ns"),
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
    del point  # the formulas are the same at every concurrency
    starts, batches = tables.get("starts"), tables.get("batches")
    if starts is None or batches is None:
        return ()
    samples: list[Samples] = []
    for group in Group:
        is_floor = group is Group.FLOOR
        rows = starts.filter(starts["is_floor"] == is_floor)
        succeeded = rows.filter(rows["outcome"] == "ok")
        values = {name: _difference(succeeded, end, start) for name, end, start in _SPANS}
        if not is_floor:  # the floor is about starting
            values["stop_exit_ns"] = _difference(
                _obeyed(succeeded), "exit_seen_at_ns", "stop_requested_at_ns"
            )
        values["start_success_ratio"] = [float(v == "ok") for v in rows["outcome"].to_list()]
        _add_batch_values(values, rows, batches.filter(batches["is_floor"] == is_floor))
        samples += [
            Samples(metric=name, values=taken, group=group)
            for name, taken in values.items()
            if taken
        ]
    return tuple(samples)


def _obeyed(rows: pl.DataFrame) -> pl.DataFrame:
    """Returns the sandboxes that ended because they were asked to."""
    return rows.filter(rows["stop_error"].is_null() & rows["stop_requested_at_ns"].is_not_null())


def _add_batch_values(
    values: dict[str, list[float]], rows: pl.DataFrame, batches: pl.DataFrame
) -> None:
    """Adds the metrics that exist once a batch, or only for batches without a failure."""
    for batch in batches.iter_rows(named=True):
        members = rows.filter(rows["round"] == batch["round"])
        cpu_ns = batch["launcher_user_ns"] + batch["launcher_system_ns"]
        _append(values, "start_launcher_cpu_ns", cpu_ns / batch["starts_count"])
        invoked = members["invoked_at_ns"].drop_nulls().to_list()
        if invoked:
            _append(values, "start_release_skew_ns", max(invoked) - min(invoked))
        if members.height == 0 or not (members["outcome"] == "ok").all():
            # Books are read when the whole batch is decided: a failure that took its deadline
            # would charge the others for having waited.
            continue
        last = max(members["first_byte_at_ns"].to_list())
        _append(values, "start_makespan_ns", last - batch["released_at_ns"])
        for name, column in _BOOKS:
            values.setdefault(name, []).extend(
                float(value) for value in members[column].drop_nulls().to_list()
            )
        if not batch["is_floor"]:
            _add_teardown(values, members)


def _add_teardown(values: dict[str, list[float]], members: pl.DataFrame) -> None:
    """Adds the teardown of a batch, and of a sandbox where it was the only one.

    In a larger batch the looking begins when all have exited, so an instant of a single sandbox
    would contain the slowest exit of the others.
    """
    gone = members["gone_at_ns"]
    if _obeyed(members).height < members.height or gone.null_count() > 0:
        return
    spent_ns = max(gone.to_list()) - min(members["stop_requested_at_ns"].to_list())
    _append(values, "teardown_makespan_ns", spent_ns)
    if members.height == 1:
        _append(values, "teardown_ns", spent_ns)


def _append(values: dict[str, list[float]], name: str, value: float) -> None:
    values.setdefault(name, []).append(float(value))


def judge_start(tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
    """Returns a finding that names every way in which starts failed, with its count."""
    del point  # the trial's point is named by whoever prints the finding
    starts = tables.get("starts")
    if starts is None:
        return ()
    measured = starts.filter(~starts["is_floor"])
    findings = (_start_failures(measured), _stop_failures(measured))
    return tuple(finding for finding in findings if finding is not None)


def _start_failures(measured: pl.DataFrame) -> Finding | None:
    failed = measured.filter(measured["outcome"] != "ok")
    counts: dict[str, int] = {}
    for outcome in failed["outcome"].to_list():
        counts[outcome] = counts.get(outcome, 0) + 1
    kinds = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    words = [*failed["error"].to_list(), *failed["stderr_tail"].to_list()]
    first = next((text.strip() for text in words if text), "")
    return check_starts(
        failed_count=failed.height,
        starts_count=measured.height,
        reason=f"{kinds}: {first[-ERROR_TAIL_MAX:]}",
    )


def _stop_failures(measured: pl.DataFrame) -> Finding | None:
    up = measured.filter(measured["outcome"] == "ok")
    failed_count = up.height - _obeyed(up).height
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
