"""Tests of whole sandboxes: a new one for each try, that says hello, or that is looked at.

The host's clock and books are what counts here: the time until the runtime's own program has ended,
the CPU time of the sandbox's control group and not of a client that only asks a daemon, and the
memory of its processes on the host beside what the sandbox believes.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final, cast

from seatrial.benches.attempts import Attempt, Outcome
from seatrial.benches.base import TrialContext, TrialTables
from seatrial.benches.settling import SETTLE_TIMEOUT_NS, settled_memory
from seatrial.drivers.base import SandboxSpec
from seatrial.errors import DriverError, TrialFailed
from seatrial.guest.channel import GuestChannel
from seatrial.model.experiment import InsideTest
from seatrial.probes.memory import parse_kib_fields
from seatrial.stats.validity import check_leftovers
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.drivers.base import DriverSession
    from seatrial.launch import StartPlan, StartResult, StopResult
    from seatrial.model.experiment import InsideSettings
    from seatrial.model.finding import Finding
    from seatrial.probes.cgroup_books import CpuReading

GONE_TIMEOUT_NS: Final = 10_000_000_000
STOP_GRACE_NS: Final = 5_000_000_000
LAUNCH_MARGIN_NS: Final = 15_000_000_000


class FreshTrial:
    """One sandbox after another; ``test`` says what is done with each."""

    def __init__(self, context: TrialContext, test: InsideTest) -> None:
        self._context = context
        self._settings = cast("InsideSettings", context.experiment.inside)
        self._try = self._hello if test is InsideTest.HELLO else self._memory
        self._session: DriverSession | None = None
        self._next_index = 0
        self.tables = TrialTables()
        self.findings: list[Finding] = []

    def set_up(self) -> None:
        """Opens the session."""
        self._session = self._context.open_session(self._context.spec.driver)

    def warm_up(self) -> None:
        """Does nothing: the first try is kept, as first touch."""

    def measure(self) -> None:
        """Tries once for first touch, then as often as asked."""
        with self._context.window("inside"):
            for position in range(self._settings.repeats + 1):
                self._try(position).store(self.tables)

    def drain(self) -> None:
        """Does nothing: each sandbox is gone before the next."""

    def tear_down(self) -> None:
        """Does nothing: the session is closed by the runner, with whatever an error left in it."""

    def _hello(self, position: int) -> Attempt:
        """Starts a sandbox whose program says one word and ends, and waits for its runtime."""
        session = self._live()
        plan = self._plan(("null",), ready="hello")
        try:
            before = session.cgroups(plan.id).read_cpu()
            started = self._start(plan, wait_for="hello")
            if started.outcome != "ok":
                return _not_started("hello", position, started)
            stop = self._end(plan)
            cpu = _spent(session.cgroups(plan.id).read_cpu(), before)
            return _hello_row(position, started, stop, cpu=cpu)
        finally:
            session.release(plan.id)

    def _memory(self, position: int) -> Attempt:
        """Starts an idle sandbox and reads its memory from both sides."""
        session = self._live()
        plan = self._plan(("idle",), ready="ready")
        try:
            started = self._start(plan, wait_for="ready")
            if started.outcome != "ok":
                return _not_started("memory", position, started)
            try:
                with GuestChannel(session.launcher.channel(plan.id), name=plan.id) as channel:
                    channel.ping()
                    on_host = self._host_memory(plan)
                    view = guest_memory(str(channel.run({"probe": "memory-view"})["meminfo"]))
            except DriverError as error:
                return _failed("memory", position, error.message)
            self._end(plan)
            return Attempt(
                work="memory",
                position=position,
                outcome=Outcome.OK,
                readings={**on_host, **view},
            )
        finally:
            session.release(plan.id)

    def _host_memory(self, plan: StartPlan) -> dict[str, float]:
        """Reads PSS and charge once settled: a pod's shims join it after its guest has answered.

        Raises:
            DriverError: they do not settle.
        """
        session = self._live()
        memory = settled_memory(session, [plan.id])
        if memory is None and session.processes(plan.id):
            waited = format_duration(SETTLE_TIMEOUT_NS)
            raise DriverError(f"the memory of its processes did not settle within {waited}")
        readings: dict[str, float] = {} if memory is None else {"idle_pss_bytes": memory.pss_bytes}
        charged = session.cgroups(plan.id).read_memory()
        if charged is not None:
            readings["idle_cgroup_bytes"] = charged.usage_bytes
        return readings

    def _plan(self, role: tuple[str, ...], *, ready: str) -> StartPlan:
        index, self._next_index = self._next_index, self._next_index + 1
        spec = SandboxSpec(
            role=role,
            network=self._context.experiment.network,
            ready="hello" if ready == "hello" else "ready",
            deadline_ns=self._settings.deadline_ns,
        )
        return self._live().plan(spec, index)

    def _start(self, plan: StartPlan, *, wait_for: str) -> StartResult:
        batch = self._live().launcher.start(
            [plan],
            wait_for="hello" if wait_for == "hello" else "ready",
            hold=True,
            timeout_ns=self._settings.deadline_ns + LAUNCH_MARGIN_NS,
        )
        return batch.results[0]

    def _end(self, plan: StartPlan) -> StopResult:
        session = self._live()
        stops = session.launcher.stop([plan.id], how="request", grace_ns=STOP_GRACE_NS)
        gone = session.wait_gone(plan.id, time.monotonic_ns() + GONE_TIMEOUT_NS)
        stayed = check_leftovers(leftovers=[f"sandbox {plan.id}"] if gone is None else [])
        if stayed is not None:
            self.findings.append(stayed)
        return stops[0]

    def _live(self) -> DriverSession:
        if self._session is None:
            raise TrialFailed("inside: a phase ran before set-up")
        return self._session


def guest_memory(meminfo: str) -> dict[str, float]:
    """Returns what ``free`` would call used and total, from the sandbox's /proc/meminfo; pure."""
    fields = parse_kib_fields(meminfo)
    if "MemTotal" not in fields or "MemFree" not in fields:
        return {}
    caches = sum(fields.get(name, 0) for name in ("Buffers", "Cached", "SReclaimable"))
    used = fields["MemTotal"] - fields["MemFree"] - caches
    return {"guest_total_bytes": fields["MemTotal"], "guest_used_bytes": max(used, 0)}


def _hello_row(
    position: int, started: StartResult, stop: StopResult, *, cpu: Mapping[str, int]
) -> Attempt:
    if stop.exit_code != 0 or stop.exit_seen_at_ns is None:
        how = stop.error or f"exit code {stop.exit_code}, signal {stop.signal}"
        return _failed("hello", position, f"its end was not a good one: {how} {stop.stderr_tail}")
    readings: dict[str, float] = {"hello_real_ns": stop.exit_seen_at_ns - started.due_at_ns}
    readings |= {f"hello_{name}_ns": value for name, value in cpu.items()}
    if stop.user_ns is not None and stop.system_ns is not None:
        readings["hello_client_cpu_ns"] = stop.user_ns + stop.system_ns
    return Attempt(
        work="hello",
        position=position,
        outcome=Outcome.OK,
        exit_code=stop.exit_code,
        host_elapsed_ns=stop.exit_seen_at_ns - started.due_at_ns,
        user_ns=stop.user_ns,
        system_ns=stop.system_ns,
        cgroup_cpu_ns=cpu.get("cpu"),
        cgroup_user_ns=cpu.get("user"),
        cgroup_system_ns=cpu.get("system"),
        readings=readings,
    )


def _spent(after: CpuReading | None, before: CpuReading | None) -> dict[str, int]:
    """Returns the growth of the books by what is known of them."""
    if after is None or before is None:
        return {}
    spent = {"cpu": after.total_ns - before.total_ns}
    for name in ("user", "system"):
        late, early = getattr(after, f"{name}_ns"), getattr(before, f"{name}_ns")
        if late is not None and early is not None:
            spent[name] = late - early
    return spent


def _not_started(work: str, position: int, result: StartResult) -> Attempt:
    reason = f"{result.outcome}: {result.error or ''} {result.stderr_tail[-300:]}".strip()
    outcome = Outcome.TIMED_OUT if result.outcome == "timed-out" else Outcome.FAILED
    return Attempt(work=work, position=position, outcome=outcome, reason=reason)


def _failed(work: str, position: int, reason: str) -> Attempt:
    return Attempt(work=work, position=position, outcome=Outcome.FAILED, reason=reason)
