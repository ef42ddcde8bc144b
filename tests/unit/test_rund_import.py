"""RunD's raw data become its published tables, digit by digit, and a run that can be reported."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest

from seatrial.analysis.summarise import summarise
from seatrial.cli.main import main
from seatrial.drivers.cost import cost_of
from seatrial.errors import ConfigError, StoreError
from seatrial.importers.rund import tree
from seatrial.importers.rund.compat import memory_figures, start_figures, tables, write_tables
from seatrial.importers.rund.read import read_rund
from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.plan import Point
from seatrial.model.summary import Statistic
from seatrial.store.run_store import RunStore
from tests.support.rund import FIXTURE, archive, copied, smem_table, time_tree

PUBLISHED = {path.name: path.read_text() for path in (FIXTURE / "published").glob("*.csv")}
#: The artifact's own tables, as published.
WHOLE = {
    "time.csv": "runtime,1,10,20,50,100,200,300,400\n"
    "rund,94.3,116.4,141.7,228.2,331.8,760.6,1267.6,1885.4\n",
    "cpu.csv": "runtime,1,10,20,50,100,200,300,400\n"
    "rund,165.0,127.7,141.95,149.58,168.53,180.99,198.26333333333332,217.35\n",
}


def test_the_published_tables_byte_by_byte() -> None:
    """Time, CPU, memory and density of the fixture; what is not in it is blank."""
    (data,) = read_rund(FIXTURE)
    assert data.notices == ()
    assert set(PUBLISHED) == {"time.csv", "cpu.csv", "density_rund.csv", "mem_rund.csv"}
    assert tables(data) == PUBLISHED
    assert ",96.2,\n" in tables(data)["density_rund.csv"].replace("200", "")


def test_the_whole_archive_byte_by_byte() -> None:
    """All 60 cells, without a notice, from the archive itself."""
    path = archive()
    (data,) = read_rund(path)
    assert data.notices == ()
    found = tables(data)
    assert {name: found[name] for name in WHOLE} == WHOLE
    with tarfile.open(path) as packed:
        for member in packed:
            name = Path(member.name).name
            content = packed.extractfile(member)
            if member.name.endswith(".csv") and content is not None:
                assert found.pop(name) == content.read().decode(), name
    assert not found
    latency = {
        one.concurrency: (one.latency_mean_ns, one.p99_lower_mean_ns)
        for one in start_figures(data)
        if one.experiment == "time"
    }
    assert latency[400] == (pytest.approx(1477.6e6, rel=1e-5), pytest.approx(1845.7e6))
    assert latency[100][1] == pytest.approx(314.2e6)


def test_golden_numbers_of_single_cells() -> None:
    """Rounds, CPU ticks and PSS as they stand in the logs."""
    (data,) = read_rund(FIXTURE / "ae_data")
    ten = next(one for one in data.starts if one.background is None and one.concurrency == 10)
    assert ten.starts is not None
    assert ten.cpu is not None
    firsts = np.flatnonzero(np.diff(ten.starts.rounds, prepend=-1))
    begins = np.minimum.reduceat(ten.starts.began_at_ns, firsts) // 1_000_000 - 1_652_084_496_028
    assert begins.tolist() == [0, 807, 1546, 2338, 3139, 3939, 4709, 5481, 6267, 7131]
    assert ten.cpu.busy_ticks.tolist() == [128, 131, 125, 122, 122, 123, 138, 132, 126, 130]
    small = next(one for one in data.memory if (one.memory_bytes >> 20, one.count) == (128, 10))
    assert small.processes is not None
    assert int(small.processes.pss_bytes.sum()) == 193_847 * 1024
    figures = {(one.background, one.concurrency): one for one in start_figures(data)}
    assert figures[None, 10].latency_mean_ns == pytest.approx(110.07e6)
    assert figures[200, 1].amplification_ratio == pytest.approx(96.2 / 92.6)
    assert memory_figures(data)[1].pss_mean_bytes == pytest.approx(19384.7 * 1024)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_an_archive_is_read_as_it_is(tmp_path: Path, mode: str) -> None:
    """Nothing is unpacked, and the tables are the same."""
    path = tmp_path / "rund.tar"
    with tarfile.open(path, mode) as packed:  # type: ignore[call-overload]  # the mode is one of three
        packed.add(FIXTURE / "ae_data", "ae_data")
    (data,) = read_rund(path)
    assert (data.name, tables(data)) == ("ae_data", PUBLISHED)
    assert [one.name for one in tmp_path.iterdir()] == ["rund.tar"]


def test_both_roots_keep_apart(tmp_path: Path) -> None:
    """ae_data and paper_data hold the same cells: two data sets, tables in two directories."""
    copied(tmp_path)
    time_tree(tmp_path / "paper_data", {1: [[84], [85]]})
    found = read_rund(tmp_path)
    assert [one.name for one in found] == ["ae_data", "paper_data"]
    written = write_tables(found, tmp_path / "csv")
    assert tmp_path / "csv" / "paper_data" / "time.csv" in written
    assert (tmp_path / "csv" / "ae_data" / "time.csv").read_text() == PUBLISHED["time.csv"]


def test_a_single_tree_is_enough(tmp_path: Path) -> None:
    """Its data set is what it lies in."""
    path = time_tree(tmp_path, {2: [[10, 12], [11, 15]]})
    (data,) = read_rund(path)
    assert tables(data)["time.csv"] == "runtime,2\nrund,14.5\n"


def test_the_run_says_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The stored rows give the published means, with intervals over rounds."""
    assert main(["import", "rund", str(FIXTURE), "--out", str(tmp_path)]) == 0
    assert "116 ms" in capsys.readouterr().out
    (path,) = tmp_path.iterdir()
    with RunStore.open(path) as store:
        summary = summarise(store)
    point = Point(bench="rund-time", values={"concurrency": 10})
    values = {}
    for name in ("rund.makespan_mean", "rund.latency_mean", "rund.p99_lower_mean"):
        cell = summary.cell(point=point, driver="rund", metric=name, statistic=Statistic.MEAN)
        assert cell is not None
        assert isinstance(cell.estimate, Estimate)
        assert cell.estimate.low < cell.estimate.point < cell.estimate.high
        assert cell.estimate.n == 10
        values[name] = cell.estimate.point
    assert values["rund.makespan_mean"] == pytest.approx(116.4e6)
    assert values["rund.latency_mean"] == pytest.approx(110.07e6)
    held = Point(bench="rund-mem", values={"memory_bytes": 128 << 20, "count": 10})
    cell = summary.cell(
        point=held, driver="rund", metric="rund.memory_pss_mean", statistic=Statistic.MEAN
    )
    assert cell is not None
    assert isinstance(cell.estimate, NotAvailable)
    assert cell.estimate.point == pytest.approx(19384.7 * 1024)
    assert main(["report", str(path), "--no-html"]) == 0
    assert "one reading" in capsys.readouterr().out


def test_an_imported_run_cannot_go_on(tmp_path: Path) -> None:
    """There is nothing here to measure with."""
    assert main(["import", "rund", str(FIXTURE), "--out", str(tmp_path)]) == 0
    from seatrial.benches import registry
    from seatrial.benches.base import TrialContext

    (path,) = tmp_path.iterdir()
    with RunStore.open(path) as store:
        spec = store.manifest.plan.trials[0]
        context = TrialContext(
            run_id="",
            spec=spec,
            experiment=store.manifest.plan.experiment,
            open_session=lambda _: pytest.fail("opened"),
            window=lambda _: pytest.fail("timed"),
            scratch_dir=tmp_path,
        )
    bench = registry.get("rund-time")
    assert bench.estimate_ns(context.experiment, spec.point, cost_of("rund")) == 0
    with pytest.raises(ConfigError, match="cannot be run") as refused:
        bench.open(context)
    assert refused.value.code == "imported-only"
    assert "rund-time" not in registry.names()


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    """Figures, conditions and notices by name."""
    assert main(["import", "rund", str(FIXTURE), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["conditions"]["time rund"]["snapshotter"] == "overlayfs"
    assert found["conditions"]["time rund"]["template"] == "yes"
    assert found["notices"] == []
    assert {one["experiment"] for one in found["starts"]} == {"time", "density"}


def test_what_is_no_data_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing path, a directory without trees, a torn archive, more than the bounds."""
    cases = [
        ("none", "import-unreadable"),
        ("empty", "import-empty"),
        ("torn", "import-unreadable"),
    ]
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn").write_bytes(b"\xfd7zXZ\x00 and then nothing")
    for name, code in cases:
        with pytest.raises(ConfigError) as refused:
            read_rund(tmp_path / name)
        assert refused.value.code == code
        assert refused.value.hint
    monkeypatch.setattr(tree, "FILES_MAX", 5)
    with pytest.raises(ConfigError) as refused:
        read_rund(FIXTURE)
    assert refused.value.code == "import-too-large"
    (tmp_path / "bare" / "time_rund_1").mkdir(parents=True)
    monkeypatch.undo()
    assert main(["import", "rund", str(tmp_path / "bare"), "--out", str(tmp_path / "o")]) == 2


def test_options_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    """Each option belongs to some tools."""
    for words in (
        ["rund", str(FIXTURE), "--skip-first", "1"],
        ["lancet", "x.log", "--csv", str(tmp_path)],
        ["rund", str(FIXTURE), "--parquet", str(tmp_path / "x")],
    ):
        assert main(["import", *words]) == 2
    with pytest.raises(ConfigError, match="user-hz"):
        read_rund(FIXTURE, user_hz=0)


def test_tables_are_never_added_to(tmp_path: Path) -> None:
    """A second import into the same place stops before it writes anything."""
    data = read_rund(FIXTURE)
    write_tables(data, tmp_path)
    (tmp_path / "mem_rund.csv").unlink()
    with pytest.raises(StoreError) as refused:
        write_tables(data, tmp_path)
    assert refused.value.code == "store-exists"
    assert not (tmp_path / "mem_rund.csv").exists()
    with pytest.raises(StoreError):
        write_tables(data, tmp_path / "time.csv" / "below")


def test_many_processes_a_sandbox(tmp_path: Path) -> None:
    """Kata has four processes a sandbox, in one table; their sum is divided by the sandboxes."""
    folder = tmp_path / "mem_kata_01010000"
    folder.mkdir()
    names = ["qemu-virtiofs-s", "virtiofsd", "virtiofsd", "containerd-shim"] * 3
    (folder / "result_128MB_0003.txt").write_text(smem_table(names, pss=1000))
    (data,) = read_rund(tmp_path)
    assert tables(data) == {"mem_kata.csv": "memory,3\n128,4000.0\n"}
