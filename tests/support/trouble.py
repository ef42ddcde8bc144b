"""Runs into trouble (``troubled_run``), and what is read from them afterwards."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import polars as pl

from seatrial.store.run_store import RunStore

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.trial import TrialOutcome
    from tests.support.command import Done, Seatrial


def run_into(seatrial: Seatrial, trouble: str, point: str, trial: str, file: Path) -> Done:
    """Runs an experiment with one trap set; whatever happens is foreseen."""
    words = [sys.executable, "-m", "tests.support.troubled_run", trouble, point, trial]
    done = seatrial.execute([*words, "run", "--no-html", file])
    assert "Traceback" not in done.out + done.err, done.shown
    assert "internal error" not in done.err, done.shown
    assert f"trouble: {trouble}" in done.err, done.shown
    return done


def outcomes_of(seatrial: Seatrial, driver: str) -> list[TrialOutcome]:
    """How the stored trials of a driver ended, in the order in which they ran."""
    (run_dir,) = seatrial.runs()
    store = RunStore.open(run_dir)
    drivers = {spec.trial_id: spec.driver for spec in store.manifest.plan.trials}
    return [one for key, one in store.outcomes().items() if drivers[key] == driver]


def endings_in(outcome: TrialOutcome) -> list[str]:
    """How the measured starts of a trial ended."""
    starts = outcome.tables["starts"]
    assert isinstance(starts, pl.DataFrame)
    endings: list[str] = starts.filter(~starts["is_floor"])["outcome"].to_list()
    return endings
