"""Results in the formats of others: k6's NDJSON points, HDR histogram logs, Parquet."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import secrets
import shutil
from typing import TYPE_CHECKING, Final

from seatrial.errors import StoreError
from seatrial.loadgen import hdr_log
from seatrial.loadtest.result import read_result, result_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import polars as pl

    from seatrial.agents.outcome import LoadOutcome
    from seatrial.loadtest.perform import Performed
    from seatrial.loadtest.result import LoadTestResult

#: The file of a directory of `--out` that says everything.
RESULT: Final = "result.json"
PHASE_MEASURE: Final = 1
OUTCOME_OK: Final = 0
NS_PER_MS: Final = 1_000_000
NS_PER_S: Final = 1_000_000_000
#: {protocol: prefix of k6's own metric names}; other protocols get a name of their own.
K6_PREFIXES: Final = {"http": "http_req", "grpc": "grpc_req"}


def k6_lines(
    outcome: LoadOutcome, *, protocol: str, url: str, epoch_offset_ns: int
) -> Iterator[str]:
    """Yields the kept requests of the measure phase as k6 writes them with ``--out json``.

    ``<prefix>_duration`` counts from sending, as k6 does; ``response_duration``, which k6 does not
    have, counts from the instant the request was due. Milliseconds. If only a sample of requests
    was kept, a point stands for as many requests as its tag ``stride`` says.

    Args:
        outcome: What the load found out.
        protocol: Decides the prefix: http_req, grpc_req, or the protocol's own name.
        url: Tag of each point.
        epoch_offset_ns: What to add to CLOCK_MONOTONIC for the time since 1970.
    """
    prefix = K6_PREFIXES.get(protocol, f"{protocol}_req")
    trend, failed = f"{prefix}_duration", f"{prefix}_failed"
    yield _k6_metric(trend, "trend", "time")
    yield _k6_metric("response_duration", "trend", "time")
    yield _k6_metric(failed, "rate", "default")
    tags = {"url": url, "stride": str(outcome.records_stride)}
    for row in _measured(outcome).iter_rows(named=True):
        is_ok = row["outcome"] == OUTCOME_OK
        at_ns = row["done_at_ns"] or row["sent_at_ns"] or row["intended_at_ns"]
        at = _rfc3339(at_ns + epoch_offset_ns)
        if is_ok:
            yield _k6_point(trend, at, (row["done_at_ns"] - row["sent_at_ns"]) / NS_PER_MS, tags)
            response_ns = row["done_at_ns"] - row["intended_at_ns"]
            yield _k6_point("response_duration", at, response_ns / NS_PER_MS, tags)
        yield _k6_point(failed, at, 0.0 if is_ok else 1.0, tags)


def is_taken(path: Path) -> bool:
    """Whether anything has that name, be it a link that leads nowhere."""
    try:
        path.lstat()
    except OSError:
        return False
    return True


def check_place(path: Path, *, is_directory: bool) -> None:
    """Finds out whether a file or directory of that name could be written, by trying it.

    Raises:
        StoreError: it could not.
    """
    part = _part_of(path)
    try:
        if is_directory:
            part.mkdir()
            part.rmdir()
        else:
            part.touch(exist_ok=False)
            part.unlink()
    except OSError as error:
        raise _cannot(path, error) from error


def write_k6(path: Path, performed: Performed, protocol: str) -> None:
    """Writes the kept requests as k6 does; see `k6_lines`.

    Raises:
        StoreError: the file exists, or cannot be written.
    """
    lines = k6_lines(
        performed.found.measuring,
        protocol=protocol,
        url=performed.result.url,
        epoch_offset_ns=performed.epoch_offset_ns,
    )
    with _new_file(path) as part, part.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(f"{line}\n")


def write_requests(path: Path, performed: Performed) -> None:
    """Writes the kept requests as Parquet: instants in ns of CLOCK_MONOTONIC, and outcomes.

    Raises:
        StoreError: the file exists, or cannot be written.
    """
    with _new_file(path) as part:
        performed.found.measuring.records.write_parquet(part)


def write_hdr(path: Path, performed: Performed) -> None:
    """Writes response times in ns as an HDR histogram log 1.3: one line, of the measured time.

    It holds the values that the result's percentiles are of: correct replies to requests that were
    due in the measured time, whenever they came. Stretches of time would be by completion and have
    replies to the warm-up and to the cool-down among them.

    Raises:
        StoreError: the file exists, or cannot be written.
    """
    outcome = performed.found.measuring
    response = outcome.histograms["response"]
    whole = (outcome.measure_start_ns, outcome.measure_end_ns, response)
    text = hdr_log(
        [whole] if response.count else [],
        epoch_offset_ns=performed.epoch_offset_ns,
        comment=f"response times of {performed.result.url} in ns, by seatrial",
    )
    with _new_file(path) as part:
        part.write_text(text, encoding="utf-8")


def write_directory(path: Path, performed: Performed, *, pages: Mapping[str, str]) -> None:
    """Writes everything into a new directory: result.json, requests.parquet, response.hlog.

    Args:
        path: The directory, which must not be there yet.
        performed: What is kept.
        pages: Texts to write beside it, by the name of their file.

    Raises:
        StoreError: the directory exists, or cannot be written.
    """
    part = _part_of(path)
    try:
        part.mkdir()
    except OSError as error:
        raise _cannot(path, error) from error
    try:
        text = result_text(performed.result)
        (part / RESULT).write_text(f"{text}\n", encoding="utf-8")
        write_requests(part / "requests.parquet", performed)
        write_hdr(part / "response.hlog", performed)
        for name, page in pages.items():
            (part / name).write_text(page, encoding="utf-8")
        _check_free(path)
        part.rename(path)
    except OSError as error:
        raise _cannot(path, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def is_load_directory(path: Path) -> bool:
    """Whether `write_directory` made it, as far as its name for the result tells."""
    return (path / RESULT).is_file()


def read_directory(path: Path) -> LoadTestResult:
    """Returns the result that `write_directory` wrote.

    Raises:
        StoreError: it cannot be read, is damaged, or of a newer version.
    """
    file = path / RESULT
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise StoreError(
            f"cannot read {file}: {reason}", hint="the file was cut, damaged or is not yours"
        ) from error
    return read_result(text, where=str(file))


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Gives a name to write to, which becomes the wanted one once all is written."""
    part = _part_of(path)
    try:
        yield part
        _check_free(path)
        part.rename(path)
    except OSError as error:
        raise _cannot(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _part_of(path: Path) -> Path:
    """A name beside it that nobody else uses."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")


def _check_free(path: Path) -> None:
    if is_taken(path):
        message = f"cannot write {path}: it came into being meanwhile, and nothing is overwritten"
        raise StoreError(message, hint="choose another name", code="store-exists")


def _cannot(path: Path, error: OSError) -> StoreError:
    message = f"cannot write {path}: {error.strerror or error}"
    return StoreError(message, hint="choose a place that you may write to")


def _measured(outcome: LoadOutcome) -> pl.DataFrame:
    return outcome.records.filter(outcome.records["phase"] == PHASE_MEASURE)


def _k6_metric(name: str, kind: str, contains: str) -> str:
    data: dict[str, object] = {
        "name": name,
        "type": kind,
        "contains": contains,
        "thresholds": [],
        "submetrics": None,
    }
    return json.dumps({"type": "Metric", "data": data, "metric": name})


def _k6_point(name: str, at: str, value: float, tags: Mapping[str, str]) -> str:
    data = {"time": at, "value": value, "tags": tags}
    return json.dumps({"metric": name, "type": "Point", "data": data})


def _rfc3339(unix_ns: int) -> str:
    """An instant with all its nanoseconds, which datetime does not have."""
    seconds, nanos = divmod(unix_ns, NS_PER_S)
    whole = dt.datetime.fromtimestamp(seconds, tz=dt.UTC)
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{nanos:09d}Z"
