"""Two runs at once disturb each other, and both must say so."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from seatrial.drivers.state import Owner
from seatrial.run.neighbours import neighbour_finding, other_runs

if TYPE_CHECKING:
    from pathlib import Path


def claim(root: Path, owner: Owner) -> None:
    """Makes the state directory of a run with an owner."""
    directory = root / owner.run_id
    directory.mkdir()
    owner.write(directory)


def test_only_live_runs_of_others_count(tmp_path: Path) -> None:
    """Our own run, runs of dead owners and stray directories are no neighbours."""
    alive = Owner.current("20260101T000000Z-aaaa")
    claim(tmp_path, alive)
    claim(tmp_path, Owner.current("20260101T000000Z-bbbb"))
    claim(tmp_path, dataclasses.replace(alive, run_id="20260101T000000Z-cccc", start_ticks=1))
    (tmp_path / "stray").mkdir()
    found = other_runs("20260101T000000Z-bbbb", tmp_path)
    assert found == ("20260101T000000Z-aaaa",)
    finding = neighbour_finding(found)
    assert finding is not None
    assert finding.code == "another-run"
    assert neighbour_finding(()) is None
    assert other_runs("x", tmp_path / "missing") == ()
