"""Seatrial's launcher against a bare C loop that spawns and waits, and our own lean sandbox."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest, micros_text, rate_text
from benchmarks.tools import compiled
from seatrial import proc
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, DriverSession, SandboxSpec, new_run_id
from seatrial.guest.binary import guest_binary
from seatrial.model.experiment import NetworkMode
from seatrial.units import NS_PER_S, NS_PER_US

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.series import Contest, Figures
    from benchmarks.settings import Settings
    from seatrial.launch.plan import StartPlan

CONCURRENCIES = (1, 8, 32)
#: Enough starts for a median of which a few slow ones are not a part.
BATCHES = {1: 15, 8: 3, 32: 1}
LEAN_STARTS_COUNT = 40
#: Of the closed loop whose rate is measured: as many as keep two processors busy.
SUSTAINED_AT_ONCE = 16
SUSTAINED_BATCHES_COUNT = 40
DEADLINE_NS = 30_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class LeanCase:
    """One way in which lean sandboxes are started."""

    driver: str
    network: NetworkMode
    words: str
    floor_kinds: str = ""
    """The namespaces of a bare clone to be measured beside it, as `clone_floor.c` has them."""


LEAN_CASES = (
    LeanCase(
        driver="lean",
        network=NetworkMode.NONE,
        words="own empty network made within the clock",
        floor_kinds="puin",
    ),
    LeanCase(
        driver="lean-prepared",
        network=NetworkMode.NONE,
        words="own empty network made before",
    ),
    LeanCase(driver="lean", network=NetworkMode.HOST, words="the host's network"),
)


class Starter:
    """Starts sandboxes of one session by either launcher, from the same preparations."""

    def __init__(
        self,
        session: DriverSession,
        program: Path,
        *,
        network: NetworkMode = NetworkMode.NONE,
    ) -> None:
        self._session = session
        self._program = program
        self._network = network
        self._next = 0

    def ours(self, concurrency: int) -> Figures:
        """First byte - due, by Seatrial's launcher: medians over the starts and the batches."""
        batches: list[list[float]] = []
        for _ in range(BATCHES[concurrency]):
            plans = self._plans(concurrency)
            batch = self._session.launcher.start(
                plans, wait_for="hello", hold=False, timeout_ns=2 * DEADLINE_NS
            )
            values: list[float] = []
            for result in batch.results:
                if result.first_byte_at_ns is None or result.due_at_ns is None:
                    raise RuntimeError(f"{result.id}: {result.outcome}: {result.error}")
                values.append(float(result.first_byte_at_ns - result.due_at_ns))
            batches.append(values)
            self._release(plans)
        return _figures(batches)

    def theirs(self, concurrency: int) -> Figures:
        """First byte - release, by the C loop: medians over the starts and the batches."""
        batches: list[list[float]] = []
        for _ in range(BATCHES[concurrency]):
            plans = self._plans(concurrency)
            words = [str(self._program), str(concurrency)]
            for plan in plans:
                words += ["--", ",".join(plan.cgroup_procs), *plan.argv]
            batches.append(_first_bytes(words))
            self._release(plans)
        return _figures(batches)

    def bare(self, guest: str) -> float:
        """First byte - release of the guest as a bare child of the C loop, in nobody's group."""
        words = [str(self._program), "1"]
        for _ in range(LEAN_STARTS_COUNT):
            words += ["--", "", guest, "--channel-fd", "3", "idle"]
        return statistics.median(_first_bytes(words))

    def ready(self) -> float:
        """READY - due of one sandbox at a time, by Seatrial's launcher (ns)."""
        values: list[float] = []
        for _ in range(LEAN_STARTS_COUNT):
            plans = self._plans(1)
            batch = self._session.launcher.start(
                plans, wait_for="ready", hold=False, timeout_ns=2 * DEADLINE_NS
            )
            result = batch.results[0]
            if result.ready_at_ns is None or result.due_at_ns is None:
                raise RuntimeError(f"{result.id}: {result.outcome}: {result.error}")
            values.append(float(result.ready_at_ns - result.due_at_ns))
            self._release(plans)
        return statistics.median(values)

    def sustained(self) -> Figures:
        """Starts a second of a closed loop of batches, each ready, stopped and reaped.

        What is prepared (groups) and removed is outside of the first figure, inside the second.
        """
        started_ns = time.monotonic_ns()
        batches = [self._plans(SUSTAINED_AT_ONCE) for _ in range(SUSTAINED_BATCHES_COUNT)]
        looped_ns = time.monotonic_ns()
        for plans in batches:
            batch = self._session.launcher.start(
                plans, wait_for="ready", hold=False, timeout_ns=2 * DEADLINE_NS
            )
            failed = [result for result in batch.results if result.outcome != "ok"]
            if failed:
                raise RuntimeError(f"{failed[0].id}: {failed[0].outcome}: {failed[0].error}")
        ended_ns = time.monotonic_ns()
        for plans in batches:
            self._release(plans)
        count = SUSTAINED_AT_ONCE * SUSTAINED_BATCHES_COUNT
        return {
            "starts_rps": count / (ended_ns - looped_ns) * NS_PER_S,
            "all_rps": count / (time.monotonic_ns() - started_ns) * NS_PER_S,
        }

    def _plans(self, count: int) -> list[StartPlan]:
        first, self._next = self._next, self._next + count
        spec = SandboxSpec(role=("idle",), network=self._network, deadline_ns=DEADLINE_NS)
        return [self._session.plan(spec, first + number) for number in range(count)]

    def _release(self, plans: Sequence[StartPlan]) -> None:
        ids = [plan.id for plan in plans]
        self._session.wait_all_gone(ids, time.monotonic_ns() + DEADLINE_NS)
        for plan_id in ids:
            self._session.release(plan_id)


def rows(settings: Settings) -> list[Row]:
    """The ratios for runc, interleaved, and what lean costs beyond a bare child."""
    program = compiled("spawn_wait", settings.build)
    found = _runc_rows(settings, program)
    for case in LEAN_CASES:
        found += _lean_rows(settings, program, case)
    return found


def _runc_rows(settings: Settings, program: Path) -> list[Row]:
    found: list[Row] = []
    with ExitStack() as stack:
        context = DriverContext.for_run(new_run_id("bench-"))
        session = stack.enter_context(registry.get("runc").open(context))
        quiet = Quiet(settings)
        quiet.add_helpers([session.launcher.pid])
        starter = Starter(session, program)
        for concurrency in CONCURRENCIES:
            starter.ours(concurrency)  # the first start of a session finds cold files
            done = contest(
                {
                    "ours": lambda: starter.ours(concurrency),  # noqa: B023 - called within the iteration
                    "C": lambda: starter.theirs(concurrency),  # noqa: B023 - called within the iteration
                },
                rounds=settings.rounds,
                quiet=quiet,
            )
            found += [
                done.ratio(
                    Row(id="", name=f"runc start to {what}, {concurrency} at once"),
                    figure,
                    ours="ours",
                    theirs="C",
                    shown=micros_text,
                    target=target,
                )
                for what, figure, target in _compared(concurrency)
            ]
    return found


def _compared(concurrency: int) -> list[tuple[str, str, Target | None]]:
    """What of a batch is compared, and with which target.

    The C loop lets one start run ahead of the next, ours releases all at one instant: with more
    starts than processors its median is that of a queue and ours that of a crowd, so what both
    have to do is seen when the whole batch is up.
    """
    target = Target(must=1.03, is_upper=True)
    if concurrency == 1:
        return [("first byte", "first_byte_ns", target)]
    return [
        ("the last first byte", "makespan_ns", target),
        ("first byte, median", "first_byte_ns", None),
    ]


def _figures(batches: Sequence[Sequence[float]]) -> Figures:
    return {
        "first_byte_ns": statistics.median(value for values in batches for value in values),
        "makespan_ns": statistics.median(max(values) for values in batches),
    }


def _lean_rows(settings: Settings, program: Path, case: LeanCase) -> list[Row]:
    """What a lean sandbox takes beyond vfork and exec of the guest, and how many a second."""
    with ExitStack() as stack:
        context = DriverContext.for_run(new_run_id("bench-"))
        session = stack.enter_context(registry.get(case.driver).open(context))
        quiet = Quiet(settings)
        quiet.add_helpers([session.launcher.pid])
        starter = Starter(session, program, network=case.network)
        starter.ready()  # the first start of a session finds cold files
        contenders = {"lean": partial(_beyond, starter), "sustained": starter.sustained}
        if case.floor_kinds:
            floor = compiled("clone_floor", settings.build)
            contenders["floor"] = partial(_clone_floor, floor, case.floor_kinds)
        done = contest(contenders, rounds=settings.rounds, quiet=quiet)
    return _rows_of_lean(done, f"{case.driver}, {case.words}")


def _clone_floor(program: Path, kinds: str) -> Figures:
    """The clone alone of a process with namespaces, by a C program (ns)."""
    words = [str(program), str(LEAN_STARTS_COUNT), kinds]
    values = [float(line) for line in proc.run(words, timeout_s=60).text.splitlines()]
    return {"clone_ns": statistics.median(values)}


def _beyond(starter: Starter) -> Figures:
    ready_ns, bare_ns = starter.ready(), starter.bare(str(guest_binary()))
    return {"beyond_ns": ready_ns - bare_ns, "ready_ns": ready_ns, "bare_ns": bare_ns}


def _rows_of_lean(done: Contest, case: str) -> list[Row]:
    found = [
        done.bound(
            Row(id="", name=f"{case}: release to READY, beyond a bare vfork+exec"),
            "beyond_ns",
            ours="lean",
            shown=micros_text,
            scale=NS_PER_US,
            target=Target(must=500, is_upper=True, unit=" us"),
        ),
        done.bound(
            Row(id="", name=f"{case}: starts a second, each ready, stopped and reaped"),
            "starts_rps",
            ours="sustained",
            shown=rate_text,
            scale=1,
            target=Target(must=1000, unit="/s"),
        ),
        done.bound(
            Row(id="", name=f"{case}: the same with groups made and removed by Python"),
            "all_rps",
            ours="sustained",
            shown=rate_text,
            scale=1,
            target=None,
        ),
    ]
    if "floor" in done.sides:
        what = "a bare clone with pid, UTS, IPC and network namespaces"
        found.append(
            done.bound(
                Row(id="", name=f"{what}, to its child's first instruction"),
                "clone_ns",
                ours="floor",
                shown=micros_text,
                scale=NS_PER_US,
                target=None,
            )
        )
    return found


def _first_bytes(words: Sequence[str]) -> list[float]:
    """The first figure of each line of the C loop (ns).

    Raises:
        RuntimeError: a command ended without a word.
    """
    values = [float(line.split()[0]) for line in proc.run(words, timeout_s=60).text.splitlines()]
    if any(value < 0 for value in values):
        raise RuntimeError(f"{words[3:6]}: ended without a word")
    return values
