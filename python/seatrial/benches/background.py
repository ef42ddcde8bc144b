"""Sandboxes that live beside the measured ones, kept from trial to trial.

They are brought up in batches, each verified by a ping, and counted before and after every storm.
Between trials their number is changed, not made anew: what is too many is stopped, what is missing
is started. Another driver or another load means other sandboxes.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from seatrial.benches.room import check_room, descriptor_count, needs_of, room_now, stop_grace_ns
from seatrial.benches.settling import settled_memory
from seatrial.drivers.base import SandboxSpec
from seatrial.errors import SeatrialError, TrialFailed
from seatrial.model.experiment import OWN_BACKGROUND, NetworkMode

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from seatrial.benches.base import Row
    from seatrial.drivers.base import DriverSession
    from seatrial.model.experiment import Experiment
    from seatrial.model.plan import TrialSpec
    from seatrial.probes.leaks import Leak

STARTS_AT_ONCE: Final = 10
START_DEADLINE_NS: Final = 60_000_000_000
GONE_TIMEOUT_NS: Final = 20_000_000_000
AXIS: Final = "background"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a trial wants to have beside it."""

    driver: str
    count: int
    load_ratio: float
    network: NetworkMode

    @property
    def kind(self) -> tuple[str, float, NetworkMode]:
        """What sandboxes must have in common to be kept."""
        return self.driver, self.load_ratio, self.network


def wanted_by(experiment: Experiment, spec: TrialSpec) -> Wanted | None:
    """What a trial wants beside it; None: to be alone."""
    count = int(spec.point.values.get(AXIS, 0))
    settings = experiment.start
    if count == 0 or settings is None:
        return None
    is_own = settings.background == OWN_BACKGROUND
    return Wanted(
        driver=spec.driver if is_own else settings.background,
        count=count,
        load_ratio=settings.background_load_ratio,
        network=experiment.network,
    )


class Background:
    """So many live sandboxes of one driver."""

    def __init__(self, session: DriverSession, wanted: Wanted) -> None:
        self._session = session
        self._wanted = wanted
        self._ids: list[str] = []
        self._next_index = 0
        self.started_count = 0

    @property
    def driver(self) -> str:
        """What runs them."""
        return self._wanted.driver

    @property
    def wanted_count(self) -> int:
        """How many there are to be."""
        return self._wanted.count

    @property
    def launcher_pid(self) -> int:
        """The process that started them."""
        return self._session.launcher.pid

    @property
    def session(self) -> DriverSession:
        """The session that they are sandboxes of."""
        return self._session

    def reach(self, wanted: Wanted) -> None:
        """Starts what is missing and stops what is too many.

        Raises:
            TrialFailed: some did not come up; says how many did and why the first did not.
            NoRoom: the host cannot take so many.
        """
        self._wanted = wanted
        self.started_count = 0
        self._bury_dead()
        self._stop(self._ids[wanted.count :])
        if len(self._ids) < wanted.count and not self._ids:
            # The first one alone tells what each of the others will take.
            before = descriptor_count(self._session.launcher.pid)
            self._start(1)
            needs = needs_of(self._session, self._ids[0], descriptors_before_count=before)
            room = room_now(self._session.launcher.pid)
            check_room(wanted.count - 1, needs=needs, room=room, driver=wanted.driver)
        while len(self._ids) < wanted.count:
            self._start(min(STARTS_AT_ONCE, wanted.count - len(self._ids)))

    def alive_count(self) -> int:
        """How many have a live process now."""
        return sum(bool(self._session.processes(plan_id)) for plan_id in self._ids)

    def cpu_ns(self) -> int | None:
        """CPU time charged to all of them so far; None: it is not booked."""
        books = [self._session.cgroups(plan_id).read_cpu() for plan_id in self._ids]
        known = [book.total_ns for book in books if book is not None]
        return sum(known) if len(known) == len(books) else None

    def row(self) -> Row:
        """Reads what they hold once it has settled, as a row of the table ``background``."""
        memory = settled_memory(self._session, self._ids)
        members = [tuple(self._session.processes(plan_id)) for plan_id in self._ids]
        charges = [self._session.cgroups(plan_id).read_memory() for plan_id in self._ids]
        known = [charge.usage_bytes for charge in charges if charge is not None]
        return {
            "driver": self.driver,
            "count": self._wanted.count,
            "alive_count": sum(bool(pids) for pids in members),
            "started_count": self.started_count,
            "pss_bytes": None if memory is None else memory.pss_bytes,
            "cgroup_bytes": sum(known) if len(known) == len(charges) else None,
            "processes_count": sum(len(pids) for pids in members),
        }

    def stop(self) -> None:
        """Stops and releases all of them."""
        self._stop(list(self._ids))

    def _start(self, count: int) -> None:
        load = self._wanted.load_ratio
        spec = SandboxSpec(
            role=("idle", "--load", f"{load:g}") if load else ("idle",),
            network=self._wanted.network,
            deadline_ns=START_DEADLINE_NS,
        )
        first, self._next_index = self._next_index, self._next_index + count
        plans = [self._session.plan(spec, first + number) for number in range(count)]
        batch = self._session.launcher.start(
            plans, wait_for="reply", hold=True, timeout_ns=2 * START_DEADLINE_NS
        )
        failed = [result for result in batch.results if result.outcome != "ok"]
        up = {result.id for result in batch.results if result.outcome == "ok"}
        self._ids += [plan.id for plan in plans if plan.id in up]
        self.started_count += len(up)
        for plan in plans:
            if plan.id not in up:
                self._session.release(plan.id)
        if failed:
            raise TrialFailed(
                f"background: only {len(self._ids)} of {self._wanted.count} sandboxes of "
                f"{self.driver} came up; {failed[0].id}: {failed[0].outcome}: {failed[0].error}: "
                f"{failed[0].stderr_tail[-400:]}",
                hint="ask for a smaller background_count, or see 'seatrial doctor'",
            )

    def _bury_dead(self) -> None:
        """Releases those that have ended by themselves since the last trial."""
        dead = [plan_id for plan_id in self._ids if not self._session.processes(plan_id)]
        self._stop(dead)

    def _stop(self, ids: Sequence[str]) -> None:
        if not ids:
            return
        gone = list(ids)
        self._session.launcher.stop(gone, how="request", grace_ns=stop_grace_ns(len(gone)))
        self._session.wait_all_gone(gone, time.monotonic_ns() + GONE_TIMEOUT_NS)
        for plan_id in gone:
            self._session.release(plan_id)
        self._ids = [plan_id for plan_id in self._ids if plan_id not in gone]


class BackgroundPool:
    """Keeps at most one background, as long as trials want its kind."""

    def __init__(self, open_session: Callable[[str, ExitStack], DriverSession]) -> None:
        """Takes how a session of a driver is opened on a stack that closes it."""
        self._open_session = open_session
        self._stack = ExitStack()
        self._background: Background | None = None
        self._session: DriverSession | None = None
        self._kind: tuple[str, float, NetworkMode] | None = None

    def reach(self, wanted: Wanted) -> Background:
        """Gives exactly what is wanted, from what there is.

        Raises:
            TrialFailed: they did not come up; those that did are removed by ``drop``.
            NoRoom: the host cannot take so many.
        """
        if self._background is None or self._kind != wanted.kind:
            self.drop()
            self._session = self._open_session(wanted.driver, self._stack)
            self._background, self._kind = Background(self._session, wanted), wanted.kind
        self._background.reach(wanted)
        return self._background

    def keep_for(self, wanted: Wanted | None) -> tuple[Leak, ...]:
        """Removes what the next trial has no use for; gives what stayed of it."""
        if self._background is None or (wanted is not None and wanted.kind == self._kind):
            return ()
        return self.drop()

    def drop(self) -> tuple[Leak, ...]:
        """Removes all of it; gives what stayed."""
        session, self._session = self._session, None
        background, self._background = self._background, None
        self._kind = None
        stack, self._stack = self._stack, ExitStack()
        with stack:
            if background is not None:
                # What cannot be asked to stop is killed when its session is closed.
                with suppress(SeatrialError):
                    background.stop()
            return () if session is None else session.audit()
