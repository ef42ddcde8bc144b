"""Disks that are full or read-only, and writers that are killed: nothing half-written is seen."""

from __future__ import annotations

import os
import random
import select
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from seatrial import proc
from seatrial.errors import ExitCode, StoreError
from seatrial.model.trial import TrialOutcome, TrialStatus
from seatrial.store.journal import Event, EventKind
from seatrial.store.run_store import RunStore
from tests.support.requests import manifest

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seatrial.model.trial import Columns

pytestmark = pytest.mark.fault

needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a tmpfs takes root")


@contextmanager
def tmpfs(path: Path, size: str) -> Iterator[Path]:
    """A small disk of its own."""
    path.mkdir()
    proc.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)])
    try:
        yield path
    finally:
        proc.run(["umount", str(path)])


def big_table() -> Columns:
    """Some 2 MB that do not compress."""
    values = random.Random(1)
    rows_count = 250_000
    return {
        "metric": ["a_ns"] * rows_count,
        "value": [values.random() for _ in range(rows_count)],
        "position": list(range(rows_count)),
    }


@needs_mounts
def test_full_disk(tmp_path: Path) -> None:
    """A trial that does not fit is an error with a hint; the trials before it stay readable."""
    with (
        tmpfs(tmp_path / "disk", "1m") as disk,
        RunStore.create(disk, manifest()) as store,
    ):
        small = {"metric": ["a_ns"], "value": [1.0], "position": [0]}
        store.write_trial(
            TrialOutcome(trial_id="t0001", status=TrialStatus.OK, tables={"samples": small})
        )
        before = sorted(path.name for path in store.path.rglob("*"))
        too_much = TrialOutcome(
            trial_id="t0002", status=TrialStatus.OK, tables={"samples": big_table()}
        )
        with pytest.raises(StoreError, match="No space left on device") as caught:
            store.write_trial(too_much)
        assert caught.value.code == "store-enospc"
        assert caught.value.exit_code is ExitCode.ENVIRONMENT
        assert "free some space" in (caught.value.hint or "")
        assert sorted(path.name for path in store.path.rglob("*")) == before
        assert store.finished_trials() == {"t0001"}
        # With room again, the same store goes on.
        store.write_trial(TrialOutcome(trial_id="t0002", status=TrialStatus.OK))
        assert store.finished_trials() == {"t0001", "t0002"}


@needs_mounts
def test_journal_on_a_full_disk(tmp_path: Path) -> None:
    """A line that does not fit is taken back as a whole."""
    with (
        tmpfs(tmp_path / "disk", "64k") as disk,
        RunStore.create(disk, manifest()) as store,
    ):
        store.append(Event(kind=EventKind.RUN_STARTED))
        fill(disk)
        note = Event(kind=EventKind.NOTE, details={"text": "x" * 8192})
        with pytest.raises(StoreError, match="cannot append to"):
            store.append(note)
        content = store.journal()
        assert content.torn is None
        assert [event.kind for event in content.events] == [EventKind.RUN_STARTED]
        (disk / "filler").unlink()
        store.append(note)
        assert len(store.journal().events) == 2


def fill(disk: Path) -> None:
    """Take all the room that is left."""
    with (disk / "filler").open("wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return


@needs_mounts
def test_no_room_for_a_run(tmp_path: Path) -> None:
    """A run that cannot be made leaves no directory behind."""
    with tmpfs(tmp_path / "disk", "8k") as disk:
        fill(disk)
        with pytest.raises(StoreError, match="No space left"):
            RunStore.create(disk, manifest())
        assert [path.name for path in disk.iterdir()] == ["filler"]


@needs_mounts
def test_read_only_disk(tmp_path: Path) -> None:
    """A run on a read-only disk can be read, and writing to it says why it cannot."""
    with tmpfs(tmp_path / "disk", "1m") as disk:
        with RunStore.create(disk, manifest()) as store:
            store.write_trial(TrialOutcome(trial_id="t0001", status=TrialStatus.OK))
        proc.run(["mount", "-o", "remount,ro", str(disk)])
        again = RunStore.open(store.path)
        assert again.finished_trials() == {"t0001"}
        with pytest.raises(StoreError, match="Read-only file system") as caught:
            again.write_trial(TrialOutcome(trial_id="t0002", status=TrialStatus.OK))
        again.close()
        assert caught.value.code == "store-erofs"
        with pytest.raises(StoreError) as caught:
            RunStore.create(disk / "new", manifest())
        assert caught.value.hint is not None


@pytest.mark.skipif(os.geteuid() != 0, reason="root becomes another user here")
def test_a_directory_of_somebody_else(tmp_path: Path) -> None:
    """Without the right to write, the error names the place and offers another."""
    tmp_path.chmod(0o755)
    place = tmp_path / "mine"
    place.mkdir(mode=0o755)
    os.seteuid(65534)
    try:
        with pytest.raises(StoreError) as caught:
            RunStore.create(place / "runs", manifest())
    finally:
        os.seteuid(0)
    assert caught.value.code == "store-eacces"
    assert "--out" in (caught.value.hint or "")


WRITER = """
import sys
from pathlib import Path
from seatrial.model.trial import TrialOutcome, TrialStatus
from seatrial.store.journal import Event, EventKind
from seatrial.store.run_store import RunStore

with RunStore.open(Path(sys.argv[1])) as store:
    store.recover()
    finished = store.finished_trials()
    for spec in store.manifest.plan.trials:
        if spec.trial_id in finished:
            continue
        store.append(Event(kind=EventKind.TRIAL_STARTED, trial_id=spec.trial_id))
        print(spec.trial_id, flush=True)
        rows = [spec.index] * 20000
        samples = {"metric": ["a_ns"] * 20000, "value": [0.5] * 20000, "position": rows}
        store.write_trial(
            TrialOutcome(
                trial_id=spec.trial_id, status=TrialStatus.OK, tables={"samples": samples}
            )
        )
print("complete", flush=True)
"""


def test_killed_writers(tmp_path: Path) -> None:
    """However often a writer is killed, what is finished stays so, and the run completes."""
    with RunStore.create(tmp_path, manifest()) as store:
        path = store.path
    luck = random.Random(3)
    ids = {trial.trial_id for trial in store.manifest.plan.trials}
    finished: set[str] = set()
    for _ in range(5):
        is_complete = write_until_killed(path, luck.uniform(0, 0.02))
        reader = RunStore.open(path)
        now = reader.finished_trials()
        assert finished <= now
        for trial_id in now:
            table = reader.read_table(trial_id, "samples")
            assert set(table["position"]) == {int(trial_id[1:]) - 1}
        finished = now
        if is_complete:
            break
    else:
        assert write_until_killed(path, 60)
    with RunStore.open(path) as last:
        last.recover()
        assert last.finished_trials() == ids
        ends = [e.trial_id for e in last.journal().events if e.kind is EventKind.TRIAL_FINISHED]
        assert sorted(filter(None, ends)) == sorted(ids)
    assert not list((path / "trials").glob(".writing-*"))


def write_until_killed(path: Path, after_begin_s: float) -> bool:
    """Start a writer, let it begin a trial, kill it a little later; True when it had completed."""
    said = b""
    with proc.spawn([sys.executable, "-c", WRITER, str(path)], stdout="pipe") as writer:
        assert writer.stdout is not None
        said += os.read(writer.stdout.fileno(), 4096)
        writer.wait(timeout_s=after_begin_s)
        writer.kill()
        while select.select([writer.stdout], [], [], 0)[0]:
            chunk = os.read(writer.stdout.fileno(), 4096)
            if not chunk:
                break
            said += chunk
    return b"complete" in said
