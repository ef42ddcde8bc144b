"""The launcher's floor: what a start costs that starts next to nothing, alone and many at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from seatrial.doctor.check import About, Check, Group
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.errors import SeatrialError
from seatrial.launch.plan import Outcome
from seatrial.loadgen import build_info
from seatrial.units import format_duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from seatrial.drivers.base import DriverSession

SAY: Final = About(Group.LAUNCHER)
#: How many starts at once, and how often.
STORMS: Final = ((1, 10), (10, 2), (50, 1))
DEADLINE_NS: Final = 5_000_000_000
RELEASE: Final = "release"
FIX: Final = "build it anew: make build"


def check_launcher() -> Iterator[Check]:
    """Start null processes: one, ten, fifty at once."""
    yield _build()
    context = DriverContext.for_run(new_run_id("doctor-"))
    try:
        with registry.get("null").open(context) as session:
            for concurrency, rounds in STORMS:
                yield _storm(session, concurrency, rounds)
    except SeatrialError as error:
        yield SAY.broken(
            "launcher",
            error.message,
            so="nothing can be started, and so nothing measured",
            fix=error.hint or FIX,
        )


def _build() -> Check:
    core = build_info()
    evidence = f"core {core.version}, {core.profile} build"
    if core.profile == RELEASE:
        return SAY.ok("build", evidence)
    return SAY.warn("build", evidence, so="numbers of a debug build mean nothing", fix=FIX)


def _storm(session: DriverSession, concurrency: int, rounds: int) -> Check:
    times_ns: list[int] = []
    failures: list[str] = []
    for number in range(rounds):
        specs = SandboxSpec(role=("null",), ready="hello", deadline_ns=DEADLINE_NS)
        plans = [session.plan(specs, number * concurrency + one) for one in range(concurrency)]
        batch = session.launcher.start(
            plans, wait_for="hello", hold=False, timeout_ns=2 * DEADLINE_NS
        )
        for result in batch.results:
            if result.outcome is Outcome.OK and result.first_byte_at_ns is not None:
                times_ns.append(result.first_byte_at_ns - result.due_at_ns)
            else:
                failures.append(result.error or str(result.outcome))
        for plan in plans:
            session.release(plan.id)
    return judge_storm(concurrency, sorted(times_ns), failures)


def judge_storm(concurrency: int, times_ns: Sequence[int], failures: Sequence[str]) -> Check:
    """Judge one storm; ``times_ns`` is sorted; pure."""
    name = "alone" if concurrency == 1 else f"{concurrency} at once"
    if failures:
        return SAY.broken(
            name,
            f"{len(failures)} of {len(failures) + len(times_ns)} starts failed: {failures[0]}",
            so="storms of that size cannot be measured here",
            fix="see 'limit of processes', 'process ids' and 'memory'",
        )
    middle_ns, last_ns = times_ns[len(times_ns) // 2], times_ns[-1]
    evidence = (
        f"a null process says its first word after {format_duration(middle_ns)} (p50), "
        f"{format_duration(last_ns)} (longest of {len(times_ns)})"
    )
    return SAY.ok(name, evidence, values={"p50_ns": middle_ns, "longest_ns": last_ns})
