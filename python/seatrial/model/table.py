"""What a table of a run directory is made of: columns with an Arrow type, a unit and a meaning."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class ArrowType(StrEnum):
    """The types that a column may have, under their Arrow names."""

    BOOL = "bool"
    UINT8 = "uint8"
    UINT32 = "uint32"
    UINT64 = "uint64"
    INT32 = "int32"
    INT64 = "int64"
    FLOAT64 = "float64"
    UTF8 = "utf8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column. Null means unknown or not reached, and is allowed where ``is_nullable`` says."""

    name: str
    type: ArrowType
    # "ns", "bytes", "count", "ratio", "ns of CLOCK_MONOTONIC"..., or "" where there is none
    unit: str
    meaning: str
    is_nullable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One kind of table."""

    name: str
    meaning: str
    columns: tuple[Column, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of its columns, in their order."""
        return tuple(column.name for column in self.columns)


# An instant on the host's monotonic clock: the one time line of a run.
INSTANT: Final = "ns of the host's CLOCK_MONOTONIC"
# An instant on the sandbox's own monotonic clock, of which only differences may be used.
GUEST_INSTANT: Final = "ns of the guest's CLOCK_MONOTONIC"


def whole(name: str, unit: str, meaning: str, *, type: ArrowType = ArrowType.INT64) -> Column:  # noqa: A002 - the field's name
    """Give a column without nulls."""
    return Column(name=name, type=type, unit=unit, meaning=meaning)


def maybe(name: str, unit: str, meaning: str, *, type: ArrowType = ArrowType.INT64) -> Column:  # noqa: A002 - the field's name
    """Give a column in which null means unknown or not reached."""
    return Column(name=name, type=type, unit=unit, meaning=meaning, is_nullable=True)
