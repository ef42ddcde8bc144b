"""A load of the real engine with the memory of its process, and of others, read meanwhile."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import engine
from benchmarks.series import Figures
from benchmarks.tools import ROOT, read_json
from seatrial import proc
from seatrial.errors import EnvironmentTrouble
from seatrial.units import KIB, NS_PER_S

if TYPE_CHECKING:
    from benchmarks.settings import Settings

ENGINE = "engine"
#: From the start of the child to the first reading: interpreter, connections, buffers.
SETTLED = 0.5
#: Beyond the length of the load: start, drain and the printing of the result.
GRACE = 60.0
#: A growth is between the medians of these parts of the readings, so that one odd reading, or
#: pages that are touched for the first time at the beginning, do not make or hide one.
PARTS = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """What a load gave, and the resident memory of each process by name (bytes), in order."""

    figures: Figures
    readings: Mapping[str, Sequence[int]]

    def growth_bytes(self, name: str) -> float:
        """Returns how much the memory grew from the second tenth of the run to the last.

        Raises:
            EnvironmentTrouble: there are too few readings for ten parts.
        """
        readings = self.readings[name]
        size = len(readings) // PARTS
        if size == 0:
            raise EnvironmentTrouble(f"{len(readings)} readings of memory; need at least {PARTS}")
        return statistics.median(readings[-size:]) - statistics.median(readings[size : 2 * size])


def watch(
    settings: Settings,
    values: Mapping[str, object],
    *,
    pause: float,
    others: Mapping[str, int] | None = None,
) -> Watched:
    """Returns the result of a load and memory readings, one each `pause` seconds.

    Raises:
        EnvironmentTrouble: the engine refused, broke, or did not end a minute after it should.
    """
    pids = dict(others or {})
    readings: dict[str, list[int]] = {name: [] for name in (ENGINE, *pids)}
    folder = settings.build / "watched"
    folder.mkdir(exist_ok=True)
    request, answer, said = folder / "request", folder / "answer", folder / "said"
    request.write_text(json.dumps(values))
    length_ns = sum(int(str(values[key])) for key in ("measure_ns", "warm_up_ns", "drain_ns"))
    deadline = time.monotonic() + length_ns / NS_PER_S + GRACE
    with request.open("rb") as source, answer.open("wb") as sink, said.open("wb") as words:
        streams = {"stdin": source.fileno(), "stdout": sink.fileno(), "stderr": words.fileno()}
        argv = settings.for_client(engine.command())
        with proc.spawn(argv, cwd=ROOT, **streams) as child:
            pids[ENGINE] = child.pid
            wait = SETTLED + settings.warm_up
            while child.wait(timeout_s=wait) is None:
                if time.monotonic() > deadline:
                    raise EnvironmentTrouble(f"the engine did not end {GRACE:g} s after its time")
                for name, pid in pids.items():
                    readings[name].append(resident_bytes(pid))
                wait = pause
            if child.poll() != 0:
                raise EnvironmentTrouble(
                    f"the engine refused: {engine.last_line(said.read_text())}"
                )
    read = read_json(answer.read_text(), source="the engine")
    figures = {key: float(str(value)) for key, value in read.items()}
    kept = {name: [value for value in found if value] for name, found in readings.items()}
    return Watched(figures=figures, readings=kept)


def resident_bytes(pid: int) -> int:
    """Returns the resident memory of a process; 0 when it is gone."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    for line in text.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * KIB
    return 0
