"""A reader that went away (``seatrial report DIR | head -1``) costs no file."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

import pytest

from seatrial.cli import output
from seatrial.cli.main import EXIT_OUTPUT_CLOSED, main
from seatrial.cli.run import tell
from seatrial.run.runner import RunReport
from seatrial.store.run_store import RunStore
from tests.support.rund import FIXTURE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads what is printed."""

    def closed(_: object) -> None:
        raise output.OutputClosed

    for printer in ("data", "data_json", "render"):
        monkeypatch.setattr(output, printer, closed)
    monkeypatch.setattr(output, "abandon_stdout", lambda: None)


def imported(store: Path) -> list[Path]:
    """Two run directories."""
    for _ in range(2):
        assert main(["import", "rund", str(FIXTURE), "--out", str(store)]) == 0
    return sorted(store.iterdir())


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_an_import_keeps_tables_and_run(tmp_path: Path, form: list[str]) -> None:
    """Whatever is printed, both were asked for."""
    places = ["--csv", str(tmp_path / "csv"), "--out", str(tmp_path / "store")]
    assert main(["import", "rund", str(FIXTURE), *form, *places]) == EXIT_OUTPUT_CLOSED
    assert (tmp_path / "csv" / "time.csv").is_file()
    assert len(list((tmp_path / "store").iterdir())) == 1


def test_a_report_of_two_runs_makes_both_pages(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """The second one is not lost either."""
    runs = imported(tmp_path)
    assert len(runs) == 2
    request.getfixturevalue("gone")
    assert main(["report", *map(str, runs)]) == EXIT_OUTPUT_CLOSED
    for run in runs:
        assert (run / "report.html").is_file()


def test_a_run_has_its_page(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """What was measured can be looked at."""
    run = imported(tmp_path)[0]
    args = argparse.Namespace(json=False, no_html=False)
    request.getfixturevalue("gone")
    with RunStore.open(run) as store, pytest.raises(output.OutputClosed):
        tell(args, store, RunReport(was_interrupted=False, counts={}, elapsed_ns=0))
    assert (run / "report.html").is_file()


def test_a_load_is_reported_with_its_page(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Of a load that was kept, and whose page was removed."""
    directory = tmp_path / "load"
    words = ["fake://?service=exponential:1ms", "--rate", "400/s", "--duration", "1s", "--quiet"]
    assert main(["load", *words, "--out", str(directory)]) == 0
    (directory / "report.html").unlink()
    request.getfixturevalue("gone")
    assert main(["report", str(directory)]) == EXIT_OUTPUT_CLOSED
    assert (directory / "report.html").is_file()
