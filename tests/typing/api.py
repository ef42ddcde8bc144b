"""The public interface as a typed program would use it: mypy reads this file, nobody runs it."""

from pathlib import Path
from typing import assert_type

import polars as pl

import seatrial
from seatrial.analysis.summarise import summarise
from seatrial.config.expand import expand
from seatrial.config.load import load_experiment
from seatrial.drivers import registry
from seatrial.drivers.base import Driver, ProbeResult
from seatrial.errors import SeatrialError
from seatrial.model.estimate import Estimate, NotAvailable
from seatrial.model.experiment import Experiment
from seatrial.model.finding import Finding
from seatrial.model.plan import Plan
from seatrial.model.summary import RunSummary
from seatrial.model.trial import TrialOutcome
from seatrial.store.run_store import RunStore


def what_would_run(file: Path) -> Plan:
    """An experiment file becomes a plan without touching the machine."""
    experiment = load_experiment(file, known_drivers=registry.names())
    assert_type(experiment, Experiment)
    return expand(experiment, experiment.drivers)


def what_works_here() -> dict[str, str | None]:
    """Drivers are probed one by one; each says its version."""
    found: dict[str, str | None] = {}
    for name in registry.names():
        driver: Driver = registry.get(name)
        result = driver.probe()
        assert_type(result, ProbeResult)
        found[name] = result.version
    return found


def read_a_run(directory: Path) -> tuple[RunSummary, list[str]]:
    """A run directory gives outcomes, raw tables and a summary."""
    with RunStore.open(directory) as store:
        for trial_id, outcome in store.outcomes().items():
            assert_type(outcome, TrialOutcome)
            for table in store.table_names(trial_id):
                assert_type(store.read_table(trial_id, table), pl.DataFrame)
        summary = summarise(store)
        assert_type(summary.findings, tuple[Finding, ...])
        return summary, [finding.code for finding in summary.findings]


def width(estimate: Estimate | NotAvailable) -> float | str:
    """An estimate has both ends of its interval; where there is none, there is a reason."""
    if isinstance(estimate, NotAvailable):
        return estimate.reason
    return estimate.high - estimate.low


def exit_code(error: SeatrialError) -> int:
    """Every error that Seatrial raises on purpose has an exit code, a slug and perhaps a hint."""
    assert_type(error.code, str)
    assert_type(error.hint, str | None)
    return error.exit_code


version: str = seatrial.__version__
