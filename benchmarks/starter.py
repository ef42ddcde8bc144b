"""Starts of a session's sandboxes by Seatrial's launcher and by the bare C loop: their ratio."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.duel import Duel, duel
from benchmarks.rows import Row, Target
from benchmarks.series import micros_text
from seatrial import proc
from seatrial.drivers.base import SandboxSpec
from seatrial.errors import EnvironmentTrouble
from seatrial.model.experiment import NetworkMode
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.quiet import Quiet
    from benchmarks.series import Figures, Shown
    from benchmarks.settings import Settings
    from seatrial.drivers.base import DriverSession
    from seatrial.launch.plan import StartPlan, StartResult

CONCURRENCIES = (1, 8, 32)
#: Of one run of a side: enough starts for a median of which a slow one is not a part.
BATCHES = {1: 4, 8: 1, 32: 1}
#: Of what no target waits for, and is not compared in quads.
MANY_BATCHES = {1: 6, 8: 2, 32: 1}
#: The fewest that give an interval at all, when it is only to be seen whether it works.
SMOKE_QUADS = 2
LEAN_STARTS_COUNT = 40
#: Of the closed loop whose rate is measured: as many as keep two processors busy.
SUSTAINED_AT_ONCE = 16
SUSTAINED_BATCHES_COUNT = 40
DEADLINE_NS = 30_000_000_000


class Starter:
    """Starts sandboxes of one session by either launcher, from the same preparations."""

    def __init__(
        self,
        session: DriverSession,
        program: Path,
        *,
        network: NetworkMode = NetworkMode.NONE,
        batches: Mapping[int, int] = BATCHES,
    ) -> None:
        self._session = session
        self._program = program
        self._network = network
        self._batches = batches
        self._next = 0

    def ours(self, concurrency: int) -> Figures:
        """First byte - due, by Seatrial's launcher: medians over the starts and the batches."""
        batches: list[list[float]] = []
        for _ in range(self._batches[concurrency]):
            plans = self._plans(concurrency)
            batch = self._session.launcher.start(
                plans, wait_for="hello", hold=False, timeout_ns=2 * DEADLINE_NS
            )
            values: list[float] = []
            for result in batch.results:
                if result.first_byte_at_ns is None or result.due_at_ns is None:
                    raise _failed(result)
                values.append(float(result.first_byte_at_ns - result.due_at_ns))
            batches.append(values)
            self._release(plans)
        return _figures(batches)

    def theirs(self, concurrency: int) -> Figures:
        """First byte - release, by the C loop: medians over the starts and the batches."""
        batches: list[list[float]] = []
        for _ in range(self._batches[concurrency]):
            plans = self._plans(concurrency)
            words = [str(self._program), str(concurrency)]
            for plan in plans:
                words += ["--", ",".join(plan.cgroup_procs), plan.channel_path or "-", *plan.argv]
            batches.append(_first_bytes(words))
            self._release(plans)
        return _figures(batches)

    def bare(self, guest: str) -> float:
        """First byte - release of the guest as a bare child of the C loop, in nobody's group."""
        words = [str(self._program), "1"]
        for _ in range(LEAN_STARTS_COUNT):
            words += ["--", "", "-", guest, "--channel-fd", "3", "idle"]
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
                raise _failed(result)
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
                raise _failed(failed[0])
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


def settled(settings: Settings) -> Settings:
    """Settings by which no run is repeated for a busy machine.

    What the kernel does later for namespaces and groups that have ended is in nobody's books, so
    every batch of many would look disturbed.
    """
    return replace(settings, tries=1)


def compare(
    starter: Starter,
    concurrency: int,
    *,
    settings: Settings,
    quiet: Quiet,
    quads: Mapping[int, int],
    ours: str = "ours",
) -> Duel:
    """Starts the same by our launcher and by the C loop, in turn; `quads` are those of a round."""
    starter.ours(concurrency)  # the first start of a session finds cold files
    return duel(
        {ours: partial(starter.ours, concurrency), "C": partial(starter.theirs, concurrency)},
        rounds=settings.rounds,
        quads=quads[concurrency] if settings.rounds > 1 else SMOKE_QUADS,
        quiet=quiet,
    )


def ratio_rows(done: Duel, what: str, concurrency: int, *, shown: Shown = micros_text) -> list[Row]:
    """Returns our launcher's time over the C loop's, by what both have to do."""
    return [
        done.ratio(f"{what} to {event}, {concurrency} at once", figure, shown=shown, target=target)
        for event, figure, target in compared(concurrency)
    ]


def compared(concurrency: int) -> list[tuple[str, str, Target | None]]:
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


def _failed(result: StartResult) -> EnvironmentTrouble:
    words = result.error or result.stderr_tail.strip()
    return EnvironmentTrouble(f"{result.id}: {result.outcome}: {words}")


def _first_bytes(words: Sequence[str]) -> list[float]:
    """The first figure of each line of the C loop (ns).

    Raises:
        EnvironmentTrouble: a command ended without a word.
    """
    values = [float(line.split()[0]) for line in proc.run(words, timeout_s=60).text.splitlines()]
    if any(value < 0 for value in values):
        command = " ".join(words[4:10])
        raise EnvironmentTrouble(f"{command} ...: ended without a word to the C loop")
    return values
