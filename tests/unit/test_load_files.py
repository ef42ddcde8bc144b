"""Files of `seatrial load`: what cannot be written is told, and costs nothing but itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl
import pytest
import vl_convert

from seatrial.cli import output
from seatrial.cli.main import EXIT_OUTPUT_CLOSED, main
from seatrial.loadtest import exports, perform

if TYPE_CHECKING:
    from collections.abc import Callable

    from seatrial.loadtest.perform import Performed

QUEUE = "fake://?service=constant:1ms"
WORDS = ["load", QUEUE, "--rate", "100/s", "--duration", "1s", "--warm-up", "0s", "--quiet"]


@pytest.fixture(autouse=True, scope="module")
def _javascript() -> None:
    """Starts the runtime that makes pages; it keeps threads and descriptors for good."""
    vl_convert.javascript_bundle("")


@pytest.fixture
def meanwhile(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Has something done while the load runs."""

    def arrange(act: Callable[[], object]) -> None:
        offered = perform.perform

        def performed(*args: object, **options: object) -> Performed:
            found = offered(*args, **options)  # type: ignore[arg-type]  # passed on as they are
            act()
            return found

        monkeypatch.setattr(perform, "perform", performed)

    return arrange


def no_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails the test if a load begins."""

    def begun(*_: object, **__: object) -> None:
        pytest.fail("a load began")

    monkeypatch.setattr(perform, "perform", begun)


@pytest.mark.parametrize(
    ("files", "code", "told"),
    [
        (["--hdr", "same", "--parquet", "same"], 2, "--hdr and --parquet are the same file"),
        (["--out", "same", "--k6", "./same"], 2, "--out and --k6 are the same file"),
        (["--out", "link/same", "--k6", "same"], 2, "--out and --k6 are the same file"),
        (["--hdr", "dangling"], 2, "dangling exists"),
        (["--hdr", "file/x"], 2, "no directory"),
        (["--hdr", "nowhere/x"], 2, "no directory"),
        (["--out", "/proc/x"], 3, "cannot write /proc/x: "),
        (["--parquet", "/proc/x.parquet"], 3, "cannot write /proc/x.parquet: "),
        (["--hdr", "x" * 250], 3, "File name too long"),
        (["--hdr", "x" * 2500], 3, "File name too long"),
    ],
)
def test_what_could_not_be_written_is_refused_before_the_load(
    files: list[str],
    code: int,
    told: str,
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A minute of load for a name that was wrong from the beginning is a minute lost."""
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to(tmp_path)
    Path("dangling").symlink_to("nothing")
    Path("file").touch()
    no_load(monkeypatch)
    assert main([*WORDS, *files]) == code
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "file", "link"]


@pytest.mark.parametrize("form", ["text", "json"])
def test_the_result_is_told_whatever_becomes_of_its_files(
    form: str,
    tmp_path: Path,
    meanwhile: Callable[[Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two names are taken while the load runs, one directory goes: the fourth file is there."""
    names = {
        "--out": tmp_path / "all",
        "--hdr": tmp_path / "r.hlog",
        "--k6": tmp_path / "gone" / "r.ndjson",
        "--parquet": tmp_path / "r.parquet",
    }
    (tmp_path / "gone").mkdir()

    def act() -> None:
        (tmp_path / "all").mkdir()
        (tmp_path / "r.hlog").write_text("of somebody else")
        (tmp_path / "gone").rmdir()

    meanwhile(act)
    words = [word for flag, path in names.items() for word in (flag, str(path))]
    assert main([*WORDS, *words, *(["--json"] if form == "json" else [])]) == 3
    captured = capsys.readouterr()
    if form == "json":
        assert json.loads(captured.out)["measured"]["ok_count"] > 0
    else:
        assert "open loop" in captured.out
    lines = captured.err.splitlines()
    assert lines[0].startswith(f"error: cannot write {names['--out']}: it came into being")
    assert lines[1].strip().startswith(f"cannot write {names['--hdr']}: it came into being")
    assert lines[2].strip().startswith(f"cannot write {names['--k6']}: No such file")
    assert pl.read_parquet(names["--parquet"]).height > 0
    assert names["--hdr"].read_text() == "of somebody else"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all", "r.hlog", "r.parquet"]
    assert not any(names["--out"].iterdir())


def test_a_file_that_failed_outranks_what_the_load_found(
    tmp_path: Path,
    meanwhile: Callable[[Callable[[], object]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The exit code is that of the file; the objective that fails is printed all the same."""
    path = tmp_path / "r.hlog"
    meanwhile(path.touch)
    assert main([*WORDS, "--slo", "p50<1us", "--hdr", str(path)]) == 3
    assert "fails" in capsys.readouterr().out


def test_a_reader_that_went_away_costs_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with `seatrial load --out DIR ... | head -1`."""

    def closed(_: object) -> None:
        raise output.OutputClosed

    monkeypatch.setattr(output, "data_json", closed)
    monkeypatch.setattr(output, "abandon_stdout", lambda: None)
    code = main([*WORDS, "--json", "--hdr", str(tmp_path / "r"), "--out", str(tmp_path / "o")])
    assert code == EXIT_OUTPUT_CLOSED
    assert (tmp_path / "r").is_file()
    assert exports.is_load_directory(tmp_path / "o")


def test_a_search_has_no_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They are named as they were given, and nothing is left of trying the place."""
    files = ["--hdr", str(tmp_path / "r"), "--out", str(tmp_path / "o")]
    assert main([*WORDS, "--find-capacity", "--slo", "p99<1s", *files]) == 2
    assert "--out, --hdr belongs to one" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())
