"""Run directories with known numbers in them, made through the store and nothing else.

Each driver has a scripted cost; what the tables hold is drawn from it with a seed, so a test knows
what the analysis has to find.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from seatrial.config.expand import expand
from seatrial.model.columns import TABLES
from seatrial.model.experiment import (
    DensitySettings,
    Experiment,
    InsideSettings,
    LoadSettings,
    Operation,
    StartSettings,
)
from seatrial.model.finding import Finding, Severity
from seatrial.model.fingerprint import Fingerprint
from seatrial.model.trial import Columns, TrialOutcome, TrialStatus
from seatrial.store.layout import new_run_id
from seatrial.store.manifest import Manifest, Versions
from seatrial.store.run_store import RunStore
from tests.support.synthetic_agents import fleet_tables, rpc_tables
from tests.support.synthetic_inside import inside_tables

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.plan import TrialSpec

MS = 1_000_000
MIB = 1 << 20
Row = Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a scripted runtime costs."""

    start_ns: float
    memory_bytes: float
    shared_bytes: float
    service_ns: float
    syscall_ns: float
    cpu_ns: float
    version: str


COSTS: Mapping[str, Cost] = {
    "process": Cost(
        start_ns=0.4 * MS,
        memory_bytes=0.1 * MIB,
        shared_bytes=0.6 * MIB,
        service_ns=28_000,
        syscall_ns=70,
        cpu_ns=0.3 * MS,
        version="Linux 6.18.5",
    ),
    "lean": Cost(
        start_ns=1.1 * MS,
        memory_bytes=0.1 * MIB,
        shared_bytes=0.6 * MIB,
        service_ns=28_200,
        syscall_ns=70,
        cpu_ns=0.9 * MS,
        version="seatrial 0.1.0",
    ),
    "bwrap": Cost(
        start_ns=2.1 * MS,
        memory_bytes=0.36 * MIB,
        shared_bytes=1.0 * MIB,
        service_ns=29_000,
        syscall_ns=71,
        cpu_ns=2.3 * MS,
        version="bubblewrap 0.8.0",
    ),
    "runc": Cost(
        start_ns=13 * MS,
        memory_bytes=0.4 * MIB,
        shared_bytes=0.7 * MIB,
        service_ns=29_500,
        syscall_ns=71,
        cpu_ns=14 * MS,
        version="runc 1.1.5+ds1",
    ),
    "runsc": Cost(
        start_ns=131 * MS,
        memory_bytes=10.6 * MIB,
        shared_bytes=24 * MIB,
        service_ns=96_000,
        syscall_ns=690,
        cpu_ns=119 * MS,
        version="runsc release-20260905",
    ),
}  # fmt: skip - one cost a paragraph

EXPERIMENT_TOML = """# A scripted run: <every> number is known & "quoted".
name = "scripted"
seed = 7
blocks = 5
baseline = "process"
drivers = ["process", "lean", "bwrap", "runc", "runsc"]

[start]
concurrency = [1, 8]
rounds = 8
"""


def experiment(*, drivers: Sequence[str] = tuple(COSTS), blocks: int = 5) -> Experiment:
    """All four benches, small."""
    return Experiment(
        name="scripted",
        seed=7,
        blocks=blocks,
        baseline=drivers[0],
        drivers=tuple(drivers),
        confidence=0.95,
        start=StartSettings(concurrency=(1, 8), rounds=8, deadline_ns=5_000 * MS),
        density=DensitySettings(count=(1, 10, 20), settle_timeout_ns=5_000 * MS),
        load=LoadSettings(
            connections=(1, 16),
            rates_rps=(500.0, 2000.0),
            duration_ns=1_000 * MS,
            warm_up_ns=100 * MS,
            drain_ns=500 * MS,
            operation=Operation.EMPTY,
            payload_bytes=64,
            demand="none",
            workers=1,
            threads=1,
            depth=1,
            request_timeout_ns=1_000 * MS,
        ),
        inside=InsideSettings(probes=("syscall", "page-fault"), batches=12),
    )


@dataclass(slots=True, kw_only=True)
class Script:
    """Draws the tables of one run."""

    scale: Mapping[str, float] = field(default_factory=dict)
    """Factor on a driver's start latency, 1 where it is missing."""
    costs: Mapping[str, Cost] = field(default_factory=lambda: COSTS)
    failing_driver: str | None = None
    """Its first start in every trial times out."""
    broken_driver: str | None = None
    """Its trials fail as a whole."""
    dead_driver: str | None = None
    """None of its starts succeeds."""
    failed_requests_share: float = 0.0
    """Share of requests that get no reply."""
    rounds: int = 8
    cold_factor: float = 1.0
    """How much slower the first round of a trial is."""
    foreign_cpu_ratio: float = 0.01
    drift_ratio: float = 0.0
    """How much slower the last block is than the first."""
    blocks: int = 5

    def tables(self, spec: TrialSpec) -> dict[str, Columns]:
        """The tables of one trial, as its bench would have filled them."""
        rng = random.Random(spec.seed ^ sum(spec.driver.encode()))
        hour = 1 + self.drift_ratio * spec.block / max(1, self.blocks - 1)
        rows = {
            "start": self._start,
            "density": self._density,
            "load": self._load,
            "inside": self._inside,
            "fleet": self._fleet,
            "rpc": self._rpc,
        }[spec.point.bench](spec, rng, hour)  # fmt: skip - a table of six
        rows["windows"] = [
            {
                "name": "window",
                "started_at_ns": 0,
                "ended_at_ns": 100 * MS,
                "foreign_cpu_ratio": self.foreign_cpu_ratio,
                "steal_ratio": 0.001,
            }
        ]  # fmt: skip - one row
        rows["sentinel"] = [
            {
                "position": position,
                "due_at_ns": 0,
                "first_byte_at_ns": round(hour * rng.lognormvariate(0, 0.05) * 0.2 * MS),
            }
            for position in range(5)
        ]  # fmt: skip - one row
        return {
            name: {column: [row.get(column) for row in taken] for column in TABLES[name].names}
            for name, taken in rows.items()
        }

    def _start(self, spec: TrialSpec, rng: random.Random, hour: float) -> dict[str, list[Row]]:
        concurrency, cost = int(spec.point.values["concurrency"]), self.costs[spec.driver]
        starts: list[Row] = []
        batches: list[Row] = []
        typical = hour * cost.start_ns * self.scale.get(spec.driver, 1.0)
        for number in range(self.rounds):
            for is_floor in (True, False):
                released = number * 10_000 * MS
                batches.append(
                    {
                        "round": number,
                        "released_at_ns": released,
                        "is_floor": is_floor,
                        "launcher_user_ns": 100_000,
                        "launcher_system_ns": 200_000,
                        "starts_count": concurrency,
                    }
                )  # fmt: skip - one row
                for position in range(concurrency):
                    base = 0.17 * MS * hour if is_floor else typical
                    cold = self.cold_factor if number == 0 else 1.0
                    queued = base * cold * (1 + position / 2)
                    first = released + round(queued * rng.lognormvariate(0, 0.12)) + 20_000
                    is_failed = not is_floor and (
                        spec.driver == self.dead_driver
                        or (spec.driver == self.failing_driver and number == position == 0)
                    )
                    starts.append(
                        _start_row(
                            number,
                            position,
                            first,
                            released,
                            is_floor=is_floor,
                            is_failed=is_failed,
                            cpu_ns=cost.cpu_ns * rng.lognormvariate(0, 0.1),
                        )
                    )  # fmt: skip - one row
        return {"starts": starts, "batches": batches}

    def _density(self, spec: TrialSpec, rng: random.Random, hour: float) -> dict[str, list[Row]]:
        del hour
        count, cost = int(spec.point.values["count"]), self.costs[spec.driver]
        total = (cost.shared_bytes + count * cost.memory_bytes) * rng.uniform(0.99, 1.01)
        reading = {
            "count": count,
            "is_settled": True,
            "since_last_start_ns": 500 * MS,
            "processes_count": count,
            "pss_bytes": round(total),
            "uss_bytes": round(total * 0.8),
            "rss_bytes": round(total * 2),
            "cgroup_bytes": round(total * 1.1),
            "mem_available_drop_bytes": round(total * 1.2),
            "slab_growth_bytes": 1000,
        }  # fmt: skip - one row
        return {
            "memory": [{**reading, "is_final": False}, {**reading, "is_final": True}],
            "idle": [{"count": count, "window_ns": 1_000 * MS, "cpu_ns": count * 20_000}],
        }

    def _load(self, spec: TrialSpec, rng: random.Random, hour: float) -> dict[str, list[Row]]:
        values, cost = spec.point.values, self.costs[spec.driver]
        is_open = values["mode"] == "open"
        service = hour * cost.service_ns
        connections = int(values["connections"])
        rate = float(values["rate_rps"]) if is_open else min(1500.0, 1e9 / service)
        requests: list[Row] = []
        now = 0.0
        while now < 1_000 * MS:
            now += rng.expovariate(rate) * 1e9
            took = service * rng.lognormvariate(0, 0.25) * (1 if is_open else connections**0.5)
            took += service * 20 if rng.random() < 0.004 else 0
            lag = rng.uniform(1_000, 4_000)
            requests.append(
                {
                    "intended_at_ns": round(now),
                    "sent_at_ns": round(now + lag),
                    "first_byte_at_ns": round(now + lag + took),
                    "done_at_ns": round(now + lag + took),
                    "outcome": int(rng.random() < self.failed_requests_share),
                    "connection": 0,
                    "request_id": len(requests),
                    "demand_ns": 0,
                    "phase": 1,
                }
            )  # fmt: skip - one row
        load = {
            "started_at_ns": 0,
            "ended_at_ns": 1_000 * MS,
            "threads_count": 1,
            "measure_start_ns": 0,
            "measure_end_ns": 1_000 * MS,
            "intended_count": len(requests),
            "sent_count": len(requests),
            "ok_count": len(requests),
            "timeout_count": 0,
            "error_count": 0,
            "records_dropped_count": 0,
            "generator_user_ns": 1,
            "generator_system_ns": 1,
            "sandbox_cpu_ns": round(len(requests) * service * 0.6),
            "offered_rps": values.get("rate_rps"),
        }  # fmt: skip - one row
        return {"requests": requests, "loads": [load]}

    def _fleet(self, spec: TrialSpec, rng: random.Random, hour: float) -> dict[str, list[Row]]:
        return fleet_tables(spec, rng, hour * self.costs[spec.driver].service_ns)

    def _rpc(self, spec: TrialSpec, rng: random.Random, hour: float) -> dict[str, list[Row]]:
        return rpc_tables(spec, rng, hour * self.costs[spec.driver].service_ns)

    def _inside(self, spec: TrialSpec, rng: random.Random, hour: float) -> dict[str, list[Row]]:
        if spec.point.values:
            return inside_tables(spec, rng)
        cost = self.costs[spec.driver]
        return {
            "probes": [
                {
                    "probe": probe,
                    "position": position,
                    "operations_count": count,
                    "batch_ns": round(hour * each * count * rng.lognormvariate(0, 0.03)),
                }
                for probe, count, each in (
                    ("syscall", 5000, cost.syscall_ns),
                    ("page-fault", 512, cost.syscall_ns * 4),
                )
                for position in range(12)
            ]
        }  # fmt: skip - one row


def make_run(root: Path, script: Script | None = None, *, asked: Experiment | None = None) -> Path:
    """Makes a finished run under ``root`` and gives its directory."""
    drawn = script or Script()
    wanted = asked or experiment(blocks=drawn.blocks)
    plan = expand(wanted)
    manifest = Manifest(
        run_id=new_run_id(datetime.now(tz=UTC)),
        created_at="2026-09-05T12:00:00Z",
        experiment_text=EXPERIMENT_TOML,
        experiment_source="scripted.toml",
        plan=plan,
        versions=Versions(
            seatrial="0.1.0",
            core="0.1.0",
            core_profile="release",
            python="3.11.2",
            drivers={name: COSTS[name].version for name in wanted.drivers},
        ),
        fingerprint=Fingerprint(
            facts={
                "machine": "x86_64",
                "cpu_model": 'Scripted <CPU> & "Co" 2.4 GHz',
                "processors_count": 2,
                "kernel": "6.18.5",
                "cgroup_mode": "hybrid",
                "governor": None,
                "memory_bytes": 8_000_000_000,
            }
        ),
        skipped_drivers={"runsc-kvm": "/dev/kvm is missing"},
    )  # fmt: skip - a table of facts
    with RunStore.create(root, manifest) as store:
        for spec in plan.trials:
            store.write_trial(_outcome(drawn, spec))
        return store.path


def _outcome(script: Script, spec: TrialSpec) -> TrialOutcome:
    if spec.driver == "lean" and spec.point.bench == "density" and spec.block == 0:
        return TrialOutcome(
            trial_id=spec.trial_id,
            status=TrialStatus.UNSUPPORTED,
            reason="lean: <scripted> gap",
        )
    if spec.driver == script.broken_driver:
        return TrialOutcome(
            trial_id=spec.trial_id,
            status=TrialStatus.FAILED,
            reason=f"{spec.driver}: no such file",
        )
    findings: tuple[Finding, ...] = ()
    if spec.index == 0:
        findings = (
            Finding(
                code="degraded",
                severity=Severity.INFO,
                message="memory limits <b>not</b> applied: cgroup v1 & hybrid",
                trial_id=spec.trial_id,
                driver=spec.driver,
            ),
        )
    return TrialOutcome(
        trial_id=spec.trial_id,
        status=TrialStatus.OK,
        findings=findings,
        tables=script.tables(spec),
        started_at_ns=0,
        ended_at_ns=1,
    )


def _start_row(
    number: int,
    position: int,
    first: int,
    released: int,
    *,
    is_floor: bool,
    is_failed: bool,
    cpu_ns: float,
) -> Row:  # fmt: skip - as its call
    reached = None if is_failed else first
    return {
        "id": f"s{number:02d}-{position:02d}-{int(is_floor)}",
        "round": number,
        "position": position,
        "is_floor": is_floor,
        "pid": 100 + position,
        "outcome": "timed-out" if is_failed else "ok",
        "censored": is_failed,
        "error": "deadline of 5 s passed" if is_failed else None,
        "due_at_ns": released,
        "invoked_at_ns": released + 10_000 + position * 1_000,
        "accepted_at_ns": released + 15_000,
        "first_byte_at_ns": reached,
        "ready_at_ns": reached,
        "first_reply_at_ns": reached,
        "stop_requested_at_ns": first + MS,
        "exit_seen_at_ns": first + 2 * MS,
        "gone_at_ns": first + 3 * MS,
        "cgroup_cpu_ns": None if is_floor else round(cpu_ns),
        "cgroup_user_ns": None if is_floor else round(cpu_ns / 3),
        "cgroup_system_ns": None if is_floor else round(cpu_ns * 2 / 3),
    }  # fmt: skip - one row
