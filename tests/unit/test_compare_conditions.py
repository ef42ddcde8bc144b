"""Comparisons under unequal conditions are refused or marked, and many of them are corrected."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from seatrial.analysis.compare import Terms, compare_runs
from seatrial.analysis.summarise import summarise
from seatrial.cli.main import main
from seatrial.errors import ConfigError
from seatrial.model.estimate import Estimate
from seatrial.model.plan import Point
from seatrial.model.summary import RunComparison, Statistic, Verdict
from seatrial.store.run_store import RunStore, find_runs
from tests.support.rund import smem_table, time_tree

if TYPE_CHECKING:
    from pathlib import Path

CONFIG = '[plugins.cri.containerd]\nsnapshotter = "{}"\n'


def tree(folder: Path, *, runtime: str, mean: int, snapshotter: str, containerd: str) -> None:
    """Writes ten rounds of one and of four, and one table of memory, with what stood beside."""
    rng = np.random.default_rng(mean)
    cells = {
        count: [[int(x) for x in rng.normal(mean, mean / 50, count)] for _ in range(10)]
        for count in (1, 4)
    }
    made = time_tree(folder, cells, runtime=runtime)
    held = folder / f"mem_{runtime}_01010000"
    held.mkdir()
    (held / "result_128MB_0001.txt").write_text(smem_table([f"{runtime}-vmm"], pss=mean * 10))
    for one in (made, held):
        (one / "config.toml").write_text(CONFIG.format(snapshotter))
        (one / "versions.txt").write_text(f"4.19.91\ncontainerd x {containerd} y\n")


def imported(folder: Path, name: str) -> Path:
    """Imports what was written, and returns its run."""
    main(["import", "rund", str(folder), "--out", str(folder.parent / name)])
    (path,) = find_runs(folder.parent / name)
    return path


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    """Two imports of one runtime: 30 % apart, and with another snapshotter."""
    tree(tmp_path / "paper", runtime="vmm", mean=475, snapshotter="overlayfs", containerd="1.3.10")
    tree(tmp_path / "ae", runtime="vmm", mean=332, snapshotter="devmapper", containerd="1.3.10")
    return imported(tmp_path / "paper", "a"), imported(tmp_path / "ae", "b")


def compared(runs: tuple[Path, Path], terms: Terms) -> RunComparison:
    """Compares two stored runs."""
    with RunStore.open(runs[0]) as old, RunStore.open(runs[1]) as new:
        return compare_runs(old, new, terms=terms)


def test_r10_unequal_conditions_are_refused(runs: tuple[Path, Path]) -> None:
    """The refusal names what differs, both values, and how to accept it."""
    with pytest.raises(ConfigError) as refused:
        compared(runs, Terms())
    assert refused.value.code == "not-comparable"
    assert "snapshotter (overlayfs before, devmapper after)" in refused.value.message
    assert "containerd" not in refused.value.message
    assert "--despite" in (refused.value.hint or "")


def test_r18_thirty_percent_are_flagged_and_marked(runs: tuple[Path, Path]) -> None:
    """With the difference accepted there are ratio, interval and verdict, and a mark on each."""
    found = compared(runs, Terms(despite=frozenset({"snapshotter"})))
    point = Point(bench="rund-time", values={"concurrency": 4})
    (change,) = (
        one
        for one in found.changes
        if (one.point.key, one.metric) == (point.key, "rund.makespan_mean")
    )
    assert isinstance(change.ratio, Estimate)
    assert change.ratio.point == pytest.approx(0.7, abs=0.02)
    assert change.ratio.high < 0.8
    assert (change.verdict, change.adjusted) == (Verdict.FASTER, Verdict.FASTER)
    assert change.despite == ("snapshotter",)
    assert change.p_holm is not None
    assert change.p_value is not None
    assert change.p_value <= change.p_holm < 0.001
    (held,) = (one for one in found.changes if one.metric == "rund.memory_pss_mean")
    assert held.verdict is Verdict.NOT_JUDGED
    assert held.explanation.startswith("-30.1%, one reading")
    assert [one.name for one in found.confounders if one.bench == "rund-time"] == ["snapshotter"]


def test_what_is_compared_marks_nothing(runs: tuple[Path, Path]) -> None:
    """A difference on purpose is no confounder."""
    found = compared(runs, Terms(factors=frozenset({"snapshotter"})))
    assert found.confounders == ()
    assert not any(one.despite for one in found.changes)


def test_a_name_that_does_not_differ_is_refused(runs: tuple[Path, Path]) -> None:
    """It is a slip of the pen; what differs is listed."""
    with pytest.raises(ConfigError, match="what differs: snapshotter") as refused:
        compared(runs, Terms(despite=frozenset({"snapshoter"})))
    assert refused.value.code == "despite-unknown"


def test_r10_two_runtimes_of_one_data_set(tmp_path: Path) -> None:
    """One ran with another snapshotter and containerd than the other: report and compare say so."""
    folder = tmp_path / "paper"
    for name, mean, snapshotter, version in (
        ("kata", 520, "overlayfs", "1.3.10"),
        ("katafc", 310, "devmapper", "1.5.8"),
    ):
        tree(folder, runtime=name, mean=mean, snapshotter=snapshotter, containerd=version)
        shutil.rmtree(folder / f"mem_{name}_01010000")
    path = imported(folder, "a")
    with RunStore.open(path) as store:
        summary = summarise(store)
    (finding,) = [one for one in summary.findings if one.code == "confounded"]
    assert finding.driver == "katafc"
    assert "snapshotter devmapper and not overlayfs" in finding.message
    assert "containerd 1.5.8 and not 1.3.10" in finding.message
    cell = summary.cell(
        point=Point(bench="rund-time", values={"concurrency": 4}),
        driver="katafc",
        metric="rund.makespan_mean",
        statistic=Statistic.MEAN,
    )
    assert cell is not None
    assert cell.verdict is Verdict.FASTER
    assert cell.marks == ("confounded",)
    pair = Terms(pairs={"kata": "katafc"})
    with pytest.raises(ConfigError, match=r"kata -> katafc in rund-time.*snapshotter"):
        compared((path, path), pair)
    found = compared((path, path), Terms(pairs={"kata": "katafc"}, is_forced=True))
    assert {one.despite for one in found.changes} == {("containerd", "snapshotter")}
    assert {one.driver for one in found.changes} == {"kata -> katafc"}
    assert not any("interleaved" in warning for warning in found.warnings), "it is one run"
    with pytest.raises(ConfigError, match="no driver kate") as refused:
        compared((path, path), Terms(pairs={"kate": "katafc"}))
    assert refused.value.code == "pair-unknown"


def test_the_command_says_all_of_it(
    runs: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """Mark and legend, single readings, Holm's p, and exit code 0 when all became better."""
    words = ["compare", str(runs[0]), str(runs[1])]
    assert main(words) == 2
    assert main([*words, "--despite", "snapshotter"]) == 0
    text = capsys.readouterr().out
    assert "¶ not of the runtimes alone: snapshotter" in text
    assert "one reading on each side" in text
    assert "< 0.0001" in text
    assert "by Holm's correction" in text
    assert main([*words[:1], words[2], words[1], "--despite", "snapshotter", "--adjusted"]) == 1
    assert main([*words, "--pair", "vmm"]) == 2
    capsys.readouterr()
    assert main([*words, "--force", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["confounders"][0]["name"] == "snapshotter"


def test_holm_takes_chance_away(tmp_path: Path) -> None:
    """Many alike cells: some differ by themselves, and none after the correction."""
    for name, seed in (("one", 1), ("two", 2)):
        rng = np.random.default_rng(seed)
        time_tree(
            tmp_path / name,
            {
                n: [[int(x) for x in rng.normal(1000, 100, n)] for _ in range(10)]
                for n in range(1, 26)
            },
        )
    runs = imported(tmp_path / "one", "a"), imported(tmp_path / "two", "b")
    found = compared(runs, Terms())
    alone = [one for one in found.changes if one.verdict in {Verdict.FASTER, Verdict.SLOWER}]
    assert alone
    assert not found.adjusted_regressions
    assert all(one.adjusted is Verdict.INDISTINGUISHABLE for one in alone)
    assert any("0 of those also by Holm's correction" in text for text in found.warnings)
    assert main(["compare", str(runs[0]), str(runs[1]), "--adjusted"]) == 0
