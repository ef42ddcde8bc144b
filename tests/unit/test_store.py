"""Run directories: what is written is read back, and a kill at any point costs one trial."""

from __future__ import annotations

import base64
import json
import os
from typing import TYPE_CHECKING

import polars as pl
import pytest

from seatrial.errors import StoreError
from seatrial.model.columns import TABLES
from seatrial.model.finding import Finding, Severity
from seatrial.model.trial import TrialOutcome, TrialStatus
from seatrial.store import layout
from seatrial.store.files import store_error
from seatrial.store.journal import Event, EventKind, read_journal
from seatrial.store.manifest import from_text, to_text
from seatrial.store.parquet import to_frame, write_table
from seatrial.store.run_store import RunStore, find_runs
from tests.support.requests import FULL, manifest, small_plan

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seatrial.model.trial import Columns

SAMPLES = {"metric": ["a_ns", "a_ns"], "value": [1.5, 2.5], "position": [0, 1]}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RunStore]:
    """A new run of four trials."""
    with RunStore.create(tmp_path / "runs", manifest()) as made:
        yield made


def outcome(trial_id: str = "t0001", status: TrialStatus = TrialStatus.OK) -> TrialOutcome:
    """A trial with something of everything."""
    return TrialOutcome(
        trial_id=trial_id,
        status=status,
        reason=None if status is TrialStatus.OK else "because",
        findings=(
            Finding(
                code="noisy-host",
                severity=Severity.WARNING,
                message="somebody else",
                evidence={"foreign_cpu_ratio": 0.25, "who": "ü"},
                trial_id=trial_id,
            ),
        ),
        tables={"samples": SAMPLES},
        facts={"sent_count": 12},
        started_at_ns=5,
        ended_at_ns=9,
    )


def reopened(store: RunStore) -> RunStore:
    """The same run as another process would see it after a kill."""
    store.close()
    return RunStore.open(store.path)


def test_a_trial_comes_back(store: RunStore) -> None:
    """Status, reason, findings, facts, instants and tables, exactly."""
    given = outcome(status=TrialStatus.FAILED)
    store.write_trial(given)
    found = reopened(store).outcomes()
    assert list(found) == ["t0001"]
    again = found["t0001"]
    assert (again.status, again.reason) == (TrialStatus.FAILED, "because")
    assert (again.findings, again.facts) == (given.findings, given.facts)
    assert (again.started_at_ns, again.ended_at_ns) == (5, 9)
    assert list(again.tables) == ["samples"]
    table = again.tables["samples"]
    assert isinstance(table, pl.DataFrame)
    assert table.to_dict(as_series=False) == SAMPLES
    with pytest.raises(KeyError):
        again.tables["starts"]


def test_the_manifest_comes_back(store: RunStore) -> None:
    """What is needed to resume is in the manifest, to the last bit."""
    assert reopened(store).manifest == manifest()


def test_the_manifest_of_everything(tmp_path: Path) -> None:
    """An experiment that uses every setting survives as well."""
    from seatrial.config.expand import expand

    whole = manifest(expand(FULL))
    assert from_text(to_text(whole), tmp_path) == whole


def test_outcomes_are_in_the_order_of_the_plan(store: RunStore) -> None:
    """However the directory lists them."""
    for trial_id in ("t0003", "t0001", "t0002"):
        store.write_trial(outcome(trial_id))
    assert list(store.outcomes()) == ["t0001", "t0002", "t0003"]
    assert store.finished_trials() == {"t0001", "t0002", "t0003"}
    assert store.table_names("t0002") == ("samples",)
    assert store.table_names("t0004") == ()
    assert store.read_table("t0001", "samples").height == 2


def test_a_finished_trial_is_not_overwritten(store: RunStore) -> None:
    """A failed trial is a result as well."""
    store.write_trial(outcome(status=TrialStatus.FAILED))
    with pytest.raises(StoreError, match="is finished") as caught:
        store.write_trial(outcome())
    assert caught.value.code == "trial-finished"


def test_an_interrupted_trial_is_run_again(store: RunStore) -> None:
    """It does not count, is replaced, and what it had measured is kept aside."""
    store.write_trial(outcome(status=TrialStatus.INTERRUPTED))
    assert store.finished_trials() == set()
    assert store.outcomes()["t0001"].status is TrialStatus.INTERRUPTED
    again = reopened(store)
    assert again.recover() == ()
    again.append(Event(kind=EventKind.TRIAL_STARTED, trial_id="t0001"))
    again.write_trial(outcome())
    assert again.finished_trials() == {"t0001"}
    assert (again.path / "superseded" / "t0001.1" / "outcome.json").is_file()
    again.close()


def test_a_trial_that_is_not_planned(store: RunStore) -> None:
    """Nothing gets into a run that its plan does not know."""
    with pytest.raises(StoreError, match="t9999 is not in the plan"):
        store.write_trial(outcome("t9999"))


def test_events_are_stamped_and_kept(store: RunStore) -> None:
    """An event has the time of day and comes back with all it said."""
    store.append(Event(kind=EventKind.RUN_STARTED, details={"pid": 7, "is_resumed": False}))
    store.write_trial(outcome())
    first, last = reopened(store).journal().events
    assert first.details == {"pid": 7, "is_resumed": False}
    assert first.at_unix_ns is not None
    assert (last.kind, last.trial_id) == (EventKind.TRIAL_FINISHED, "t0001")
    assert (last.status, last.findings) == (TrialStatus.OK, outcome().findings)


# --- kills


def test_killed_between_rename_and_journal(store: RunStore) -> None:
    """A whole trial that the journal does not know counts, and is entered on resuming."""
    store.write_trial(outcome())
    journal = store.path / layout.JOURNAL
    again = reopened(store)
    journal.write_bytes(b"")
    assert again.finished_trials() == {"t0001"}
    assert again.recover() == ("t0001",)
    assert again.recover() == ()
    (event,) = again.journal().events
    assert event.details == {"is_recovered": True}
    assert event.status is TrialStatus.OK
    again.close()


def test_killed_while_writing_a_trial(store: RunStore) -> None:
    """A half-written trial is never seen, and is gone after resuming."""
    half = store.path / "trials" / ".writing-t0001"
    half.mkdir()
    (half / "samples.parquet").write_bytes(b"PAR1")
    again = reopened(store)
    assert again.outcomes() == {}
    assert again.finished_trials() == set()
    again.recover()
    assert not half.exists()
    again.write_trial(outcome())
    again.close()


def test_killed_while_appending(store: RunStore) -> None:
    """A torn last line is passed over and reported; the next writer cuts it off."""
    store.write_trial(outcome())
    journal = store.path / layout.JOURNAL
    whole = journal.read_bytes()
    again = reopened(store)
    journal.write_bytes(whole + b'{"kind":"trial-star')
    assert again.journal().torn == '{"kind":"trial-star'
    assert again.finished_trials() == {"t0001"}
    again.append(Event(kind=EventKind.RUN_RESUMED))
    content = again.journal()
    assert content.torn is None
    assert [event.kind for event in content.events] == [
        EventKind.TRIAL_FINISHED,
        EventKind.JOURNAL_REPAIRED,
        EventKind.RUN_RESUMED,
    ]
    again.close()


@pytest.mark.parametrize("damage", ["table-cut", "table-gone", "outcome-cut", "outcome-gone"])
def test_what_is_not_whole_does_not_count(store: RunStore, damage: str) -> None:
    """A trial that a failing disk has damaged is run again."""
    store.write_trial(outcome())
    kind, how = damage.split("-")
    path = (
        store.path / "trials/t0001" / ("outcome.json" if kind == "outcome" else "samples.parquet")
    )
    if how == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 1 if kind == "table" else 20)
    again = reopened(store)
    assert again.finished_trials() == set()
    assert again.outcomes() == {}
    again.write_trial(outcome())
    assert again.finished_trials() == {"t0001"}
    again.close()


def test_disagreement_does_not_count(store: RunStore) -> None:
    """When the journal says another end than the directory, the trial is run again."""
    store.write_trial(outcome())
    failed = Event(kind=EventKind.TRIAL_FINISHED, trial_id="t0001", status=TrialStatus.FAILED)
    store.append(failed)
    again = reopened(store)
    assert again.finished_trials() == set()
    again.write_trial(outcome())
    assert again.finished_trials() == {"t0001"}
    again.close()


def test_damage_in_the_middle_of_the_journal(store: RunStore) -> None:
    """A line that is no event, and not the last one, is not passed over."""
    journal = store.path / layout.JOURNAL
    journal.write_text('{"kind":"run-started"}\nnonsense\n{"kind":"note"}\n')
    with pytest.raises(StoreError, match=r"journal\.jsonl:2: no valid JSON") as caught:
        read_journal(journal)
    assert caught.value.code == "journal-broken"
    with pytest.raises(StoreError):
        store.append(Event(kind=EventKind.NOTE))


# --- places that cannot be used


def test_one_writer_at_a_time(store: RunStore) -> None:
    """A second process that wants to write is refused; reading stays possible."""
    store.write_trial(outcome())
    other = RunStore.open(store.path)
    assert other.finished_trials() == {"t0001"}
    with pytest.raises(StoreError, match="another process is writing") as caught:
        other.append(Event(kind=EventKind.NOTE))
    assert caught.value.code == "run-locked"


def test_reading_writes_nothing(store: RunStore) -> None:
    """A run on a read-only disk, or of somebody else, can be reported on."""
    store.write_trial(outcome())
    store.close()
    before = {path: path.stat().st_mtime_ns for path in store.path.rglob("*")}
    reader = RunStore.open(store.path)
    assert reader.read_table("t0001", "samples").height == 2
    assert reader.journal().events
    assert {path: path.stat().st_mtime_ns for path in store.path.rglob("*")} == before


def test_a_run_is_made_once(store: RunStore) -> None:
    """An existing run is not written over, and nothing half-made stays."""
    with pytest.raises(StoreError, match="cannot create"):
        RunStore.create(store.path.parent, manifest())
    assert [path.name for path in store.path.parent.iterdir()] == [store.path.name]


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    """The error says what was being done, where, and what else could be done."""
    file = tmp_path / "runs"
    file.write_text("")
    with pytest.raises(StoreError, match=r"cannot create .*runs") as caught:
        RunStore.create(file, manifest())
    assert caught.value.code.startswith("store-")


def test_no_run_directory(tmp_path: Path) -> None:
    """Any other directory is refused with an example of a right one."""
    with pytest.raises(StoreError, match=r"there is no manifest\.json in it") as caught:
        RunStore.open(tmp_path)
    assert caught.value.code == "run-missing"


@pytest.mark.parametrize(
    ("text", "code", "part"),
    [
        ("{", "manifest-broken", "no valid JSON"),
        ("[]", "schema-version", "schema version None"),
        ('{"schema_version": 99}', "schema-version", "reads version 1"),
        ('{"schema_version": 1}', "store", "run_id"),
    ],
)
def test_bad_manifests(tmp_path: Path, text: str, code: str, part: str) -> None:
    """A manifest of another version or of no version is not guessed at."""
    (tmp_path / layout.MANIFEST).write_text(text)
    with pytest.raises(StoreError, match="manifest") as caught:
        RunStore.open(tmp_path)
    assert caught.value.code == code
    assert part in str(caught.value)


def test_run_ids(tmp_path: Path) -> None:
    """Ids are stamps in UTC that sort by time, and are told apart by random digits."""
    from datetime import UTC, datetime

    made = layout.new_run_id(datetime(2026, 9, 5, 12, 0, 1, tzinfo=UTC))
    assert layout.RUN_ID.match(made)
    assert made.startswith("20260905T120001Z-")
    with pytest.raises(StoreError, match="expected such as"):
        RunStore.create(tmp_path, manifest(run_id="../x"))


def test_runs_are_found(tmp_path: Path) -> None:
    """Only directories with a manifest are runs; a missing root has none."""
    (tmp_path / "other").mkdir()
    ids = ["20260905T120000Z-0001", "20260904T120000Z-0002"]
    for run_id in ids:
        RunStore.create(tmp_path, manifest(run_id=run_id)).close()
    assert [path.name for path in find_runs(tmp_path)] == sorted(ids)
    assert find_runs(tmp_path / "missing") == ()


def test_annotations_are_replaced_as_a_whole(store: RunStore) -> None:
    """A report beside the manifest can be made again."""
    assert store.annotate("report.html", "one").read_text() == "one"
    assert store.annotate("report.html", "two").read_text() == "two"
    assert not list(store.path.glob(".*"))


# --- tables


def breach(name: str, columns: Columns) -> str:
    """What is said about columns that break a contract."""
    with pytest.raises(StoreError) as caught:
        to_frame(TABLES[name], columns)
    assert caught.value.code == "table-contract"
    return str(caught.value)


@pytest.mark.parametrize(
    ("columns", "part"),
    [
        ({"metric": ["a"], "value": [1.0]}, "columns position missing"),
        ({**SAMPLES, "colour": [1, 2]}, "unknown columns colour"),
        ({**SAMPLES, "position": [0, None]}, "column position holds nulls"),
        ({**SAMPLES, "position": [0.0, 1.5]}, "breaks its contract"),
        ({**SAMPLES, "position": ["0", "1"]}, "breaks its contract"),
        ({**SAMPLES, "position": [0, 1 << 63]}, "breaks its contract"),
        ({**SAMPLES, "position": [0]}, "breaks its contract"),
        (pl.DataFrame({**SAMPLES, "position": [0.0, 1.5]}), "position is Float64 and not int64"),
        (pl.DataFrame({**SAMPLES, "metric": [1, 2]}), "metric is Int64 and not utf8"),
    ],
)
def test_contracts_are_kept(columns: Columns, part: str) -> None:
    """No column is lost, added, cut or made up on the way into a file."""
    assert part in breach("samples", columns)


def test_neither_columns_nor_stream() -> None:
    """A list of rows is no table."""
    assert "neither columns by name nor an Arrow stream" in breach("samples", [1])  # type: ignore[arg-type]  # what is tested


def test_nullable_columns_may_be_left_out() -> None:
    """What was not read is null, whatever the number of rows."""
    for rows in ([], [0], [0, 1]):
        columns = dict.fromkeys(("round", "released_at_ns", "starts_count"), rows)
        frame = to_frame(TABLES["batches"], {**columns, "is_floor": [False] * len(rows)})
        assert frame.height == len(rows)
        assert frame["launcher_user_ns"].null_count() == len(rows)
        assert frame.columns == list(TABLES["batches"].names)


def test_narrow_numbers_are_widened() -> None:
    """A stream with 32-bit positions fits a 64-bit column."""
    narrow = pl.DataFrame(SAMPLES, schema_overrides={"position": pl.Int32, "value": pl.Float32})
    frame = to_frame(TABLES["samples"], narrow)
    assert frame.schema["position"] == pl.Int64()
    assert frame["value"].to_list() == SAMPLES["value"]


def test_unknown_tables_are_refused(tmp_path: Path) -> None:
    """A table is declared before it is written."""
    with pytest.raises(StoreError, match="known tables: starts") as caught:
        write_table(tmp_path / "x.parquet", "stars", {})
    assert caught.value.code == "table-unknown"


@pytest.mark.parametrize("name", TABLES)
def test_files_say_what_they_hold(tmp_path: Path, name: str) -> None:
    """Unit and meaning of each column are in the file itself, as metadata of its fields."""
    table = TABLES[name]
    path = tmp_path / "x.parquet"
    empty: Columns = {column: [] for column in table.names}
    assert write_table(path, name, empty) == 0
    metadata = pl.read_parquet_metadata(path)
    about = json.loads(metadata["seatrial.table"])
    assert (about["table"], about["schema_version"]) == (name, 1)
    schema = base64.b64decode(metadata["ARROW:schema"])
    assert b"unit" in schema
    for column in table.columns:
        assert column.meaning.encode() in schema, column.name
        assert column.unit.encode() in schema, column.name
    assert pl.read_parquet(path).columns == list(table.names)


def test_broken_and_missing_tables(store: RunStore, tmp_path: Path) -> None:
    """Reading says what is wrong with a file."""
    from seatrial.store.parquet import read_table

    with pytest.raises(StoreError) as caught:
        store.read_table("t0001", "samples")
    assert caught.value.code == "table-missing"
    broken = tmp_path / "x.parquet"
    broken.write_bytes(b"PAR1 and nothing more")
    with pytest.raises(StoreError) as caught:
        read_table(broken)
    assert caught.value.code == "table-broken"


def test_a_broken_contract_leaves_nothing(store: RunStore) -> None:
    """A trial whose tables are refused is not stored in part."""
    bad = TrialOutcome(trial_id="t0001", status=TrialStatus.OK, tables={"samples": {"value": [1]}})
    with pytest.raises(StoreError):
        store.write_trial(bad)
    assert list((store.path / "trials").iterdir()) == []
    assert store.journal().events == ()
    store.write_trial(outcome())


def test_small_plan_is_small() -> None:
    """These tests rely on four trials."""
    assert [trial.trial_id for trial in small_plan().trials] == ["t0001", "t0002", "t0003", "t0004"]


def test_an_error_that_a_library_has_put_into_words_keeps_its_hint(tmp_path: Path) -> None:
    """The writer of tables gives the system's number in its text alone."""
    wordy = OSError("No space left on device (os error 28): t0001/samples.parquet")
    error = store_error("write", tmp_path, wordy)
    assert error.code == "store-enospc"
    assert "free some space" in (error.hint or "")
    assert store_error("write", tmp_path, OSError("no reason")).code == "store-eio"
