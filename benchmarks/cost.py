"""T16 and T17: what the engine itself costs, in CPU time a request and in memory a minute."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import engine
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest
from benchmarks.servers import echo_server
from benchmarks.tools import ROOT
from seatrial import proc
from seatrial.errors import EnvironmentTrouble
from seatrial.units import MIB, NS_PER_S

if TYPE_CHECKING:
    from benchmarks.series import Figures, Side
    from benchmarks.settings import Settings

#: A modelled server in the engine's own memory: no system call is made for a request.
FAKE = "fake://?workers=1&service=constant:1us"
FAKE_NS = 2 * NS_PER_S
RATE_RPS = 100_000.0
SAMPLE_PAUSE = 0.1
#: From the start of the child to the first reading that counts: interpreter, connections, buffers.
SETTLED = 0.3


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
        readings = resident_while(settings, values)
    if not readings:
        raise EnvironmentTrouble("the run was too short for a reading of its memory")
    return {"growth_bytes": float(readings[-1] - readings[0])}


def resident_while(settings: Settings, values: dict[str, object]) -> list[int]:
    """Returns the resident memory of the engine's process, ten times a second (bytes)."""
    argv = settings.for_client(engine.command())
    readings: list[int] = []
    folder = settings.build / "memory"
    folder.mkdir(exist_ok=True)
    request, answer, said = folder / "request", folder / "answer", folder / "said"
    request.write_text(json.dumps(values))
    with request.open("rb") as source, answer.open("wb") as sink, said.open("wb") as words:
        streams = {"stdin": source.fileno(), "stdout": sink.fileno(), "stderr": words.fileno()}
        with proc.spawn(argv, cwd=ROOT, **streams) as child:
            pause = SETTLED + settings.warm_up
            while child.wait(timeout_s=pause) is None:
                readings.append(resident_bytes(child.pid))
                pause = SAMPLE_PAUSE
            if child.poll() != 0:
                raise EnvironmentTrouble(
                    f"the engine refused: {engine.last_line(said.read_text())}"
                )
    return [value for value in readings if value]


def resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


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
