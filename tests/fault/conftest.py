"""Fixtures of the fault tests."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.command import Seatrial

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def seatrial(tmp_path: Path) -> Iterator[Seatrial]:
    """The command line in a directory of its own, with a state directory of its own."""
    with tempfile.TemporaryDirectory(prefix="st-", dir="/tmp") as state:
        yield Seatrial(home=tmp_path, state=Path(state))
