"""`seatrial clean --dry-run` tells what a sweep would remove, and removes nothing."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from seatrial.cli.main import main
from seatrial.drivers import state
from seatrial.drivers.base import new_run_id
from seatrial.drivers.stale import would_remove
from seatrial.drivers.state import Owner
from seatrial.probes.cgroup import CgroupHost, Hierarchy

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_a_dry_run_tells_what_the_sweep_then_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The dead run, in the same words; what is alive in neither."""
    place = tmp_path / "groups"
    tree = Hierarchy(version=1, controllers=frozenset({"cpu"}), mount=place, base=place)
    monkeypatch.setattr(CgroupHost, "detect", lambda: CgroupHost((tree,)))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    root = state.state_root()
    dead, alive = new_run_id(), new_run_id()
    for run_id, owner in {
        dead: Owner(run_id=dead, pid=os.getpid(), start_ticks=-1, boot_id="another boot"),
        alive: Owner.current(alive),
    }.items():
        (root / run_id).mkdir(parents=True)
        owner.write(root / run_id)
    assert main(["clean", "--dry-run", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["would_remove"]
    assert told == [f"state {root / dead}"]
    assert (root / dead).is_dir()
    assert main(["clean", "--dry-run"]) == 0
    assert capsys.readouterr().out == f"would remove {told[0]}\n"
    assert main(["clean"]) == 0
    assert capsys.readouterr().out == f"removed {told[0]}\n"
    assert would_remove() == []
    assert (root / alive).is_dir()
