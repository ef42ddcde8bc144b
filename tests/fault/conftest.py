"""Fixtures of the fault tests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Seatrial
from tests.support.remains import remains_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def seatrial(tmp_path: Path) -> Iterator[Seatrial]:
    """The command line with directories of its own; no run of it may leave anything behind."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as state:
        made = Seatrial(home=tmp_path, state=Path(state))
        yield made
        left = [
            line for run in made.runs() for line in remains_of(run.name, state_root=made.state_root)
        ]
        assert left == []
