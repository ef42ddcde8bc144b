"""Fixtures of the fault tests."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Seatrial
from tests.support.remains import remains_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def short_directory() -> Iterator[Path]:
    """A directory whose path is short enough for podman, which takes 50 characters in all."""
    while True:
        place = Path("/tmp") / secrets.token_hex(2)
        with contextlib.suppress(FileExistsError):
            place.mkdir(mode=0o700)
            break
    try:
        yield place
    finally:
        shutil.rmtree(place)


@pytest.fixture
def seatrial(tmp_path: Path) -> Iterator[Seatrial]:
    """The command line with directories of its own; no run of it may leave anything behind."""
    with short_directory() as state:
        made = Seatrial(home=tmp_path, state=state)
        yield made
        left = [
            line for run in made.runs() for line in remains_of(run.name, state_root=made.state_root)
        ]
        assert left == []
