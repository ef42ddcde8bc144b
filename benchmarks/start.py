"""runc's start latency through Seatrial against a bare C loop that spawns and waits."""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest, micros_text
from benchmarks.tools import compiled
from seatrial import proc
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, DriverSession, SandboxSpec, new_run_id

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.series import Figures
    from benchmarks.settings import Settings

CONCURRENCIES = (1, 8)
BATCHES = {1: 10, 8: 3}
DEADLINE_NS = 30_000_000_000


class Starter:
    """Starts runc sandboxes of one session, by either launcher, from the same bundles."""

    def __init__(self, session: DriverSession, program: Path) -> None:
        self._session = session
        self._program = program
        self._next = 0

    def ours(self, concurrency: int) -> Figures:
        """First byte - due, by Seatrial's launcher: the median over the starts."""
        values: list[float] = []
        for _ in range(BATCHES[concurrency]):
            plans = [self._plan() for _ in range(concurrency)]
            batch = self._session.launcher.start(
                plans, wait_for="hello", hold=False, timeout_ns=2 * DEADLINE_NS
            )
            for result in batch.results:
                if result.first_byte_at_ns is None or result.due_at_ns is None:
                    raise RuntimeError(f"{result.id}: {result.outcome}: {result.error}")
                values.append(float(result.first_byte_at_ns - result.due_at_ns))
            self._release([plan.id for plan in plans])
        return {"first_byte_ns": statistics.median(values)}

    def theirs(self, concurrency: int) -> Figures:
        """First byte - release, by the C loop: the median over the starts."""
        values: list[float] = []
        for _ in range(BATCHES[concurrency]):
            plans = [self._plan() for _ in range(concurrency)]
            words = [str(self._program), str(concurrency)]
            for plan in plans:
                words += ["--", ",".join(plan.cgroup_procs), *plan.argv]
            done = proc.run(words, timeout_s=60)
            values += [float(line.split()[0]) for line in done.text.splitlines()]
            self._release([plan.id for plan in plans])
        return {"first_byte_ns": statistics.median(values)}

    def _plan(self):
        index, self._next = self._next, self._next + 1
        spec = SandboxSpec(role=("idle",), deadline_ns=DEADLINE_NS)
        return self._session.plan(spec, index)

    def _release(self, ids: list[str]) -> None:
        self._session.wait_all_gone(ids, time.monotonic_ns() + DEADLINE_NS)
        for plan_id in ids:
            self._session.release(plan_id)


def rows(settings: Settings) -> list[Row]:
    """The ratio at each concurrency, interleaved."""
    program = compiled("spawn_wait", settings.build)
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
            found.append(
                done.ratio(
                    Row(id="", name=f"runc start to first byte, {concurrency} at once"),
                    "first_byte_ns",
                    ours="ours",
                    theirs="C",
                    shown=micros_text,
                    target=Target(must=1.05, is_upper=True),
                )
            )
    return found
