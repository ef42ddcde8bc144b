"""Paths that leave this process are absolute: a runtime resolves them from its own directory."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from seatrial.errors import StoreError
from seatrial.run.runner import scratch_dir

if TYPE_CHECKING:
    from pathlib import Path


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


def test_a_disk_without_room_for_a_scratch_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No names left on the disk of the results is an error of the store, as for a trial's rows."""

    def refuse(self: Path, *_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28), str(self))

    monkeypatch.setattr(type(tmp_path), "mkdir", refuse)
    with ExitStack() as stack, pytest.raises(StoreError, match="No space left") as caught:
        scratch_dir(tmp_path, stack)
    assert caught.value.code == "store-enospc"
