"""What is wrong with the published scripts for start storms, and is not with ours: a test a flaw.

The numbers R1 to R18 are those of the list of flaws of RunD's artifact (ATC '22) in docs/storms.md.
Everything here runs the whole chain, on a runtime whose true behaviour is scripted.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import polars as pl
import pytest

from seatrial.analysis.compare import compare_runs
from seatrial.benches import registry
from seatrial.benches.start_derive import derive_start
from seatrial.config.expand import expand
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.drivers.fake import FakeDriver
from seatrial.model.columns import TABLES
from seatrial.model.estimate import Estimate
from seatrial.model.finding import Severity
from seatrial.model.summary import Statistic, Verdict
from seatrial.model.table import INSTANT
from seatrial.probes.noise import NoiseMonitor, parse_host_cpu
from seatrial.store.run_store import RunStore
from tests.support.fake_run import run_text
from tests.unit.test_benches_derive import by_name

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seatrial.model.summary import RunSummary

MS = 1_000_000
TEXT = """
name = "flaws"
seed = 5
blocks = 2
baseline = "fake"
drivers = ["fake"]
[start]
concurrency = [1, 20]
rounds = 10
deadline = "2s"
control_window = "20ms"
background_count = [0, 5]
[density]
count = [2]
readings = 3
idle_window = "20ms"
[driver.fake]
start = "lognormal:20ms:0.3"
processors = 4
early_exit_ratio = 0.004
hang_ratio = 0.004
"""


@pytest.fixture(scope="module", autouse=True)
def _never_waits() -> Iterator[None]:
    """What a script plays is the same on a busy machine, so no window waits for a quiet one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NoiseMonitor, "wait_until_quiet", lambda _self: (0, True))
        yield


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunSummary, RunStore]:
    """One run, analysed, and its directory."""
    summary, path = run_text(TEXT, tmp_path_factory.mktemp("flaws"))
    return summary, RunStore.open(path)


#: The same without failures, and with little scatter.
STEADY = TEXT.replace("early_exit_ratio = 0.004\nhang_ratio = 0.004\n", "").replace(
    "lognormal:20ms:0.3", "lognormal:20ms:0.05"
)


def tables_of(store: RunStore, *, concurrency: int) -> list[dict[str, pl.DataFrame]]:
    """The raw tables of every trial of the bench start at a concurrency."""
    return [
        {name: store.read_table(spec.trial_id, name) for name in store.table_names(spec.trial_id)}
        for spec in store.manifest.plan.trials
        if spec.point.values.get("concurrency") == concurrency
    ]


def test_r1_latency_and_makespan_have_names_percentiles_and_intervals(
    done: tuple[RunSummary, RunStore],
) -> None:
    """Two quantities, never under one name; each with mean, percentiles, largest and interval."""
    summary, _ = done
    cells = {
        (cell.metric, cell.statistic): cell.estimate
        for cell in summary.cells
        if cell.point.key == "start background=0 concurrency=20" and cell.driver == "fake"
    }
    for statistic in (
        Statistic.MEAN,
        Statistic.P50,
        Statistic.P90,
        Statistic.P95,
        Statistic.P99,
        Statistic.MAX,
    ):
        estimate = cells["start_first_byte_ns", statistic]
        assert isinstance(estimate, Estimate), (statistic, estimate)
        assert estimate.low <= estimate.point <= estimate.high
    latency = cells["start_first_byte_ns", Statistic.P50]
    makespan = cells["start_makespan_ns", Statistic.P50]
    assert isinstance(latency, Estimate)
    assert isinstance(makespan, Estimate)
    assert makespan.low > latency.high, "the last of ten is later than the median one"


def test_r2_a_start_that_hangs_ends_at_its_deadline_as_a_failure(
    done: tuple[RunSummary, RunStore],
) -> None:
    """It is a row with an outcome, and a share of successes below one."""
    summary, store = done
    starts = pl.concat(one["starts"] for one in tables_of(store, concurrency=20))
    hung = starts.filter(starts["outcome"] == "timed-out")
    assert hung.height > 0
    assert all(hung["censored"].to_list())
    spent = (hung["exit_seen_at_ns"] - hung["due_at_ns"]).to_list()
    assert all(value == 2_000 * MS for value in spent)
    ratio = next(cell for cell in summary.cells if cell.metric == "start_success_ratio")
    assert isinstance(ratio.estimate, Estimate)


def test_r3_failures_are_no_success(done: tuple[RunSummary, RunStore]) -> None:
    """An error among the findings makes the command exit with 1 (tests/fault has the command)."""
    summary, _ = done
    (finding, *_) = [one for one in summary.findings if one.code == "start-failures"]
    assert finding.severity is Severity.ERROR


def test_r4_instants_are_nanoseconds_of_the_monotonic_clock() -> None:
    """No wall clock, no forked date, no poll: each instant is stamped where it happens."""
    starts = {column.name: column for column in TABLES["starts"].columns}
    for name in ("due_at_ns", "invoked_at_ns", "first_byte_at_ns", "first_reply_at_ns"):
        assert starts[name].unit == INSTANT == "ns of the host's CLOCK_MONOTONIC"


def test_r5_one_barrier_and_its_skew(done: tuple[RunSummary, RunStore]) -> None:
    """All of a batch are due at the same instant; how far apart they really began is a number."""
    summary, store = done
    for one in tables_of(store, concurrency=20):
        for number in one["starts"]["round"].unique().to_list():
            members = one["starts"].filter(
                (one["starts"]["round"] == number) & ~one["starts"]["is_floor"]
            )
            assert members["due_at_ns"].n_unique() == 1
    assert any(cell.metric == "start_release_skew_ns" for cell in summary.cells)


def test_r6_rounds_are_joined_by_number(done: tuple[RunSummary, RunStore]) -> None:
    """A lost row costs its own batch and shifts no other."""
    _, store = done
    tables = tables_of(store, concurrency=20)[0]
    point = registry.get("start") and store.manifest.plan.trials[0].point
    whole = by_name(derive_start(tables, point))["start_makespan_ns"]
    starts = tables["starts"]
    good = starts.filter(~starts["is_floor"]).group_by("round").agg(pl.col("outcome"))
    rounds = sorted(
        row["round"] for row in good.iter_rows(named=True) if set(row["outcome"]) == {"ok"}
    )
    lost = rounds[3]
    is_lost = (starts["round"] == lost) & (starts["position"] == 2) & ~starts["is_floor"]
    fewer = by_name(derive_start({**tables, "starts": starts.filter(~is_lost)}, point))
    assert fewer["start_makespan_ns"] == [*whole[:3], *whole[4:]]


def test_r7_cpu_is_split_and_the_tool_and_idling_stand_apart(
    done: tuple[RunSummary, RunStore],
) -> None:
    """From the sandboxes' own groups; the host's ticks are read by their own length."""
    summary, store = done
    names = {cell.metric for cell in summary.cells}
    assert {"start_cpu_user_ns", "start_cpu_system_ns", "start_tool_cpu_ns"} <= names
    books = tables_of(store, concurrency=20)[0]["books"]
    assert books.filter(books["is_control"]).height == 1
    stat = "cpu 10 0 20 0 0 0 0 0 0 0\ncpu0 10 0 20 0 0 0 0 0 0 0\n"
    for hertz in (100, 250):
        assert parse_host_cpu(stat, at_ns=0, tick_ns=10**9 // hertz).user_ns == 10 * 10**9 // hertz


def test_r8_memory_settles_is_read_again_and_is_of_known_processes(
    done: tuple[RunSummary, RunStore],
) -> None:
    """Three readings at least before it counts, then three that count, with processes counted."""
    _, store = done
    for spec in store.manifest.plan.trials:
        if spec.point.bench != "density":
            continue
        memory = store.read_table(spec.trial_id, "memory")
        assert memory.filter(~memory["is_final"]).height >= 3
        final = memory.filter(memory["is_final"])
        assert final.height == 3
        assert final["fewest_processes_count"].to_list() == [1, 1, 1]
        assert final["kernel_growth_bytes"].null_count() == 0


def test_r9_missing_cells_have_a_reason_and_rows_an_order(tmp_path: Path) -> None:
    """What could not be measured says why; the sweep comes from the plan, not from a list."""
    text = TEXT.replace("concurrency = [1, 20]", "concurrency = [3]").replace(
        "early_exit_ratio = 0.004", "early_exit_ratio = 1.0"
    )
    summary, _ = run_text(text.replace("rounds = 10", "rounds = 2"), tmp_path)
    assert not [
        cell
        for cell in summary.cells
        if cell.metric == "start_first_byte_ns" and cell.driver == "fake"
    ]
    codes = Counter(finding.code for finding in summary.findings)
    assert codes["start-failures"] + codes["trial-failed"] > 0
    points = [point.key for bench in summary.benches for point in bench.points]
    assert points == sorted(points, key=points.index)
    assert points[0] == "start background=0 concurrency=3"


def test_r10_and_r12_conditions_are_those_that_held(done: tuple[RunSummary, RunStore]) -> None:
    """Flags are asked of an open session with the options of this run, not copied from a file."""
    summary, store = done
    (driver,) = summary.drivers
    assert "lognormal:20000000ns" in driver.flags["model"]
    assert store.manifest.driver_flags["fake"] == driver.flags
    assert driver.version


def test_r11_a_trend_is_told(tmp_path: Path) -> None:
    """Makespans that grow by a half over the rounds are no mean."""
    text = STEADY.replace("[driver.fake]", "[driver.fake]\ndrift_ratio = 0.05").replace(
        "concurrency = [1, 20]", "concurrency = [1]"
    )
    summary, _ = run_text(text, tmp_path)
    (finding, *_) = [one for one in summary.findings if one.code == "rounds-drifting"]
    assert finding.severity is Severity.WARNING


def test_r13_names_are_whole_and_no_pattern() -> None:
    """No id of a session is the beginning of another: no filter can hit a neighbour."""
    with FakeDriver().open(DriverContext.for_run(new_run_id())) as session:
        ids = [session.plan(SandboxSpec(role=("idle",)), index).id for index in range(120)]
    assert len({len(one) for one in ids}) == 1
    assert len(set(ids)) == 120


def test_r14_teardown_is_timed_and_parallel(done: tuple[RunSummary, RunStore]) -> None:
    """Each sandbox has its delete latency, and ten take far less than ten times one."""
    summary, store = done
    assert {"teardown_ns", "teardown_makespan_ns"} <= {cell.metric for cell in summary.cells}
    tables = tables_of(store, concurrency=20)[0]
    found = by_name(derive_start(tables, store.manifest.plan.trials[0].point))
    assert max(found["teardown_makespan_ns"]) < 10 * min(found["teardown_ns"])


def test_r15_the_order_is_drawn_anew_in_each_block(done: tuple[RunSummary, RunStore]) -> None:
    """Neither ascending nor one runtime after the other; seeded, so that it can be repeated."""
    _, store = done
    plan = store.manifest.plan
    orders = [[spec.point.key for spec in plan.trials if spec.block == block] for block in range(2)]
    assert len({tuple(order) for order in orders}) > 1
    again = expand(plan.experiment, plan.drivers)
    assert [spec.point.key for spec in again.trials] == [spec.point.key for spec in plan.trials]


def test_r16_a_second_run_adds_nothing_to_the_first(tmp_path: Path) -> None:
    """Each has a directory of its own, and what is in the first stays as it was."""
    text = TEXT.replace("rounds = 10", "rounds = 2").replace("blocks = 2", "blocks = 1")
    _, first = run_text(text, tmp_path)
    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    _, second = run_text(text, tmp_path)
    assert first != second
    after = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    assert before == after
    assert json.loads((second / "manifest.json").read_text())["run_id"] == second.name


def test_r17_a_start_goes_on_to_the_first_correct_reply(
    done: tuple[RunSummary, RunStore],
) -> None:
    """Created, first instruction, first byte, ready, first reply: in this order, each a metric."""
    _, store = done
    found = by_name(
        derive_start(tables_of(store, concurrency=1)[0], store.manifest.plan.trials[0].point)
    )
    phases = ("start_created_ns", "start_first_instruction_ns", "start_first_byte_ns",
              "start_ready_ns", "start_first_reply_ns")  # fmt: skip
    for values in zip(*(found[name] for name in phases), strict=True):
        assert list(values) == sorted(values)


def test_r18_two_runs_that_differ_by_a_third_are_told_apart(tmp_path: Path) -> None:
    """The comparison has ratio, interval and verdict."""
    plain = STEADY.replace("background_count = [0, 5]", "")
    _, before = run_text(plain, tmp_path)
    _, after = run_text(plain.replace("lognormal:20ms", "lognormal:27ms"), tmp_path)
    compared = compare_runs(RunStore.open(before), RunStore.open(after), is_forced=True)
    change = next(
        one
        for one in compared.changes
        if one.metric == "start_makespan_ns" and one.driver == "fake"
    )
    assert change.verdict is Verdict.SLOWER
    assert isinstance(change.ratio, Estimate)
    assert change.ratio.point == pytest.approx(27 / 20, rel=0.05)
