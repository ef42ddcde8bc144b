"""How fast does a sandbox start: alone, and N at once? What CPU does a start cost?

One round releases ``concurrency`` starts by one barrier in the launcher, waits until each sandbox
has answered a ping, reads its cgroup's CPU books, then asks all to stop and looks, while they do,
when nothing of each is left. The launcher's floor, the same number of null starts, is taken in the
same round, before or after it in turn. Other sandboxes may live beside them (``background``), and
the files that a start reads may be in the page cache or not. METHODOLOGY 3 defines each number.
"""

from __future__ import annotations

import dataclasses
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from seatrial.benches.base import BenchTrial, Samples, TrialContext, TrialTables
from seatrial.benches.room import check_room, descriptor_count, needs_of, room_now, stop_grace_ns
from seatrial.benches.start_books import CONTROL_ROUND, Books
from seatrial.benches.start_derive import derive_start, start_row
from seatrial.benches.start_judge import judge_start
from seatrial.benches.start_metrics import METRICS
from seatrial.drivers.base import SandboxSpec
from seatrial.model.experiment import CacheState
from seatrial.model.metric import Metric
from seatrial.probes.residency import cool_files, read_residency, warm_files
from seatrial.stats.validity import check_leftovers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import polars as pl

    from seatrial.benches.background import Background
    from seatrial.benches.base import Row
    from seatrial.drivers.base import DriverSession, Stopped
    from seatrial.drivers.cost import Cost
    from seatrial.launch.plan import StartBatch, StartPlan
    from seatrial.model.experiment import Experiment, StartSettings
    from seatrial.model.finding import Finding
    from seatrial.model.plan import Point

NULL_DRIVER = "null"
GONE_TIMEOUT_NS = 10_000_000_000
LAUNCH_MARGIN_NS = 15_000_000_000
NS_PER_S = 1_000_000_000
#: The quiet gate, and the floor's own starts.
ROUND_OVERHEAD_NS = 150_000_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StartBench:
    """Start latency, makespan, CPU and teardown at one concurrency."""

    name: str = "start"
    question: str = "How fast does a sandbox start, alone and N at once, and what CPU does it cost?"
    headline: str = "start_first_byte_ns"
    metrics: tuple[Metric, ...] = METRICS

    def estimate_ns(self, experiment: Experiment, point: Point, cost: Cost) -> int:
        """Returns a rough length: starts and ends, queued on the processors."""
        settings = cast("StartSettings", experiment.start)
        per_round_ns = ROUND_OVERHEAD_NS + cost.batch_ns(int(point.values["concurrency"]))
        company_ns = cost.batch_ns(int(point.values.get("background", 0)))
        return settings.control_window_ns + company_ns + settings.rounds * per_round_ns

    def open(self, context: TrialContext) -> BenchTrial:
        """Returns the trial."""
        return StartTrial(context)

    def derive(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Samples, ...]:
        """Returns the samples; see METRICS for each formula."""
        return derive_start(tables, point)

    def judge(self, tables: Mapping[str, pl.DataFrame], point: Point) -> tuple[Finding, ...]:
        """Returns what went wrong with starts, stops, the barrier, caches and company."""
        return judge_start(tables, point)


class StartTrial:
    """One trial: ``rounds`` batches, each with its floor."""

    def __init__(self, context: TrialContext) -> None:
        self._context = context
        self._settings = cast("StartSettings", context.experiment.start)
        self._concurrency = int(context.spec.point.values["concurrency"])
        self._is_cold = context.spec.point.values.get("cache") == CacheState.COLD
        self._background: Background | None = None
        self._next_index = 0
        self.tables = TrialTables()
        self.findings: list[Finding] = []

    def set_up(self) -> None:
        """Brings up the company, then opens the session of the runtime and of the null runtime."""
        self._background = self._context.background()
        if self._background is not None:
            self.tables.add("background", self._background.row())
        self._session = self._context.open_session(self._context.spec.driver)
        self._floor = self._context.open_session(NULL_DRIVER)

    def warm_up(self) -> None:
        """Starts one sandbox and one null process, both thrown away; looks whether N will fit."""
        warm = TrialTables()
        self._batch(self._floor, count=1, round_number=0, tables=warm)
        self._check_room()
        for session in (self._floor, self._session):
            warm_files(session.image_files())

    def _check_room(self) -> None:
        """Starts one sandbox, and refuses the trial if so many of it cannot be had.

        Raises:
            NoRoom: the host cannot take them.
        """
        session = self._session
        descriptors_before = descriptor_count(session.launcher.pid)
        plan = self._plan(session, is_floor=False)
        with ExitStack() as stack:
            stack.callback(session.release, plan.id)
            batch = self._start(session, [plan], is_floor=False)
            if batch.results[0].outcome == "ok":
                needs = needs_of(session, plan.id, descriptors_before_count=descriptors_before)
                self._stop(session, [plan])
                room = room_now(session.launcher.pid)
                check_room(self._concurrency, needs=needs, room=room, driver=session.name)

    def measure(self) -> None:
        """Watches the host without a start, then runs the rounds in one gated window each."""
        if self._settings.control_window_ns:
            with self._context.window("control"):
                self._control()
        for round_number in range(self._settings.rounds):
            with self._context.window(f"round-{round_number}"):
                for session in self._order(round_number):
                    self._batch(
                        session,
                        count=self._concurrency,
                        round_number=round_number,
                        tables=self.tables,
                    )

    def _control(self) -> None:
        books = Books(self._session, self._background)
        before = books.open()
        time.sleep(self._settings.control_window_ns / NS_PER_S)
        self.tables.add(
            "books",
            books.close(
                before,
                round_number=CONTROL_ROUND,
                is_floor=False,
                starts_count=0,
                sandboxes_cpu_ns=0,
            ),
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

    def _start(
        self, session: DriverSession, plans: Sequence[StartPlan], *, is_floor: bool
    ) -> StartBatch:
        return session.launcher.start(
            plans,
            wait_for="hello" if is_floor else "reply",
            hold=True,
            timeout_ns=self._settings.deadline_ns + LAUNCH_MARGIN_NS,
        )

    def _run_batch(
        self,
        session: DriverSession,
        plans: Sequence[StartPlan],
        *,
        round_number: int,
        is_floor: bool,
        tables: TrialTables,
    ) -> None:
        row = self._cache_row(session)
        books = Books(session, self._background)
        before = books.open()
        batch = self._start(session, plans, is_floor=is_floor)
        cpu = {plan.id: session.cgroups(plan.id).read_cpu() for plan in plans}
        known = [reading.total_ns for reading in cpu.values() if reading is not None]
        tables.add(
            "books",
            books.close(
                before,
                round_number=round_number,
                is_floor=is_floor,
                starts_count=len(plans),
                sandboxes_cpu_ns=sum(known) if len(known) == len(plans) else None,
            ),
        )
        row.update(
            round=round_number,
            is_floor=is_floor,
            starts_count=len(plans),
            released_at_ns=batch.released_at_ns,
            launcher_user_ns=batch.launcher_user_ns,
            launcher_system_ns=batch.launcher_system_ns,
        )
        if self._background is not None and not is_floor:  # counting hundreds takes its time
            row["background_count"] = self._background.wanted_count
            row["background_alive_count"] = self._background.alive_count()
        tables.add("batches", row)
        stopped = self._stop(session, plans)
        stops = {stop.id: stop for stop in stopped.stops}
        self.findings += self._leftovers(stopped.gone_at_ns)
        for position, result in enumerate(batch.results):
            reading = cpu[result.id]
            start = start_row(result, stops.get(result.id))
            start.update(
                session.milestones(result.id),
                round=round_number,
                position=position,
                is_floor=is_floor,
                cgroup_cpu_ns=None if reading is None else reading.total_ns,
                cgroup_user_ns=None if reading is None else reading.user_ns,
                cgroup_system_ns=None if reading is None else reading.system_ns,
                gone_at_ns=stopped.gone_at_ns[result.id],
            )
            tables.add("starts", start)

    def _cache_row(self, session: DriverSession) -> Row:
        """Brings the files that a start reads into the state asked for, and looks at them."""
        files = session.image_files()
        if self._is_cold:
            cool_files(files)
        return {"resident_ratio": read_residency(files).ratio}

    def _stop(self, session: DriverSession, plans: Sequence[StartPlan]) -> Stopped:
        ids = [plan.id for plan in plans]
        return session.stop_watched(
            ids, grace_ns=stop_grace_ns(len(ids)), gone_timeout_ns=GONE_TIMEOUT_NS
        )

    def _leftovers(self, gone: Mapping[str, int | None]) -> list[Finding]:
        stayed = [plan_id for plan_id, gone_at_ns in gone.items() if gone_at_ns is None]
        finding = check_leftovers(leftovers=[f"sandbox {plan_id}" for plan_id in stayed])
        return [] if finding is None else [finding]
