"""Imported logs as flat rows, for Parquet and for other programs."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import polars as pl

from seatrial.errors import StoreError

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.importers.lancet import LancetLog
    from seatrial.importers.mitosis import MitosisLog


def lancet_rows(log: LancetLog) -> pl.DataFrame:
    """Returns one row a measurement and percentile; a block without latencies keeps one row."""
    rows: list[dict[str, object]] = []
    for number, block in enumerate(log.blocks):
        own = dataclasses.asdict(block)
        own.pop("quantiles")
        quantiles = [dataclasses.asdict(quantile) for quantile in block.quantiles] or [{}]
        rows += [{"measurement": number, **own, **quantile} for quantile in quantiles]
    schema = {
        "measurement": pl.UInt32,
        "line_number": pl.UInt32,
        "planned_s": pl.Float64,
        "request_count": pl.UInt64,
        "achieved_rps": pl.Float64,
        "received_bytes_per_s": pl.Float64,
        "sent_bytes_per_s": pl.Float64,
        "is_arrival_right": pl.Boolean,
        "mean_ns": pl.Float64,
        "percentile": pl.Float64,
        "point_ns": pl.Float64,
        "low_ns": pl.Float64,
        "high_ns": pl.Float64,
    }
    return pl.DataFrame(rows, schema=schema)


def mitosis_rows(log: MitosisLog) -> pl.DataFrame:
    """Returns one row a source and interval, in the order of the log."""
    schema = {
        "source": pl.String,
        "index": pl.UInt32,
        "length_ns": pl.Int64,
        "rate_per_s": pl.Float64,
        "latency_ns": pl.Float64,
        "line_number": pl.UInt32,
    }
    return pl.DataFrame([dataclasses.asdict(row) for row in log.intervals], schema=schema)


def write_parquet(frame: pl.DataFrame, path: Path) -> None:
    """Writes the rows, wholly or not at all.

    Raises:
        StoreError: the file exists, or cannot be written.
    """
    if path.exists():
        raise StoreError(f"{path} exists", hint="choose another name", code="store-exists")
    part = path.with_name(f".{path.name}.part")
    try:
        frame.write_parquet(part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        message = f"cannot write {path}: {error.strerror or error}"
        raise StoreError(message, hint="choose a place that you may write to") from error
