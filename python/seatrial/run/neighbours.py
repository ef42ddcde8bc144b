"""Other runs of Seatrial on this machine: they share its processors with ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.drivers.base import state_root
from seatrial.drivers.state import Owner
from seatrial.model.finding import Finding, Severity

if TYPE_CHECKING:
    from pathlib import Path


def other_runs(own_run_id: str, root: Path | None = None) -> tuple[str, ...]:
    """Returns the ids of runs whose owner is alive, our own left out.

    Only runs with the same state directory are seen.
    """
    base = state_root() if root is None else root
    try:
        directories = sorted(base.iterdir())
    except OSError:
        return ()
    owners = [Owner.read(directory) for directory in directories]
    return tuple(
        owner.run_id
        for owner in owners
        if owner is not None and owner.is_alive and owner.run_id != own_run_id
    )


def neighbour_finding(run_ids: tuple[str, ...]) -> Finding | None:
    """Returns the warning that belongs to a trial which did not have the machine for itself."""
    if not run_ids:
        return None
    return Finding(
        code="another-run",
        severity=Severity.WARNING,
        message=f"{len(run_ids)} other run(s) of Seatrial were at work on this machine: "
        "one slows the other down",
        evidence={"other_runs_count": len(run_ids), "first_run": run_ids[0]},
    )
