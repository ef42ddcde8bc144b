"""RunD's raw data to its published tables: the importer against the same formulas in pandas.

Both sides are one program each, which says how long it took from the first file to the last table,
libraries loaded before; the whole program is a row of its own. Both tables must be equal, or there
is no row. Files are read once before, so the disk is in neither.
"""

from __future__ import annotations

import sys
import tarfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers import dataframes
from benchmarks.peers.common import run_pinned
from benchmarks.quiet import Quiet
from benchmarks.rows import Row, Target
from benchmarks.series import contest
from benchmarks.tools import read_json
from seatrial.errors import EnvironmentTrouble
from seatrial.units import NS_PER_MS, NS_PER_S

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.settings import Settings

VARIABLE = "SEATRIAL_RUND_ARCHIVE"
CHILD = Path(__file__).parent / "imports_child.py"
SECONDS_MAX = 300.0


def rows(settings: Settings) -> list[Row]:
    """Returns the import by itself, and as a whole program."""
    folder = data_set(settings)
    digests: dict[str, str] = {}
    sides = {
        "ours": lambda: ours(settings, folder, digests),
        "pandas": lambda: theirs(settings, folder, digests),
    }
    for run in sides.values():
        run()  # the page cache has all files now, and the tables are known
    if len(set(digests.values())) != 1:
        raise EnvironmentTrouble(f"the tables of both sides differ: {digests}")
    found = contest(sides, rounds=settings.rounds, quiet=Quiet(settings))
    what = (
        ("import_ns", "files read and checked, tables made", Target(must=10)),
        ("program_ns", "the same, with start of the interpreter and libraries", None),
    )
    return [
        found.ratio(
            Row(id="", name=f"RunD's AE data: {name}"),
            figure,
            ours="ours",
            theirs="pandas",
            shown=milliseconds,
            target=target,
            inverse=True,
        )
        for figure, name, target in what
    ]


def data_set(settings: Settings) -> Path:
    """Returns the directory that holds the trees; an archive is unpacked once.

    Raises:
        EnvironmentTrouble: there are no data, or they cannot be read.
    """
    path = settings.rund
    if path is None:
        raise EnvironmentTrouble(f"no data of RunD: give --rund DIR|TAR, or set {VARIABLE}")
    if not path.is_dir():
        folder = settings.build / "rund"
        if not folder.exists():
            try:
                with tarfile.open(path) as archive:
                    archive.extractall(folder, filter="data")
            except (OSError, tarfile.TarError) as error:
                raise EnvironmentTrouble(f"cannot unpack {path.name}: {error}") from error
        path = folder
    for tree in sorted(path.rglob("time_*")):
        if tree.is_dir():
            return tree.parent
    raise EnvironmentTrouble(f"no tree time_* in {path.name}")


def ours(settings: Settings, folder: Path, digests: dict[str, str]) -> Figures:
    """Returns how long Seatrial's importer takes."""
    return child(settings, [sys.executable, str(CHILD), str(folder)], digests, "ours")


def theirs(settings: Settings, folder: Path, digests: dict[str, str]) -> Figures:
    """Returns how long the formulas take in pandas."""
    return child(settings, dataframes.argv(folder), digests, "pandas")


def child(settings: Settings, argv: list[str], digests: dict[str, str], name: str) -> Figures:
    """Runs one side; keeps the digest of its tables."""
    began_ns = time.monotonic_ns()
    text = run_pinned(settings, argv, seconds=SECONDS_MAX)
    spent_ns = time.monotonic_ns() - began_ns
    found = read_json(text, source=name)
    digests[name] = str(found["digest"])
    return {"import_ns": float(str(found["import_ns"])), "program_ns": float(spent_ns)}


def milliseconds(value_ns: float) -> str:
    """Returns a duration as a reader compares it."""
    if value_ns < NS_PER_S:
        return f"{value_ns / NS_PER_MS:.3g} ms"
    return f"{value_ns / NS_PER_S:.3g} s"
