"""Where things are in a run directory, and what a run is called.

::

    runs/20260905T120000Z-3f2a/
        manifest.json                   what was asked for, on which machine; written once
        journal.jsonl                   what happened, in order; only ever appended to
        trials/t0001/outcome.json       status, findings and the list of tables
        trials/t0001/starts.parquet     one file a table
        superseded/t0001.1/             an interrupted trial that was run again
"""

import re
import secrets
from datetime import datetime
from pathlib import Path
from typing import Final

MANIFEST: Final = "manifest.json"
JOURNAL: Final = "journal.jsonl"
OUTCOME: Final = "outcome.json"
TRIALS: Final = "trials"
SUPERSEDED: Final = "superseded"
TABLE_SUFFIX: Final = ".parquet"
# Directories that are still being written; never read, removed by the next writer.
TEMPORARY_PREFIX: Final = ".writing-"

RUN_ID: Final = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{4}\Z", re.ASCII)
TRIAL_ID: Final = re.compile(r"t\d{4,}\Z", re.ASCII)


def new_run_id(now: datetime) -> str:
    """Make a run id from an instant in UTC and four random hexadecimal digits."""
    return f"{now:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"


def is_run_dir(path: Path) -> bool:
    """Whether a directory holds a run."""
    return (path / MANIFEST).is_file()


def trial_dir(run_dir: Path, trial_id: str) -> Path:
    """Where a trial's files are."""
    return run_dir / TRIALS / trial_id


def table_path(trial: Path, table: str) -> Path:
    """Where a table of a trial is."""
    return trial / f"{table}{TABLE_SUFFIX}"
