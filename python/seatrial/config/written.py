"""The experiment file as it is written: key names without units, quantities as texts.

These dataclasses are what pydantic checks a file against. A validator raises ``ValueError`` with a
sentence of the form "got X; expected Y", and pydantic goes on with the next key, so that a user
hears of every mistake at once. ``resolve`` turns the checked form into the program's own units.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Final, TypeVar

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
from seatrial.model.experiment import (
    AVAILABLE,
    INSIDE_PROBES,
    DensitySettings,
    Experiment,
    FleetSettings,
    InsideSettings,
    Layout,
    LoadProtocol,
    LoadSettings,
    NetworkMode,
    Operation,
    RpcMode,
    RpcSettings,
    StartSettings,
)
from seatrial.units import (
    DURATION_EXPECTED,
    MIB,
    NS_PER_H,
    NS_PER_MS,
    NS_PER_S,
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
# The wire protocol's own bound on a payload.
PAYLOAD_BYTES_MAX: Final = MIB
# Seeds go through the core as unsigned 64-bit and through Parquet as signed integers.
SEED_MAX: Final = (1 << 63) - 1
NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}\Z")

DEMAND_EXPECTED: Final = (
    '"none", or a law and its mean, such as "constant:100us" or "exponential:1ms"'
)
STEPS_EXPECTED: Final = (
    'a list of rates, or load steps such as { from = "1k/s", to = "5k/s", by = "1k/s" }'
)
EPSILON: Final = 1e-9
DEMAND_LAWS: Final = ("constant", "exponential")

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


def _rate(value: object) -> float:
    if not isinstance(value, str):
        raise UnitError(f"got {value!r}; expected {RATE_EXPECTED}")
    rate_rps = parse_rate_rps(value)
    if not 0 < rate_rps <= RATE_RPS_MAX:
        raise UnitError(f'got "{value}"; expected more than 0/s up to {format_rate(RATE_RPS_MAX)}')
    return rate_rps


def _rates(value: object) -> object:
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


def _demand(value: str) -> str:
    if value == "none":
        return value
    law, colon, mean = value.partition(":")
    if law not in DEMAND_LAWS or not colon:
        raise UnitError(f'got "{value}"; expected {DEMAND_EXPECTED}')
    if parse_duration_ns(mean) == 0:
        raise UnitError(f'got "{value}"; expected a mean of more than 0')
    return value


def _drivers(value: object) -> object:
    if value == AVAILABLE:
        return [AVAILABLE]
    if not isinstance(value, list) or not value:
        raise ValueError(
            f'got {value!r}; expected a list of driver names with at least one, or "{AVAILABLE}"'
        )
    return value


def _name(value: str) -> str:
    if NAME.match(value) is None:
        raise ValueError(
            f'got "{value}"; expected at most 64 letters, digits, dots, dashes or underscores'
        )
    return value


def _unique(values: list[T]) -> list[T]:
    repeated = sorted({str(value) for value in values if values.count(value) > 1})
    if repeated:
        raise ValueError(f"{', '.join(repeated)} twice; expected each value once")
    return values


def _one_of(known: tuple[str, ...]) -> Callable[[str], str]:
    def check(value: str) -> str:
        if value not in known:
            guess = did_you_mean(value, known)
            raise ValueError(f'got "{value}"{guess}; expected one of {", ".join(known)}')
        return value

    return check


Duration = Annotated[int, _duration(at_least_ns=1)]
DurationOrZero = Annotated[int, _duration(at_least_ns=0)]
Size = Annotated[int, BeforeValidator(_size)]
Rate = Annotated[float, BeforeValidator(_rate)]
Demand = Annotated[StrictStr, AfterValidator(_demand)]
# A text that only the load engine can read; whoever calls `load_experiment` hands its check over.
EngineText = Annotated[StrictStr, Field(min_length=1, max_length=TEXT_MAX)]
SandboxCount = Annotated[StrictInt, Field(ge=1, le=SANDBOXES_MAX)]
ConnectionCount = Annotated[StrictInt, Field(ge=1, le=CONNECTIONS_MAX)]
ThreadCount = Annotated[StrictInt, Field(ge=1, le=THREADS_MAX)]
FleetCount = Annotated[StrictInt, Field(ge=1, le=FLEET_MAX)]
AgentCount = Annotated[StrictInt, Field(ge=1, le=AGENTS_MAX)]
WorkerCount = Annotated[StrictInt, Field(ge=1, le=WORKERS_MAX)]
Probe = Annotated[StrictStr, AfterValidator(_one_of(INSIDE_PROBES))]
Option = StrictStr | StrictBool | StrictInt | StrictFloat
Axis = Annotated[list[T], Field(min_length=1, max_length=POINTS_MAX), AfterValidator(_unique)]


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenNetwork:
    """``[network]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    mode: Annotated[StrictStr, AfterValidator(_one_of(tuple(NetworkMode)))] = NetworkMode.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenStart:
    """``[start]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    concurrency: Axis[SandboxCount] = field(default_factory=lambda: [1])
    rounds: Annotated[StrictInt, Field(ge=1, le=ROUNDS_MAX)] = 10
    deadline: Duration = 30 * NS_PER_S

    def resolve(self) -> StartSettings:
        """Give the settings in the program's units."""
        return StartSettings(
            concurrency=tuple(self.concurrency), rounds=self.rounds, deadline_ns=self.deadline
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenDensity:
    """``[density]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    count: Axis[SandboxCount] = field(default_factory=lambda: [1, 4])
    settle_timeout: Duration = 10 * NS_PER_S

    def resolve(self) -> DensitySettings:
        """Give the settings in the program's units."""
        return DensitySettings(count=tuple(self.count), settle_timeout_ns=self.settle_timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLoad:
    """``[load]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    connections: Axis[ConnectionCount] = field(default_factory=lambda: [1])
    rates: Annotated[list[Rate], Field(max_length=POINTS_MAX), AfterValidator(_unique)] = field(
        default_factory=list
    )
    duration: Duration = 2 * NS_PER_S
    warm_up: DurationOrZero = 500 * NS_PER_MS
    drain: DurationOrZero = NS_PER_S
    operation: Annotated[StrictStr, AfterValidator(_one_of(tuple(Operation)))] = Operation.EMPTY
    payload: Size = 0
    demand: EngineText = "none"
    workers: WorkerCount = 1
    threads: ThreadCount = 1
    depth: Annotated[StrictInt, Field(ge=1, le=DEPTH_MAX)] = 1
    request_timeout: Duration = 5 * NS_PER_S
    protocol: Annotated[StrictStr, AfterValidator(_one_of(tuple(LoadProtocol)))] = LoadProtocol.RPC
    arrival: EngineText = "poisson"
    pattern: EngineText = "fixed"
    think: EngineText = "none"
    wait: EngineText | None = None
    timestamps: EngineText = "user"
    outstanding_max: Annotated[StrictInt, Field(ge=1, le=OUTSTANDING_MAX)] | None = None
    cool_down: DurationOrZero = 0
    reply_bytes: Size | None = None

    def resolve(self) -> LoadSettings:
        """Give the settings in the program's units."""
        return LoadSettings(
            connections=tuple(self.connections),
            rates_rps=tuple(self.rates),
            duration_ns=self.duration,
            warm_up_ns=self.warm_up,
            drain_ns=self.drain,
            operation=Operation(self.operation),
            payload_bytes=self.payload,
            demand=self.demand,
            workers=self.workers,
            threads=self.threads,
            depth=self.depth,
            request_timeout_ns=self.request_timeout,
            protocol=LoadProtocol(self.protocol),
            arrival=self.arrival,
            pattern=self.pattern,
            think=self.think,
            wait=self.wait,
            timestamps=self.timestamps,
            outstanding_max=self.outstanding_max,
            cool_down_ns=self.cool_down,
            reply_bytes=self.reply_bytes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFleet:
    """``[fleet]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    layouts: Axis[Annotated[StrictStr, AfterValidator(_one_of(tuple(Layout)))]] = field(
        default_factory=lambda: list(Layout)
    )
    counts: Axis[FleetCount] = field(default_factory=lambda: [1, 2])
    operation: Annotated[StrictStr, AfterValidator(_one_of(tuple(Operation)))] = Operation.SPIN
    demands: Axis[Demand] = field(default_factory=lambda: ["constant:100us"])
    rates: Annotated[Axis[Rate], BeforeValidator(_rates)] = field(
        default_factory=lambda: [500.0, 2000.0]
    )
    payload: Size = 0
    connections: ConnectionCount = 16
    threads: ThreadCount = 1
    load_agents: AgentCount = 1
    latency_agents: AgentCount = 1
    latency_rate: Rate = 200.0
    duration: Duration = 2 * NS_PER_S
    warm_up: DurationOrZero = 500 * NS_PER_MS
    drain: DurationOrZero = NS_PER_S
    request_timeout: Duration = 5 * NS_PER_S

    def resolve(self) -> FleetSettings:
        """Give the settings in the program's units."""
        return FleetSettings(
            layouts=tuple(Layout(layout) for layout in self.layouts),
            counts=tuple(self.counts),
            operation=Operation(self.operation),
            demands=tuple(self.demands),
            rates_rps=tuple(self.rates),
            payload_bytes=self.payload,
            connections=self.connections,
            threads=self.threads,
            load_agents=self.load_agents,
            latency_agents=self.latency_agents,
            latency_rate_rps=self.latency_rate,
            duration_ns=self.duration,
            warm_up_ns=self.warm_up,
            drain_ns=self.drain,
            request_timeout_ns=self.request_timeout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenRpc:
    """``[rpc]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    modes: Axis[Annotated[StrictStr, AfterValidator(_one_of(tuple(RpcMode)))]] = field(
        default_factory=lambda: list(RpcMode)
    )
    payload: Size = 2048
    threads: Axis[ThreadCount] = field(default_factory=lambda: [1])
    clients: Axis[AgentCount] = field(default_factory=lambda: [1, 2])
    workers: WorkerCount = 1
    warm_up: DurationOrZero = 500 * NS_PER_MS
    client_duration: Duration = 3 * NS_PER_S
    server_duration: Duration = 30 * NS_PER_S
    interval: Duration = NS_PER_S
    request_timeout: Duration = NS_PER_S

    def resolve(self) -> RpcSettings:
        """Give the settings in the program's units."""
        return RpcSettings(
            modes=tuple(RpcMode(mode) for mode in self.modes),
            payload_bytes=self.payload,
            threads=tuple(self.threads),
            clients=tuple(self.clients),
            workers=self.workers,
            warm_up_ns=self.warm_up,
            client_duration_ns=self.client_duration,
            server_duration_ns=self.server_duration,
            interval_ns=self.interval,
            request_timeout_ns=self.request_timeout,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenInside:
    """``[inside]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    probes: Axis[Probe] = field(default_factory=lambda: list(INSIDE_PROBES))
    batches: Annotated[StrictInt, Field(ge=1, le=BATCHES_MAX)] = 20

    def resolve(self) -> InsideSettings:
        """Give the settings in the program's units."""
        return InsideSettings(probes=tuple(self.probes), batches=self.batches)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenExperiment:
    """The whole file."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: Annotated[StrictStr, AfterValidator(_name)]
    seed: Annotated[StrictInt, Field(ge=0, le=SEED_MAX)] = 1
    blocks: Annotated[StrictInt, Field(ge=1, le=BLOCKS_MAX)] = 3
    baseline: StrictStr = "process"
    drivers: Annotated[list[StrictStr], BeforeValidator(_drivers), AfterValidator(_unique)] = field(
        default_factory=lambda: [AVAILABLE]
    )
    confidence: Annotated[StrictFloat, Field(gt=0, lt=1)] = 0.95
    network: WrittenNetwork = field(default_factory=WrittenNetwork)
    start: WrittenStart | None = None
    density: WrittenDensity | None = None
    load: WrittenLoad | None = None
    fleet: WrittenFleet | None = None
    rpc: WrittenRpc | None = None
    inside: WrittenInside | None = None
    driver: dict[str, dict[str, Option]] = field(default_factory=dict)

    def resolve(self) -> Experiment:
        """Give the experiment in the program's units."""
        return Experiment(
            name=self.name,
            seed=self.seed,
            blocks=self.blocks,
            baseline=self.baseline,
            drivers=tuple(self.drivers),
            confidence=self.confidence,
            network=NetworkMode(self.network.mode),
            start=None if self.start is None else self.start.resolve(),
            density=None if self.density is None else self.density.resolve(),
            load=None if self.load is None else self.load.resolve(),
            fleet=None if self.fleet is None else self.fleet.resolve(),
            rpc=None if self.rpc is None else self.rpc.resolve(),
            inside=None if self.inside is None else self.inside.resolve(),
            driver_options=self.driver,
        )
