"""Small experiments, plans and manifests for tests that are not about their content."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.config.expand import expand
from seatrial.model.experiment import (
    DensitySettings,
    Experiment,
    InsideSettings,
    LoadSettings,
    NetworkMode,
    Operation,
    StartSettings,
)
from seatrial.model.fingerprint import Fingerprint
from seatrial.store.manifest import Manifest, Versions

if TYPE_CHECKING:
    from seatrial.model.plan import Plan

MS = 1_000_000

START = StartSettings(concurrency=(1, 8), rounds=3, deadline_ns=5_000 * MS)
LOAD = LoadSettings(
    connections=(1, 16),
    rates_rps=(200.0, 1500.5),
    duration_ns=1_000 * MS,
    warm_up_ns=100 * MS,
    drain_ns=0,
    operation=Operation.SPIN,
    payload_bytes=64,
    demand="exponential:100us",
    workers=1,
    threads=1,
    depth=1,
    request_timeout_ns=5_000 * MS,
)

FULL = Experiment(
    name="full",
    seed=7,
    blocks=2,
    baseline="process",
    drivers=("process", "runc"),
    confidence=0.95,
    network=NetworkMode.VETH,
    start=START,
    density=DensitySettings(count=(1, 4), settle_timeout_ns=1_000 * MS),
    load=LOAD,
    inside=InsideSettings(probes=("syscall", "file-read"), batches=3),
    driver_options={"runc": {"platform": "x", "retries": 3, "share": 0.5, "is_fast": True}},
)

SMALL = Experiment(
    name="small",
    seed=1,
    blocks=2,
    baseline="process",
    drivers=("process", "fake"),
    confidence=0.9,
    start=StartSettings(concurrency=(1,), rounds=1, deadline_ns=1_000 * MS),
)


def small_plan() -> Plan:
    """Four trials: t0001 to t0004."""
    return expand(SMALL)


def manifest(plan: Plan | None = None, run_id: str = "20260905T120000Z-3f2a") -> Manifest:
    """A manifest with something in every field."""
    return Manifest(
        run_id=run_id,
        created_at="2026-09-05T12:00:00+00:00",
        experiment_text='name = "small"\n# ü\n',
        experiment_source="small.toml",
        plan=plan or small_plan(),
        versions=Versions(
            seatrial="0.1.0",
            core="0.1.0",
            core_profile="release",
            python="3.11.7",
            drivers={"process": None, "runc": "1.1.5"},
        ),
        fingerprint=Fingerprint(facts={"kernel": "6.18", "memory_bytes": 1 << 34, "smt": None}),
        driver_flags={"runc": {"platform": "x"}},
        skipped_drivers={"runsc": "missing: no such program"},
    )
