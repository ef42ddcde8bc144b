"""Fields of an experiment file: how a text becomes a quantity, and what is refused, in words.

A validator raises ``ValueError`` with a sentence of the form "got X; expected Y".
"""

import math
import re
from collections.abc import Callable
from typing import Annotated, Final, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
)

from seatrial.config.problems import did_you_mean
from seatrial.errors import UnitError
from seatrial.model.experiment import AVAILABLE, INSIDE_PROBES
from seatrial.units import (
    DURATION_EXPECTED,
    MIB,
    NS_PER_H,
    RATE_EXPECTED,
    SIZE_EXPECTED,
    format_bytes,
    format_duration,
    format_rate,
    parse_duration_ns,
    parse_rate_rps,
    parse_size_bytes,
)

# Bounds are there to catch slips of the pen, with room above anything sensible on one host.
BLOCKS_MAX: Final = 1_000
SANDBOXES_MAX: Final = 10_000
ROUNDS_MAX: Final = 100_000
READINGS_MAX: Final = 100
PROCESSORS_MAX: Final = 4_096
# No guest fits into less, and no host that this runs on has more.
MEMORY_BYTES_MIN: Final = 4 * MIB
MEMORY_BYTES_MAX: Final = 1 << 40
POINTS_MAX: Final = 100
RATE_RPS_MAX: Final = 10_000_000.0
# The load engine's own bounds.
CONNECTIONS_MAX: Final = 10_000
THREADS_MAX: Final = 64
DEPTH_MAX: Final = 1_024
OUTSTANDING_MAX: Final = CONNECTIONS_MAX * DEPTH_MAX
TEXT_MAX: Final = 500
# The guest's own bounds.
WORKERS_MAX: Final = 64
# The load engine's bound on targets is far higher; a host has no room for so many agents.
FLEET_MAX: Final = 1_000
AGENTS_MAX: Final = 64
BATCHES_MAX: Final = 10_000
REPEATS_MAX: Final = 1_000
FUNCTION_LIMIT_MAX: Final = 100_000_000
# Files and blocks of the tools that the bench `inside` runs.
FILE_BYTES_MAX: Final = 4 << 30
BLOCK_BYTES_MAX: Final = 16 * MIB
DD_COUNT_MAX: Final = 1 << 24
# The wire protocol's own bound on a payload.
PAYLOAD_BYTES_MAX: Final = MIB
# Seeds go through the core as unsigned 64-bit and through Parquet as signed integers.
SEED_MAX: Final = (1 << 63) - 1
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

STEPS_EXPECTED: Final = (
    'a list of rates, or load steps such as { from = "1k/s", to = "5k/s", by = "1k/s" }'
)
EPSILON: Final = 1e-9
#: Of memory, where a list of limits may hold the absence of one.
UNLIMITED: Final = "none"

STRICT: Final = ConfigDict(extra="forbid")

T = TypeVar("T")


def _duration(*, at_least_ns: int) -> BeforeValidator:
    def check(value: object) -> int:
        if not isinstance(value, str):
            raise UnitError(f"got {value!r}; expected {DURATION_EXPECTED}")
        duration_ns = parse_duration_ns(value)
        if not at_least_ns <= duration_ns <= NS_PER_H:
            low = "more than 0" if at_least_ns else "0ns"
            raise UnitError(f'got "{value}"; expected {low} up to {format_duration(NS_PER_H)}')
        return duration_ns

    return BeforeValidator(check)


def _size(value: object) -> int:
    if not isinstance(value, str):
        raise UnitError(f"got {value!r}; expected {SIZE_EXPECTED}")
    size_bytes = parse_size_bytes(value)
    if size_bytes > PAYLOAD_BYTES_MAX:
        raise UnitError(f'got "{value}"; expected at most {format_bytes(PAYLOAD_BYTES_MAX)}')
    return size_bytes


def size_between(low_bytes: int, high_bytes: int) -> BeforeValidator:
    """Give the check of a size within bounds, both included."""

    def check(value: object) -> int:
        if not isinstance(value, str):
            raise UnitError(f"got {value!r}; expected {SIZE_EXPECTED}")
        size_bytes = parse_size_bytes(value)
        if not low_bytes <= size_bytes <= high_bytes:
            low, high = format_bytes(low_bytes), format_bytes(high_bytes)
            raise UnitError(f'got "{value}"; expected {low} to {high}')
        return size_bytes

    return BeforeValidator(check)


def _memory(value: object) -> int:
    if not isinstance(value, str):
        raise UnitError(f"got {value!r}; expected {SIZE_EXPECTED}")
    size_bytes = parse_size_bytes(value)
    if not MEMORY_BYTES_MIN <= size_bytes <= MEMORY_BYTES_MAX:
        low, high = format_bytes(MEMORY_BYTES_MIN), format_bytes(MEMORY_BYTES_MAX)
        raise UnitError(f'got "{value}"; expected {low} to {high}')
    return size_bytes


def _memory_limit(value: object) -> int | None:
    if value is None or value == UNLIMITED:
        return None
    try:
        return _memory(value)
    except UnitError as error:
        raise UnitError(f'{error}, or "{UNLIMITED}"') from error


def _rate(value: object) -> float:
    if not isinstance(value, str):
        raise UnitError(f"got {value!r}; expected {RATE_EXPECTED}")
    rate_rps = parse_rate_rps(value)
    if not 0 < rate_rps <= RATE_RPS_MAX:
        raise UnitError(f'got "{value}"; expected more than 0/s up to {format_rate(RATE_RPS_MAX)}')
    return rate_rps


def load_steps(value: object) -> object:
    """Spell out a table ``{ from, to, by }`` of load steps, its end included."""
    if not isinstance(value, dict):
        return value
    if set(value) != {"from", "to", "by"}:
        raise UnitError(f"got {value!r}; expected {STEPS_EXPECTED}")
    first, last, step = (_rate(value[name]) for name in ("from", "to", "by"))
    if last < first:
        raise UnitError(f"got {value!r}; expected a last step that is not below the first")
    # A hair of room, so that rounding never takes the last step away.
    count = math.floor((last - first) / step * (1 + EPSILON) + EPSILON) + 1
    if count > POINTS_MAX:
        raise UnitError(f"got {value!r}, {count} steps; expected at most {POINTS_MAX}")
    return [f"{first + number * step:.12g}/s" for number in range(count)]


def driver_names(value: object) -> object:
    """Take a list of names, or the word for all that work here."""
    if value == AVAILABLE:
        return [AVAILABLE]
    if not isinstance(value, list) or not value:
        raise ValueError(
            f'got {value!r}; expected a list of driver names with at least one, or "{AVAILABLE}"'
        )
    return value


def run_name(value: str) -> str:
    """Take a name that can be part of a path."""
    if NAME.match(value) is None:
        raise ValueError(
            f'got "{value}"; expected at most 64 letters, digits, dots, dashes or underscores'
        )
    return value


def unique(values: list[T]) -> list[T]:
    """Take a list that says nothing twice."""
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} twice; expected each value once")
    return values


def one_of(known: tuple[str, ...]) -> Callable[[str], str]:
    """Make the check of a word that must be among those known."""

    def check(value: str) -> str:
        if value not in known:
            guess = did_you_mean(value, known)
            raise ValueError(f'got "{value}"{guess}; expected one of {", ".join(known)}')
        return value

    return check


Duration = Annotated[int, _duration(at_least_ns=1)]
DurationOrZero = Annotated[int, _duration(at_least_ns=0)]
Size = Annotated[int, BeforeValidator(_size)]
FileSize = Annotated[int, size_between(MIB, FILE_BYTES_MAX)]
BlockSize = Annotated[int, size_between(1, BLOCK_BYTES_MAX)]
Rate = Annotated[float, BeforeValidator(_rate)]
# A text that only the load engine can read; whoever calls `load_experiment` hands its check over.
EngineText = Annotated[StrictStr, Field(min_length=1, max_length=TEXT_MAX)]
SandboxCount = Annotated[StrictInt, Field(ge=1, le=SANDBOXES_MAX)]
SandboxCountOrZero = Annotated[StrictInt, Field(ge=0, le=SANDBOXES_MAX)]
MemorySize = Annotated[int, BeforeValidator(_memory)]
MemoryLimit = Annotated[int | None, BeforeValidator(_memory_limit)]
Share = Annotated[float, Field(ge=0, le=1)]
ConnectionCount = Annotated[StrictInt, Field(ge=1, le=CONNECTIONS_MAX)]
ThreadCount = Annotated[StrictInt, Field(ge=1, le=THREADS_MAX)]
FleetCount = Annotated[StrictInt, Field(ge=1, le=FLEET_MAX)]
AgentCount = Annotated[StrictInt, Field(ge=1, le=AGENTS_MAX)]
WorkerCount = Annotated[StrictInt, Field(ge=1, le=WORKERS_MAX)]
Probe = Annotated[StrictStr, AfterValidator(one_of(INSIDE_PROBES))]
Option = StrictStr | StrictBool | StrictInt | StrictFloat
Axis = Annotated[list[T], Field(min_length=1, max_length=POINTS_MAX), AfterValidator(unique)]
DriverNames = Annotated[list[StrictStr], BeforeValidator(driver_names), AfterValidator(unique)]
