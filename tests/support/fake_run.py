"""Runs an experiment in this process, the way the command line does, and gives what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.analysis.summarise import summarise
from seatrial.benches.load_request import check_load
from seatrial.config.expand import expand
from seatrial.config.load import parse_experiment, read_source
from seatrial.drivers import registry
from seatrial.run.prepare import create_run, perform
from seatrial.run.progress import Silent

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.plan import Plan
    from seatrial.model.summary import RunSummary


def parse_plan(text: str, folder: Path) -> Plan:
    """Gives the plan of an experiment given as TOML."""
    file = folder / "experiment.toml"
    file.write_text(text)
    source = read_source(file)
    experiment = parse_experiment(source, known_drivers=registry.names(), check_load=check_load)
    return expand(experiment, experiment.drivers)


def run_text(text: str, folder: Path) -> tuple[RunSummary, Path]:
    """Runs an experiment given as TOML; the summary and the run directory."""
    plan = parse_plan(text, folder)
    made = create_run(folder / "runs", plan, text=text, source="-", skipped={})
    with made as store:
        perform(store, Silent())
        return summarise(store), store.path
