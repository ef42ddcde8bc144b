"""runc by Seatrial's launcher against a bare C loop that spawns and waits."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.quiet import Quiet
from benchmarks.starter import CONCURRENCIES, Starter, compare, ratio_rows, settled
from benchmarks.tools import compiled
from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, new_run_id

if TYPE_CHECKING:
    from benchmarks.rows import Row
    from benchmarks.settings import Settings

#: Of a round: one quad has a ratio that is off by a tenth, so a hundred of them are off by one
#: percent, and the target is three away.
QUADS = {1: 60, 8: 25, 32: 12}


def rows(settings: Settings) -> list[Row]:
    """The ratios at each concurrency."""
    program = compiled("spawn_wait", settings.build)
    found: list[Row] = []
    with ExitStack() as stack:
        context = DriverContext.for_run(new_run_id("bench-"))
        session = stack.enter_context(registry.get("runc").open(context))
        starter = Starter(session, program)
        for concurrency in CONCURRENCIES:
            quiet = Quiet(settled(settings))
            quiet.add_helpers([session.launcher.pid])
            done = compare(starter, concurrency, settings=settings, quiet=quiet, quads=QUADS)
            found += ratio_rows(done, "runc start", concurrency)
    return found
