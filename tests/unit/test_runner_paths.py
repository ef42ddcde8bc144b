"""Paths that leave this process are absolute: a runtime resolves them from its own directory."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from seatrial.run.runner import scratch_dir

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_scratch_is_absolute_empty_and_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`seatrial run --out runs` gives relative run directories; a bind mount of one would fail."""
    monkeypatch.chdir(tmp_path)
    run_dir = tmp_path.__class__("runs/r1")
    (run_dir / "scratch").mkdir(parents=True)
    (run_dir / "scratch" / "left-by-a-killed-run").touch()
    with ExitStack() as stack:
        path = scratch_dir(run_dir, stack)
        assert path.is_absolute()
        assert list(path.iterdir()) == []
    assert not path.exists()
