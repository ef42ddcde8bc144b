"""Our own lean sandboxes against a bare child, and against the clock."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest, micros_text, rate_text
from benchmarks.starter import LEAN_STARTS_COUNT, Starter
from benchmarks.tools import compiled
from seatrial import proc
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, new_run_id
from seatrial.guest.binary import guest_binary
from seatrial.model.experiment import NetworkMode
from seatrial.units import NS_PER_US

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.series import Contest, Figures
    from benchmarks.settings import Settings


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
    LeanCase(
        driver="lean-pooled",
        network=NetworkMode.NONE,
        words="own empty network, used again",
    ),
    LeanCase(driver="lean", network=NetworkMode.HOST, words="the host's network"),
)


def rows(settings: Settings) -> list[Row]:
    """What lean sandboxes cost beyond a bare child, and how many can be had a second."""
    program = compiled("spawn_wait", settings.build)
    return [row for case in LEAN_CASES for row in _rows_of_case(settings, program, case)]


def _rows_of_case(settings: Settings, program: Path, case: LeanCase) -> list[Row]:
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
