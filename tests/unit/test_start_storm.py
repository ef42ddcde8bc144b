"""Storms: phases, books, the barrier, caches and company, on tables small enough to do by hand."""

from __future__ import annotations

import numpy as np
import pytest

from seatrial.analysis.amplification import AMPLIFIED, amplification_cells
from seatrial.analysis.evidence import Series
from seatrial.benches.base import Group
from seatrial.benches.start_derive import derive_start
from seatrial.benches.start_judge import judge_start
from seatrial.model.estimate import Estimate
from seatrial.model.finding import Severity
from seatrial.model.plan import Point
from tests.unit.test_benches_derive import batch_row, by_name, start_row, tables

WARM = Point(bench="start", values={"concurrency": 2, "cache": "warm"})
COLD = Point(bench="start", values={"concurrency": 2, "cache": "cold"})
MS = 1_000_000


def books_row(**changes: object) -> dict[str, object]:
    """Returns the books of a batch of two starts that took 100 ms."""
    row: dict[str, object] = {
        "round": 0,
        "is_floor": False,
        "is_control": False,
        "starts_count": 2,
        "started_at_ns": 0,
        "ended_at_ns": 100 * MS,
        "sandboxes_cpu_ns": 30 * MS,
        "daemon_cpu_ns": 25 * MS,
        "background_cpu_ns": 10 * MS,
        "tool_cpu_ns": 4 * MS,
        "host_user_ns": 60 * MS,
        "host_system_ns": 40 * MS,
        "steal_ns": 0,
    }
    row.update(changes)
    return row


#: An empty window of 200 ms: the daemon used 10 ms, the company 20 ms, the whole host 40 ms.
CONTROL = books_row(
    round=-1,
    is_control=True,
    starts_count=0,
    ended_at_ns=200 * MS,
    sandboxes_cpu_ns=0,
    daemon_cpu_ns=10 * MS,
    background_cpu_ns=20 * MS,
    tool_cpu_ns=0,
    host_user_ns=30 * MS,
    host_system_ns=10 * MS,
)


def pair(**second: object) -> list[dict[str, object]]:
    """Returns two starts of one batch."""
    return [start_row(), start_row(position=1, **second)]


def test_what_idling_costs_is_subtracted_and_every_share_stands_apart() -> None:
    """Daemon and host are charged for what they did beyond idling; the tool is no part of it."""
    found = by_name(
        derive_start(
            tables(starts=pair(), batches=[batch_row()], books=[CONTROL, books_row()]), WARM
        )
    )
    assert found["start_daemon_cpu_ns"] == [(25 - 5) / 2 * MS]
    assert found["start_tool_cpu_ns"] == [2 * MS]
    assert found["start_host_cpu_ns"] == [(100 - 20) / 2 * MS]
    assert found["start_unbooked_cpu_ns"] == [(80 - 30 - 4 - 20) / 2 * MS]
    assert found["start_cpu_ns"] == [55, 55], "the sandboxes' own groups, whatever the host did"


def test_without_a_control_window_nothing_is_said_about_the_host() -> None:
    """What the host does by itself is unknown, so it is not charged to starts."""
    found = by_name(
        derive_start(tables(starts=pair(), batches=[batch_row()], books=[books_row()]), WARM)
    )
    assert "start_host_cpu_ns" not in found
    assert found["start_daemon_cpu_ns"] == [12.5 * MS]


def test_a_runtime_without_a_daemon_has_no_share_of_one() -> None:
    """Null is not zero."""
    books = [{**row, "daemon_cpu_ns": None} for row in (CONTROL, books_row())]
    found = by_name(derive_start(tables(starts=pair(), batches=[batch_row()], books=books), WARM))
    assert "start_daemon_cpu_ns" not in found
    assert found["start_unbooked_cpu_ns"] == [(80 - 30 - 4) / 2 * MS]


def test_phases_and_the_tree() -> None:
    """The first instruction is the first byte less what the guest did before, by its own clock."""
    row = start_row(
        accepted_at_ns=1_060,
        guest_first_instruction_mono_ns=9_000_000,
        guest_hello_mono_ns=9_000_008,
        user_ns=40,
        system_ns=2,
    )
    found = by_name(derive_start(tables(starts=[row], batches=[batch_row(starts_count=1)]), WARM))
    assert found["start_created_ns"] == [60]
    assert found["start_first_instruction_ns"] == [92]
    assert found["start_first_byte_ns"] == [100]
    assert found["start_tree_cpu_ns"] == [42]


def test_a_wide_release_is_told() -> None:
    """More than a twentieth of the makespan between the first and the last invocation."""
    wide = tables(
        starts=pair(invoked_at_ns=1_010 + 6, first_byte_at_ns=1_100),
        batches=[batch_row()],
    )
    (finding,) = judge_start(wide, WARM)
    assert (finding.code, finding.severity) == ("release-skew", Severity.WARNING)
    assert finding.evidence["skew_ns"] == 6
    assert finding.evidence["skew_share_ratio"] == pytest.approx(0.06)
    narrow = tables(starts=pair(invoked_at_ns=1_010 + 5), batches=[batch_row()])
    assert judge_start(narrow, WARM) == ()


@pytest.mark.parametrize(
    ("point", "ratio", "is_wrong"),
    [(COLD, 0.0, False), (COLD, 0.7, True), (WARM, 1.0, False), (WARM, 0.7, True)],
)
def test_the_cache_is_looked_at_and_not_believed(
    point: Point, ratio: float, *, is_wrong: bool
) -> None:
    """Cold means that no page is there, warm that all are."""
    frames = tables(starts=pair(), batches=[batch_row(resident_ratio=ratio)])
    found = judge_start(frames, point)
    assert [finding.code for finding in found] == (["cache-state"] if is_wrong else [])
    assert all("70%" in finding.message for finding in found)
    assert by_name(derive_start(frames, point))["image_resident_ratio"] == [ratio]


def test_cold_files_that_nobody_knows_are_told() -> None:
    """A driver that cannot name its files cannot prove that they were cold."""
    frames = tables(starts=pair(), batches=[batch_row(resident_ratio=None)])
    (finding,) = judge_start(frames, COLD)
    assert finding.code == "cache-state"
    assert "not known" in finding.message
    assert judge_start(frames, WARM) == ()


def test_company_that_went_away_is_an_error() -> None:
    """The density was not what the point says."""
    lost = batch_row(background_count=20, background_alive_count=18)
    whole = batch_row(background_count=20, background_alive_count=20, round=1)
    later = [{**row, "round": 1} for row in pair()]
    (finding,) = judge_start(tables(starts=[*pair(), *later], batches=[lost, whole]), WARM)
    assert (finding.code, finding.severity) == ("background-lost", Severity.ERROR)
    assert "only 18 of 20" in finding.message


def test_company_has_its_own_cpu_and_memory() -> None:
    """Both are of all of them together."""
    background = [
        {
            "driver": "runsc",
            "count": 20,
            "alive_count": 20,
            "started_count": 20,
            "pss_bytes": 240 << 20,
            "cgroup_bytes": None,
            "processes_count": 60,
        }
    ]
    samples = derive_start(
        tables(starts=pair(), batches=[batch_row()], books=[CONTROL], background=background), WARM
    )
    found = by_name(samples)
    assert found["background_memory_bytes"] == [240 << 20]
    assert found["background_cpu_ratio"] == [0.1]
    assert not by_name(samples, Group.FLOOR)


def test_amplification_is_against_the_fewest_others() -> None:
    """By blocks, for each driver and concurrency apart; the fewest others have none."""

    def series(driver: str, background: int, blocks: dict[int, list[float]]) -> Series:
        return Series(
            bench="start",
            point=Point(bench="start", values={"concurrency": 8, "background": background}),
            driver=driver,
            metric="start_makespan_ns",
            blocks={number: np.array(values) for number, values in blocks.items()},
            is_one_a_trial=False,
        )

    quiet = {0: [10.0, 11.0, 10.5], 1: [10.0, 10.2, 10.4], 2: [9.9, 10.0, 10.3]}
    crowded = {number: [value * 7.6 for value in values] for number, values in quiet.items()}
    cells = amplification_cells(
        [
            series("runc", 100, crowded),
            series("runc", 0, quiet),
            series("floor", 0, quiet),
            series("floor", 100, crowded),
            series("lean", 100, crowded),
        ],
        confidence=0.95,
        seed=1,
    )
    (cell,) = cells
    assert (cell.driver, cell.metric, cell.point.values["background"]) == (
        "runc",
        AMPLIFIED["start_makespan_ns"],
        100,
    )
    assert isinstance(cell.estimate, Estimate)
    assert cell.estimate.point == pytest.approx(7.6)
