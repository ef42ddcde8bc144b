"""Puts an imported data set into a run directory, so that it is reported and compared like a run.

Each cell becomes a trial with the rows of its log; numbers are derived from those whenever they
are shown. What the logs lack stays unknown: no host, no clock of ours, no version of a runtime.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

import seatrial
from seatrial.errors import ConfigError
from seatrial.importers.rund.rows import MemoryCell
from seatrial.model.codec import encode
from seatrial.model.experiment import IMPORTED_BENCHES, Experiment
from seatrial.model.finding import Finding, Severity
from seatrial.model.fingerprint import Fingerprint
from seatrial.model.plan import Plan, Point, TrialSpec
from seatrial.model.trial import TrialOutcome, TrialStatus
from seatrial.store import layout
from seatrial.store.manifest import Manifest, Versions
from seatrial.store.run_store import RunStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from seatrial.importers.rund.rows import RundData, StartCell
    from seatrial.model.scalar import Scalar
    from seatrial.model.trial import Columns

CONFIDENCE: Final = 0.95
#: The conditions that are versions of what ran.
VERSIONS: Final = ("containerd", "crictl", "kata-runtime", "qemu", "firecracker")


def store_data(data: RundData, root: Path, *, source: str) -> Path:
    """Writes a run directory under ``root`` and gives its path.

    Raises:
        ConfigError: there is nothing to store.
        StoreError: the directory cannot be written.
    """
    cells = data.cells
    if not cells:
        raise ConfigError(
            f"{data.name} has trees, but no cell in them",
            hint="expected con_010/client001.txt or result_128MB_0010.txt in them",
            code="import-empty",
        )
    plan = _plan(data, cells)
    with RunStore.create(root, _manifest(data, plan, source)) as store:
        for spec, cell in zip(plan.trials, cells, strict=True):
            store.write_trial(_outcome(spec, cell, user_hz=data.user_hz))
        return store.path


def _plan(data: RundData, cells: Sequence[StartCell | MemoryCell]) -> Plan:
    benches = {_bench(cell) for cell in cells}
    rounds = [int(cell.starts.rounds[-1]) + 1 for cell in data.starts if cell.starts is not None]
    experiment = Experiment(
        name=data.name,
        seed=0,
        blocks=max(rounds, default=1),
        baseline=data.runtimes[0],
        drivers=data.runtimes,
        confidence=CONFIDENCE,
        imported=tuple(name for name in IMPORTED_BENCHES if name in benches),
    )
    width = max(4, len(str(len(cells))))
    trials = tuple(
        TrialSpec(
            trial_id=f"t{number:0{width}d}",
            index=number - 1,
            block=0,
            driver=cell.runtime,
            point=_point(cell),
            seed=0,
        )
        for number, cell in enumerate(cells, 1)
    )
    text = json.dumps([encode(experiment), encode(trials)], sort_keys=True)
    return Plan(
        experiment=experiment,
        trials=trials,
        seed=0,
        plan_hash=hashlib.sha256(text.encode()).hexdigest(),
        estimated_ns=0,
    )


def _bench(cell: StartCell | MemoryCell) -> str:
    if isinstance(cell, MemoryCell):
        return "rund-mem"
    return "rund-time" if cell.background is None else "rund-density"


def _point(cell: StartCell | MemoryCell) -> Point:
    values: dict[str, Scalar]
    if isinstance(cell, MemoryCell):
        values = {"memory_bytes": cell.memory_bytes, "count": cell.count}
    elif cell.background is None:
        values = {"concurrency": cell.concurrency}
    else:
        values = {"background": cell.background, "concurrency": cell.concurrency}
    return Point(bench=_bench(cell), values=values)


def _manifest(data: RundData, plan: Plan, source: str) -> Manifest:
    conditions = {
        f"rund-{kind} {runtime}": {**found, **_rounds(data, kind, runtime)}
        for (kind, runtime), found in sorted(data.conditions.items())
    }
    kernels = {str(found["kernel"]) for found in conditions.values() if "kernel" in found}
    facts: dict[str, Scalar | None] = {"kernel": kernels.pop()} if len(kernels) == 1 else {}
    now = datetime.now(UTC)
    return Manifest(
        run_id=layout.new_run_id(now),
        created_at=now.isoformat(timespec="seconds"),
        experiment_text=_text(data),
        experiment_source=source,
        plan=plan,
        versions=Versions(
            seatrial=seatrial.__version__,
            core="none",
            core_profile="imported",
            python="none",
            drivers={name: _version(data, name) for name in data.runtimes},
        ),
        fingerprint=Fingerprint(facts=facts),
        conditions=conditions,
    )


def _rounds(data: RundData, kind: str, runtime: str) -> dict[str, Scalar]:
    """Returns how many rounds the cells of a sweep have, where they have any."""
    counts = [
        int(cell.starts.rounds[-1]) + 1
        for cell in data.starts
        if cell.starts is not None
        and cell.runtime == runtime
        and (cell.background is None) == (kind == "time")
    ]
    return {"rounds": max(counts)} if counts and kind != "mem" else {}


def _text(data: RundData) -> str:
    """Returns what stands in the place of an experiment file: where the numbers are from."""
    starts = [cell.starts for cell in data.starts if cell.starts is not None]
    lines = [
        f"# Imported from the raw logs of RunD's artifact, data set {data.name}; not run here.",
        f"# {len(data.starts)} cells of starts, {len(data.memory)} tables of memory.",
    ]
    if starts:
        first, last = (
            f"{datetime.fromtimestamp(at_ns / 1e9, UTC):%Y-%m-%d %H:%M}"
            for at_ns in (
                min(int(one.began_at_ns.min()) for one in starts),
                max(int(one.ready_at_ns.max()) for one in starts),
            )
        )
        lines.append(f"# Starts measured from {first} to {last} UTC by that host's clock.")
    return "\n".join(lines) + "\n"


def _version(data: RundData, runtime: str) -> str | None:
    known: dict[str, None] = {}
    for (_, name), conditions in sorted(data.conditions.items()):
        if name == runtime:
            known |= {f"{key} {conditions[key]}": None for key in VERSIONS if key in conditions}
    return ", ".join(known) or None


def _outcome(spec: TrialSpec, cell: StartCell | MemoryCell, *, user_hz: int) -> TrialOutcome:
    tables = _tables(cell, user_hz=user_hz)
    return TrialOutcome(
        trial_id=spec.trial_id,
        status=TrialStatus.OK if cell.trouble is None else TrialStatus.FAILED,
        reason=cell.trouble,
        findings=tuple(
            Finding(
                code="broken-log",
                severity=Severity.WARNING,
                message=f"{notice.code}: {notice.message}",
                trial_id=spec.trial_id,
                driver=spec.driver,
            )
            for notice in cell.notices
        ),
        tables=tables,
    )


def _tables(cell: StartCell | MemoryCell, *, user_hz: int) -> Mapping[str, Columns]:
    found: dict[str, Columns] = {}
    if isinstance(cell, MemoryCell):
        held = cell.processes
        if held is not None:
            found["rund_processes"] = pl.DataFrame(
                {
                    "name": held.names,
                    "uss_bytes": held.uss_bytes,
                    "pss_bytes": held.pss_bytes,
                    "rss_bytes": held.rss_bytes,
                    "vss_bytes": held.vss_bytes,
                }
            )
        return found
    starts, cpu = cell.starts, cell.cpu
    if starts is not None:
        found["rund_starts"] = pl.DataFrame(
            {
                "id": starts.ids,
                "round": starts.rounds,
                "client": starts.clients,
                "began_at_ns": starts.began_at_ns,
                "ready_at_ns": starts.ready_at_ns,
            }
        )
    if cpu is not None:
        found["rund_cpu"] = pl.DataFrame(
            {
                "round": np.arange(cpu.busy_ticks.size),
                "busy_ticks": cpu.busy_ticks,
                "total_ticks": cpu.total_ticks,
                "user_hz": np.full(cpu.busy_ticks.size, user_hz),
            }
        )
    return found
