"""T16 and T17: what the engine itself costs, in CPU time a request and in memory a minute."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks import engine
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest
from benchmarks.servers import echo_server
from benchmarks.watched import ENGINE, watch
from seatrial.units import MIB, NS_PER_S

if TYPE_CHECKING:
    from benchmarks.series import Figures, Side
    from benchmarks.settings import Settings

#: A modelled server in the engine's own memory: no system call is made for a request.
FAKE = "fake://?workers=1&service=constant:1us"
FAKE_NS = 2 * NS_PER_S
RATE_RPS = 100_000.0
SAMPLE_PAUSE = 0.05


def rows(settings: Settings) -> list[Row]:
    """Returns one row for each of the two."""
    quiet = Quiet(settings)
    cpu = contest({"ours": lambda: per_request(settings)}, rounds=settings.rounds, quiet=quiet)
    memory = contest({"ours": lambda: growth(settings, quiet)}, rounds=1, quiet=quiet)
    return [
        cpu.bound(
            Row(id="T16", name="CPU time a request without system calls, modelled server included"),
            "request_cpu_ns",
            ours="ours",
            shown="{:.0f} ns".format,
            scale=1,
            target=Target(must=120, stretch=70, is_upper=True, unit=" ns"),
        ),
        memory_row(memory.sides["ours"], settings),
    ]


def per_request(settings: Settings) -> Figures:
    """Returns the CPU time of a closed loop over a modelled server, divided by its requests."""
    figures = engine.load(
        settings,
        FAKE,
        demand="none",
        warm_up_ns=0,
        measure_ns=FAKE_NS,
        records_max=1,
    )
    return {"request_cpu_ns": figures["user_ns"] / figures["intended_count"]}


def growth(settings: Settings, quiet: Quiet) -> Figures:
    """Returns how much the resident memory grew over a run at 100 k/s."""
    with echo_server(settings) as server:
        quiet.add_helpers([server.pid])
        values = engine.request(
            settings,
            server.tcp,
            arrival="poisson",
            rate_rps=RATE_RPS,
            connections=16,
            depth=1024,
            wait="spin",
            measure_ns=settings.memory_ns,
        )
        return {"growth_bytes": watch(settings, values, pause=SAMPLE_PAUSE).growth_bytes(ENGINE)}


def memory_row(side: Side, settings: Settings) -> Row:
    """Returns the row of the one run there is; its verdict speaks of the length it had."""
    target = Target(must=8, stretch=0, is_upper=True, unit=" MiB")
    name = f"growth of resident memory in {settings.memory_ns / NS_PER_S:g} s at 100 k/s"
    row = Row(
        id="T17",
        name=name,
        ours=side.median_text("growth_bytes", mebibytes),
        target=target.text(),
        verdict="not measured",
    )
    if side.trouble:
        return row
    grown = side.values("growth_bytes")[0] / MIB
    return replace(row, verdict=target.verdict(grown, grown))


def mebibytes(value: float) -> str:
    """Returns a size in MiB."""
    return f"{value / MIB:.2f} MiB"
