"""Finding the two programs that Seatrial brings along."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.errors import EnvironmentTrouble
from seatrial.guest.binary import guest_binary, launch_binary

if TYPE_CHECKING:
    from pathlib import Path


def test_the_named_directory_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SEATRIAL_BIN_DIR says where both programs are."""
    monkeypatch.setenv("SEATRIAL_BIN_DIR", str(tmp_path))
    for name, find in (("seatrial-guest", guest_binary), ("seatrial-launch", launch_binary)):
        path = tmp_path / name
        path.touch(mode=0o755)
        assert find() == path


def test_a_missing_program_says_where_and_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message has the path, the hint the command."""
    monkeypatch.setenv("SEATRIAL_BIN_DIR", str(tmp_path))
    with pytest.raises(EnvironmentTrouble, match=str(tmp_path / "seatrial-guest")) as caught:
        guest_binary()
    assert "make build" in str(caught.value.hint)


def test_a_program_without_the_right_to_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that cannot be executed is as bad as none, and says so."""
    monkeypatch.setenv("SEATRIAL_BIN_DIR", str(tmp_path))
    (tmp_path / "seatrial-launch").touch(mode=0o644)
    with pytest.raises(EnvironmentTrouble, match="is not executable: its mode is 644"):
        launch_binary()
