"""One small scripted run that several test modules read."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from seatrial.analysis.summarise import summarise
from seatrial.model.experiment import DensitySettings
from seatrial.store.run_store import RunStore
from tests.support.synthetic import Script, experiment, make_run

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.experiment import Experiment
    from seatrial.model.summary import RunSummary

DRIVERS = ("process", "bwrap", "runsc")
BLOCKS = 4


def small_experiment() -> Experiment:
    """Three drivers, four blocks, every bench; a second or two to write."""
    whole = experiment(drivers=DRIVERS, blocks=BLOCKS)
    assert whole.load is not None
    return dataclasses.replace(
        whole,
        density=DensitySettings(count=(1, 20), settle_timeout_ns=1_000_000_000),
        load=dataclasses.replace(whole.load, connections=(1,), rates_rps=(500.0,)),
    )


def small_run(root: Path, *, script: Script | None = None) -> Path:
    """Makes the run and gives its directory."""
    return make_run(root, script or Script(blocks=BLOCKS), asked=small_experiment())


def summary_of(path: Path) -> RunSummary:
    """Analyses a run."""
    with RunStore.open(path) as store:
        return summarise(store)
