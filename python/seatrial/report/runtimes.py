"""What must be known of a runtime wherever it is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.model.experiment import IMPORTED_BENCHES

if TYPE_CHECKING:
    from seatrial.model.summary import DriverSummary, RunSummary


def emulated_note(summary: RunSummary) -> str:
    """A sentence on the drivers whose guests run on an emulated processor; empty without any."""
    names = [driver.name for driver in summary.drivers if is_emulated(driver)]
    if not names:
        return ""
    verb = "runs" if len(names) == 1 else "run"
    return f"{' and '.join(names)} {verb} on an emulated processor (TCG), not on the host's."


def is_emulated(driver: DriverSummary) -> bool:
    """Whether a driver's guests ran without the processor's own virtualisation."""
    return driver.flags.get("accelerator", "").lower() == "tcg"


def is_imported(summary: RunSummary) -> bool:
    """Whether the run was read from logs of another tool."""
    return any(bench.name in IMPORTED_BENCHES for bench in summary.benches)
