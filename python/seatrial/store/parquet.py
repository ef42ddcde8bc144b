"""Tables as Parquet files, checked against ``seatrial.model.columns``.

Each field carries its unit and meaning; the file says which table of which schema version it is.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import polars as pl

from seatrial.errors import StoreError
from seatrial.model.columns import SCHEMA_VERSION, TABLES
from seatrial.model.table import ArrowType, Column, Table
from seatrial.model.trial import ArrowStream, Columns
from seatrial.store.arrow_schema import DescribedSchema

#: More than what is left where a table did not fit.
MORE_BYTES: Final = 1 << 20

TYPES: Final[Mapping[ArrowType, pl.DataType]] = {
    ArrowType.BOOL: pl.Boolean(),
    ArrowType.UINT8: pl.UInt8(),
    ArrowType.UINT32: pl.UInt32(),
    ArrowType.UINT64: pl.UInt64(),
    ArrowType.INT32: pl.Int32(),
    ArrowType.INT64: pl.Int64(),
    ArrowType.FLOAT64: pl.Float64(),
    ArrowType.UTF8: pl.String(),
}


def contract_of(name: str) -> Table:
    """Give the contract of a table.

    Raises:
        StoreError: there is no table of that name.
    """
    table = TABLES.get(name)
    if table is None:
        raise StoreError(
            f'table "{name}" is not declared; known tables: {", ".join(TABLES)}',
            hint="declare it in seatrial.model.columns",
            code="table-unknown",
        )
    return table


def to_frame(table: Table, columns: Columns) -> pl.DataFrame:
    """Give the columns as a frame that obeys the contract, in its order and with its types.

    An Arrow stream is taken over without a copy. Nullable columns that are missing become null.

    Raises:
        StoreError: a column is missing, unknown, of another type, or null where it must not be.
    """
    frame = _frame(table, columns)
    unknown = sorted(set(frame.columns) - set(table.names))
    if unknown:
        raise _breach(table, f"unknown columns {', '.join(unknown)}")
    missing = [
        column.name
        for column in table.columns
        if not column.is_nullable and column.name not in frame.columns
    ]
    if missing:
        raise _breach(table, f"columns {', '.join(missing)} missing")
    wrong = [
        f"{column.name} is {frame.schema[column.name]} and not {column.type}"
        for column in table.columns
        if column.name in frame.columns
        and not _is_convertible(frame.schema[column.name], TYPES[column.type])
    ]
    if wrong:
        raise _breach(table, "; ".join(wrong))
    try:
        frame = frame.select(_as_declared(frame, column) for column in table.columns)
    except pl.exceptions.PolarsError as error:
        raise _breach(table, str(error)) from error
    for column in table.columns:
        if not column.is_nullable and frame[column.name].null_count() > 0:
            raise _breach(table, f"column {column.name} holds nulls and must not")
    return frame


def write_table(path: Path, name: str, columns: Columns) -> int:
    """Write a table to a new file and give its number of rows.

    Raises:
        StoreError: the columns break the contract.
        OSError: the file cannot be written.
    """
    table = contract_of(name)
    frame = to_frame(table, columns)
    schema = DescribedSchema(table.columns)
    about = {"table": table.name, "meaning": table.meaning, "schema_version": SCHEMA_VERSION}
    try:
        frame.write_parquet(
            path,
            compression="zstd",
            statistics=True,
            metadata={"seatrial.table": json.dumps(about)},
            arrow_schema=schema,
        )
    except pl.exceptions.PolarsError as error:
        _write_more(path)
        raise StoreError(f"cannot write table {name} to {path}: {error}") from error
    return frame.height


def _write_more(path: Path) -> None:
    """Find out whether the operating system is why a table could not be written.

    polars puts errors of its own in the place of those of the system: a full disk may be called
    an invalid file. Where there was no room before there is none for a little more.

    Raises:
        OSError: no more can be written to the file.
    """
    with path.open("ab") as file:
        file.write(bytes(MORE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def read_table(path: Path) -> pl.DataFrame:
    """Read a table back.

    Raises:
        StoreError: there is no such file, or it is no whole Parquet file.
    """
    try:
        return pl.read_parquet(path)
    except FileNotFoundError as error:
        raise StoreError(f"{path}: no such table", code="table-missing") from error
    except (OSError, pl.exceptions.PolarsError) as error:
        raise StoreError(f"{path}: not a readable table: {error}", code="table-broken") from error


def _frame(table: Table, columns: Columns) -> pl.DataFrame:
    try:
        if isinstance(columns, Mapping):
            types = {column.name: TYPES[column.type] for column in table.columns}
            known = {name: types[name] for name in columns if name in types}
            return pl.DataFrame(dict(columns), schema_overrides=known, strict=True)
        if isinstance(columns, ArrowStream):
            return pl.DataFrame(columns)
    except (pl.exceptions.PolarsError, TypeError, OverflowError, ValueError) as error:
        raise _breach(table, str(error)) from error
    raise _breach(table, f"{type(columns).__name__} is neither columns by name nor an Arrow stream")


def _as_declared(frame: pl.DataFrame, column: Column) -> pl.Expr:
    kind = TYPES[column.type]
    if column.name not in frame.columns:
        return pl.lit(None, dtype=kind).alias(column.name)
    # Strict: a value that does not fit its type is an error, never a null.
    return pl.col(column.name).cast(kind, strict=True)


def _is_convertible(found: pl.DataType, declared: pl.DataType) -> bool:
    """Whether a cast keeps every value it does not refuse: never text to number, or 1.5 to 1."""
    if found in {declared, pl.Null()}:
        return True
    if declared.is_integer():
        return found.is_integer()
    return declared.is_float() and found.is_numeric()


def _breach(table: Table, what: str) -> StoreError:
    return StoreError(
        f'table "{table.name}" breaks its contract: {what}',
        hint="seatrial.model.columns declares the columns of every table",
        code="table-contract",
    )
