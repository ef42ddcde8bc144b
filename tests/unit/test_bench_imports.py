"""The family `import` of the benchmarks: equal tables, and no number without data."""

from __future__ import annotations

import dataclasses
import tarfile
from typing import TYPE_CHECKING

import pytest

from benchmarks import imports
from benchmarks.peers import dataframes
from benchmarks.settings import Settings, smoke
from seatrial.errors import EnvironmentTrouble
from tests.support.rund import FIXTURE

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """One short round."""
    return smoke(tmp_path)


def test_without_data_nothing_is_measured(settings: Settings, tmp_path: Path) -> None:
    """The reason names the option and the variable; a file that is no archive is told."""
    with pytest.raises(EnvironmentTrouble, match=r"--rund.*SEATRIAL_RUND_ARCHIVE"):
        imports.rows(settings)
    (tmp_path / "none.tar").write_text("no archive")
    for place in ("none.tar", ""):
        spoilt = dataclasses.replace(settings, rund=tmp_path / place)
        with pytest.raises(EnvironmentTrouble):
            imports.data_set(spoilt)


def test_our_side_says_its_time_and_its_tables(settings: Settings, tmp_path: Path) -> None:
    """The same digest from a directory and from an archive."""
    path = tmp_path / "rund.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(FIXTURE, "rund")
    seen = set()
    for place in (FIXTURE, path):
        digests: dict[str, str] = {}
        folder = imports.data_set(dataclasses.replace(settings, rund=place))
        figures = imports.ours(settings, folder, digests)
        assert 0 < figures["import_ns"] < figures["program_ns"]
        seen.add(digests["ours"])
    assert len(seen) == 1


def test_both_sides_make_the_same_tables(settings: Settings) -> None:
    """On all that is whole; a row of the benchmark says the rest."""
    try:
        dataframes.version()
    except EnvironmentTrouble as error:
        pytest.skip(str(error))
    digests: dict[str, str] = {}
    folder = imports.data_set(dataclasses.replace(settings, rund=FIXTURE))
    imports.ours(settings, folder, digests)
    imports.theirs(settings, folder, digests)
    assert digests["ours"] == digests["pandas"]
