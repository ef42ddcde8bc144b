"""What is wrong with a system reaches the reader as a finding, through the whole chain."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.analysis.compare import compare_runs
from seatrial.errors import ConfigError
from seatrial.model.finding import Severity
from seatrial.store.run_store import RunStore
from tests.support.fake_run import run_text

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.finding import Finding

EXPERIMENT = """
name = "findings"
blocks = {blocks}
baseline = "fake"
drivers = ["fake"]
[start]
concurrency = [{concurrency}]
rounds = 1
[driver.fake]
processors = 0
start = "constant:1ms"
{model}
"""


def findings_of(folder: Path, *, model: str = "", blocks: int = 1) -> dict[str, Finding]:
    """The findings by code of a run on a fake system with this model."""
    text = EXPERIMENT.format(model=model, blocks=blocks, concurrency=4)
    summary, _ = run_text(text, folder)
    return {finding.code: finding for finding in summary.findings}


def test_a_leaking_runtime(tmp_path: Path) -> None:
    """A runtime that leaves sandboxes behind is an error with the name of one of them."""
    found = findings_of(tmp_path, model="leak_ratio = 1.0")["leftovers"]
    assert found.severity is Severity.ERROR
    assert "st-fake-" in found.message


def test_starts_that_fail(tmp_path: Path) -> None:
    """Starts that end early are counted, not left out."""
    found = findings_of(tmp_path, model="early_exit_ratio = 1.0")["start-failures"]
    assert found.driver == "fake"


def test_too_small_a_sample(tmp_path: Path) -> None:
    """Four starts give no interval, and the finding says how many would."""
    found = findings_of(tmp_path)["too-few-samples"]
    needed = found.evidence["needed_count"]
    assert isinstance(needed, int)
    assert needed > int(found.evidence["samples_count"] or 0)


def test_a_sound_system(tmp_path: Path) -> None:
    """Nothing is held against a system that has nothing wrong with it."""
    found = findings_of(tmp_path, blocks=6)
    assert not set(found) & {"leftovers", "start-failures", "too-few-samples"}


def test_runs_of_different_requests(tmp_path: Path) -> None:
    """Two runs that asked for different things are not compared, and the reason is given."""
    paths = []
    for name, deadline in (("a", "1s"), ("b", "2s")):
        (tmp_path / name).mkdir()
        text = EXPERIMENT.format(model="", blocks=1, concurrency=2)
        text = text.replace("rounds = 1", f'rounds = 1\ndeadline = "{deadline}"')
        paths.append(run_text(text, tmp_path / name)[1])
    with pytest.raises(ConfigError, match="settings of start") as caught:
        compare_runs(RunStore.open(paths[0]), RunStore.open(paths[1]))
    assert caught.value.code == "not-comparable"
    assert caught.value.hint is not None
