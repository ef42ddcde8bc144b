"""What is wrong with RunD's scripts is not wrong here: a test for each flaw, by its number.

The flaws that an importer or an analysis can have, of the list in METHODOLOGY 11.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from seatrial.analysis.summarise import summarise
from seatrial.benches.registry import IMPORTED
from seatrial.cli.main import main
from seatrial.errors import ConfigError
from seatrial.importers.rund.clients import RoundsUnclear, rounds_of
from seatrial.importers.rund.compat import start_figures, tables
from seatrial.importers.rund.read import read_rund
from seatrial.store.run_store import RunStore, find_runs
from tests.support.rund import copied, smem_table, time_tree

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.importers.rund.rows import RundData
    from seatrial.importers.source import Notice
    from seatrial.model.finding import Finding

TIME = "time_rund_05091621"
TEN = [[100 + number + client for client in range(10)] for number in range(10)]


def notices(data: RundData) -> list[tuple[str, str]]:
    """Returns code and text of all that was odd."""
    return [(one.code, one.message) for one in data.notices]


def only(data: RundData, code: str) -> Notice:
    """Returns the only oddity."""
    (found,) = data.notices
    assert found.code == code, found
    return found


def findings_of(folder: Path, out: Path) -> list[Finding]:
    """Returns what is held against a run that was imported."""
    main(["import", "rund", str(folder), "--out", str(out)])
    (path,) = find_runs(out)
    with RunStore.open(path) as store:
        return list(summarise(store).findings)


def test_r1_makespan_and_latency_have_two_names(tmp_path: Path) -> None:
    """The mean batch time is called makespan, the mean of one client's wait latency."""
    time_tree(tmp_path, {2: [[10, 90], [10, 90]]})
    (data,) = read_rund(tmp_path)
    (one,) = start_figures(data)
    assert (one.makespan_mean_ns, one.latency_mean_ns) == (91e6, 50e6)
    assert (one.latency_p50_ns, one.latency_max_ns, one.p99_lower_mean_ns) == (50e6, 90e6, 10e6)
    names = [metric.name for metric in IMPORTED["rund-time"].metrics]
    assert len({name for name in names if "makespan" in name or "latency" in name}) == 3
    assert not [name for name in names if "makespan" in name and "latency" in name]


def test_r6_a_missing_line_shifts_no_round(tmp_path: Path) -> None:
    """Rounds are told by their times: one is incomplete, and the other nine are as they were."""
    root = copied(tmp_path)
    file = root / TIME / "con_010" / "client003.txt"
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:4] + lines[5:]))
    (data,) = read_rund(tmp_path)
    said = next(one for one in data.notices if one.code == "round-mismatch")
    assert f"{TIME}/con_010/client003.txt, line 5" in said.message
    assert "round 5" in said.message
    assert "9 of 10" in said.message
    cell = next(
        one for one in start_figures(data) if (one.background, one.concurrency) == (None, 10)
    )
    makespans = [115, 109, 111, 125, 119, 118, 112, 123, 114]
    assert cell.rounds_count == 9
    assert cell.makespan_mean_ns == pytest.approx(np.mean(makespans) * 1e6)


def test_r6_a_duplicate_and_a_torn_line_are_named(tmp_path: Path) -> None:
    """Each with its file and line; what is whole is used."""
    root = copied(tmp_path)
    cell = root / TIME / "con_010"
    lines = (cell / "client001.txt").read_text().splitlines(keepends=True)
    (cell / "client001.txt").write_text("".join([*lines, lines[2]]))
    text = (cell / "client002.txt").read_text()
    (cell / "client002.txt").write_text(text[:-20])
    words = (cell / "client004.txt").read_text().replace(" ", "  ", 1)
    (cell / "client004.txt").write_text(words)
    (cell / "client005.txt").unlink()
    (cell / "client011.txt").write_text(lines[0])
    (data,) = read_rund(tmp_path)
    found = notices(data)
    assert ("duplicate-line", 11) in [(one.code, one.line_number) for one in data.notices]
    torn = [text for code, text in found if code == "torn-line"]
    assert any("client002.txt, line 10" in text for text in torn)
    assert any("client004.txt, line 1" in text for text in torn)
    assert any(code == "missing-file" and "client005.txt" in text for code, text in found)
    assert any(code == "unexpected-file" and "client011.txt" in text for code, text in found)
    assert tables(data)["time.csv"] == "runtime,1,10\nrund,94.3,\n", "no round is whole any more"


def test_r6_a_line_that_contradicts_itself_is_torn(tmp_path: Path) -> None:
    """End minus begin is the latency, or digits were lost."""
    time_tree(tmp_path, {1: [[10], [11], [12]]})
    file = tmp_path / "time_rund_01010000" / "con_001" / "client001.txt"
    file.write_text(file.read_text().replace(" 11\n", " 1\n"))
    (data,) = read_rund(tmp_path)
    assert any(code == "torn-line" and "line 2" in text for code, text in notices(data))


def test_r6_rounds_that_overlap_are_refused(tmp_path: Path) -> None:
    """Where times cannot tell the rounds apart nothing is guessed."""
    begins = np.array([0, 5, 6, 11])
    ends = np.array([10, 15, 16, 20])
    with pytest.raises(RoundsUnclear):
        rounds_of(np.array([1, 1, 2, 2]), begins, ends)
    tree = time_tree(tmp_path, {2: [[10, 10], [10, 10]]}, gap=-8)
    (data,) = read_rund(tmp_path)
    assert only(data, "cell-refused").message.startswith(f"{tree.name}/con_002: ")
    assert tables(data) == {}


def test_r6_a_batch_that_trickles_is_one_round() -> None:
    """A member that ended before the last one began does not split its round."""
    clients = np.array([1, 2, 1, 2])
    begins = np.array([0, 12, 5_000, 5_001])
    ends = np.array([10, 30, 5_020, 5_030])
    assert rounds_of(clients, begins, ends).tolist() == [0, 0, 1, 1]


def test_r7_ticks_have_a_length(tmp_path: Path) -> None:
    """At 250 ticks a second the same count is less time."""
    root = copied(tmp_path)
    (usual,) = read_rund(root)
    (other,) = read_rund(root, user_hz=250)
    assert tables(usual)["cpu.csv"] == "runtime,1,10\nrund,165.0,127.7\n"
    assert tables(other)["cpu.csv"] == "runtime,1,10\nrund,66.0,51.08\n"


def test_r7_lost_ticks_are_said(tmp_path: Path) -> None:
    """All ticks of a round are the processors by its length; a cell that has fewer lost some."""
    tree = time_tree(tmp_path, {n: [[1000] * n] * 3 for n in (1, 2, 3)})
    file = tree / "con_003" / "cpu.txt"
    busy, ticks, _ = file.read_text().splitlines()[0].split()
    fewer = int(ticks) * 9 // 10
    file.write_text(f"{busy} {fewer} {int(busy) / fewer * 100:.6g}\n" * 3)
    (data,) = read_rund(tmp_path)
    said = only(data, "lost-ticks").message
    assert f"{tree.name}/con_003" in said
    assert "10% short" in said


def test_r7_torn_books_give_no_cpu_time(tmp_path: Path) -> None:
    """A line that does not add up, and a file with fewer lines than rounds."""
    for name, text, code in (
        ("a", "100 1050 50.0\n100 1050 9.52381\n", "torn-line"),
        ("b", "100 1050 9.52381\n", "round-mismatch"),
        ("c", None, "missing-file"),
        ("d", "x\n100 1050 1.2.3\n", "torn-line"),
    ):
        tree = time_tree(tmp_path / name, {1: [[100], [101]]})
        file = tree / "con_001" / "cpu.txt"
        file.unlink()
        if text is not None:
            file.write_text(text)
        (data,) = read_rund(tmp_path / name)
        assert {one.code for one in data.notices} == {code}
        assert "cpu.csv" not in tables(data)
        assert "time.csv" in tables(data)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["firecracker"] * 3, "0 of containerd-shim where 3 are expected"),
        (["firecracker", "containerd-shim"] * 2, "2 of firecracker where 3 are expected"),
        (["firecracker", "containerd-shim"] * 3 + ["sshd"], "1 of sshd"),
    ],
)
def test_r8_the_processes_of_every_sandbox_are_there(
    tmp_path: Path, names: list[str], why: str
) -> None:
    """A pattern that misses the shims gives no number, whatever smem printed."""
    folder = tmp_path / "mem_katafc_01010000"
    folder.mkdir()
    (folder / "result_128MB_0003.txt").write_text(smem_table(names))
    (folder / "result_256MB_0001.txt").write_text(smem_table(["firecracker", "containerd-shim"]))
    (data,) = read_rund(tmp_path)
    said = only(data, "cell-refused").message
    assert "mem_katafc_01010000/result_128MB_0003.txt" in said
    assert why in said
    assert tables(data) == {"mem_katafc.csv": "memory,1,3\n128,,\n256,200.0,\n"}


def test_r8_of_an_unknown_runtime_processes_are_a_multiple(tmp_path: Path) -> None:
    """Nobody told how many there should be, but each sandbox has as many as the next."""
    folder = tmp_path / "mem_other_01010000"
    folder.mkdir()
    (folder / "result_128MB_0002.txt").write_text(
        smem_table(["vmm", "vmm", "a helper", "a helper"])
    )
    (folder / "result_128MB_0004.txt").write_text(smem_table(["vmm"] * 5))
    (data,) = read_rund(tmp_path)
    assert "5 of vmm, no multiple of 4" in only(data, "cell-refused").message
    assert tables(data) == {"mem_other.csv": "memory,2,4\n128,200.0,\n"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "line 1"),
        ("Name USS PSS\n", "line 1"),
        ("Name USS PSS RSS VSS\n", "no process"),
        ("Name USS PSS RSS VSS\nrund-0000000a 1 2 3 4\nrund-0000000b 1 2", "middle of a line"),
        ("Name USS PSS RSS VSS\nrund-0000000a 1 x 3 4\n", "line 2"),
        ("Name USS PSS RSS VSS\n" + "rund-0000000a 1 2 3 4\n" * 2, "listed twice"),
    ],
)
def test_r8_a_torn_table_is_no_number(tmp_path: Path, text: str, why: str) -> None:
    """Its line is named."""
    folder = tmp_path / "mem_rund_01010000"
    folder.mkdir()
    (folder / "result_128MB_0002.txt").write_text(text)
    (data,) = read_rund(tmp_path)
    assert why in only(data, "cell-refused").message
    assert tables(data) == {"mem_rund.csv": "memory,2\n128,\n"}


def test_r8_memory_in_the_wrong_order_is_said(tmp_path: Path) -> None:
    """What only one process maps is no more than its share."""
    folder = tmp_path / "mem_rund_01010000"
    folder.mkdir()
    (folder / "result_128MB_0001.txt").write_text("Name USS PSS RSS VSS\nrund-0000000a 9 2 3 4\n")
    (data,) = read_rund(tmp_path)
    assert only(data, "implausible").message.startswith("mem_rund_01010000/result_128MB_0001.txt")


def test_r9_any_sweep_in_any_order(tmp_path: Path) -> None:
    """Counts that no script lists, rows and columns sorted, gaps blank."""
    time_tree(tmp_path, {3: [[30, 30, 30]], 7: [[70] * 7]}, runtime="zeta")
    time_tree(tmp_path, {3: [[20, 20, 20]]}, runtime="alpha")
    (data,) = read_rund(tmp_path)
    assert tables(data)["time.csv"] == "runtime,3,7\nalpha,22.0,\nzeta,32.0,76.0\n"


def test_r9_two_trees_of_a_runtime(tmp_path: Path) -> None:
    """Two halves of a sweep are one; the same cell twice is refused, and both are named."""
    time_tree(tmp_path, {1: [[10]]}, stamp="01010000")
    time_tree(tmp_path, {2: [[10, 10]]}, stamp="01020000")
    (data,) = read_rund(tmp_path)
    assert tables(data)["time.csv"] == "runtime,1,2\nrund,10.0,11.0\n"
    time_tree(tmp_path, {2: [[20, 20]]}, stamp="01030000")
    with pytest.raises(ConfigError, match=r"01020000/con_002 and .*01030000/con_002") as refused:
        read_rund(tmp_path)
    assert refused.value.code == "import-duplicate"


def test_r9_a_copied_cell_is_seen(tmp_path: Path) -> None:
    """The same sandboxes in two cells were measured once."""
    tree = time_tree(tmp_path, {1: [[10], [11]]})
    shutil.copytree(tree, tmp_path / "time_kata_01010000")
    (data,) = read_rund(tmp_path)
    assert "2 sandboxes are in" in only(data, "copied-rows").message


def test_r11_drift_and_a_first_round_unlike_the_rest(tmp_path: Path) -> None:
    """A mean over a trend is marked, in the direction of the first round too."""
    rising = [[100 + 3 * number] for number in range(20)]
    fresh = [[55, 55]] + [[100 + n % 3] * 2 for n in range(19)]
    steady = [[100 + n % 3] * 3 for n in range(20)]
    time_tree(tmp_path / "in", {1: rising, 2: fresh, 3: steady})
    found = {one.code: one.message for one in findings_of(tmp_path / "in", tmp_path / "out")}
    assert set(found) == {"drifting", "first-round-outlier"}
    assert "concurrency=1" in found["drifting"]
    assert "concurrency=2" in found["first-round-outlier"]
    assert "0.5" in found["first-round-outlier"]


def test_r12_the_configuration_of_mem_is_not_believed(tmp_path: Path) -> None:
    """It was copied before the guest's memory was set: it says 168 MiB for every row."""
    (data,) = read_rund(copied(tmp_path))
    assert data.conditions["time", "rund"]["guest_memory"] == "168 MiB"
    assert "guest_memory" not in data.conditions["mem", "rund"]
    assert {cell.memory_bytes >> 20 for cell in data.memory} == {128, 256}


def test_r10_mixed_conditions_inside_a_sweep_are_said(tmp_path: Path) -> None:
    """Half a sweep with another snapshotter is no sweep."""
    for stamp, cells, name in (("1", {1: [[10]]}, "overlayfs"), ("2", {2: [[9, 9]]}, "devmapper")):
        tree = time_tree(tmp_path, cells, stamp=stamp)
        (tree / "config.toml").write_text(f'[plugins.cri.containerd]\nsnapshotter = "{name}"\n')
    (data,) = read_rund(tmp_path)
    assert "snapshotter differ" in only(data, "mixed-conditions").message


def test_r13_names_are_taken_whole(tmp_path: Path) -> None:
    """``rund`` is not ``rund2``, and a directory that only looks alike is no tree."""
    time_tree(tmp_path, {1: [[10]]}, runtime="rund")
    time_tree(tmp_path, {1: [[20]]}, runtime="rund2")
    (tmp_path / "mytime_rund_01010000" / "con_001").mkdir(parents=True)
    (data,) = read_rund(tmp_path)
    assert data.runtimes == ("rund", "rund2")
    assert tables(data)["time.csv"] == "runtime,1\nrund,10.0\nrund2,20.0\n"


def test_r16_a_second_run_into_the_same_directory_is_seen(tmp_path: Path) -> None:
    """Two lines where one belongs; the numbers are the rows' own."""
    root = copied(tmp_path)
    file = root / TIME / "con_001" / "latency.txt"
    file.write_text(file.read_text() * 2)
    (data,) = read_rund(tmp_path)
    assert only(data, "appended").message.startswith(f"{TIME}/con_001/latency.txt has 2")
    assert "94.3" in tables(data)["time.csv"]
    file.write_text("1234.5\n")
    (data,) = read_rund(tmp_path)
    assert "mean of the clients' rows is 94.3" in only(data, "mean-mismatch").message


def test_what_is_broken_is_in_the_run_too(tmp_path: Path) -> None:
    """A cell with a gap is marked; one without whole rounds is a failed trial with its reason."""
    root = copied(tmp_path / "in")
    (root / TIME / "con_010" / "client003.txt").write_text("nonsense\n")
    time_tree(root, {2: [[10, 10], [10, 10]]}, gap=-8, runtime="other")
    found = findings_of(root, tmp_path / "out")
    assert {"broken-log", "trial-failed"} <= {one.code for one in found}
    assert any("client003.txt, line 1" in one.message for one in found)
