"""The experiment file as it is written: key names without units, quantities as texts.

These dataclasses are what pydantic checks a file against; ``fields`` has the types of their keys.
pydantic goes on with the next key after a mistake, so that a user hears of every mistake at once.
``resolve`` turns the checked form into the program's own units.
"""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

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

from seatrial.config.fields import (
    BATCHES_MAX,
    BLOCKS_MAX,
    DD_COUNT_MAX,
    DEPTH_MAX,
    FUNCTION_LIMIT_MAX,
    OUTSTANDING_MAX,
    POINTS_MAX,
    PROCESSORS_MAX,
    READINGS_MAX,
    REPEATS_MAX,
    ROUNDS_MAX,
    SEED_MAX,
    STRICT,
    AgentCount,
    Axis,
    BlockSize,
    ConnectionCount,
    DriverNames,
    Duration,
    DurationOrZero,
    EngineText,
    FileSize,
    FleetCount,
    MemoryLimit,
    MemorySize,
    Option,
    Probe,
    Rate,
    SandboxCount,
    SandboxCountOrZero,
    Share,
    Size,
    ThreadCount,
    WorkerCount,
    load_steps,
    one_of,
    run_name,
    unique,
)
from seatrial.model.experiment import (
    AVAILABLE,
    FIO_JOBS,
    INSIDE_PROBES,
    OWN_BACKGROUND,
    CacheState,
    DensityBound,
    DensitySettings,
    Experiment,
    FioVariant,
    FleetSettings,
    InsideSettings,
    InsideTest,
    Layout,
    LoadProtocol,
    LoadSettings,
    MachineSize,
    NetworkMode,
    Operation,
    RpcMode,
    RpcSettings,
    StartSettings,
)
from seatrial.units import KIB, MIB, NS_PER_MS, NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenNetwork:
    """``[network]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    mode: Annotated[StrictStr, AfterValidator(one_of(tuple(NetworkMode)))] = NetworkMode.NONE


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenStart:
    """``[start]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    concurrency: Axis[SandboxCount] = field(default_factory=lambda: [1])
    rounds: Annotated[StrictInt, Field(ge=1, le=ROUNDS_MAX)] = 10
    deadline: Duration = 30 * NS_PER_S
    cache: Axis[Annotated[StrictStr, AfterValidator(one_of(tuple(CacheState)))]] = field(
        default_factory=lambda: [CacheState.WARM.value]
    )
    control_window: DurationOrZero = 200 * NS_PER_MS
    background_count: Axis[SandboxCountOrZero] = field(default_factory=lambda: [0])
    background: StrictStr = OWN_BACKGROUND
    background_load: Share = 0.0

    def resolve(self) -> StartSettings:
        """Give the settings in the program's units."""
        return StartSettings(
            concurrency=tuple(self.concurrency),
            rounds=self.rounds,
            deadline_ns=self.deadline,
            caches=tuple(CacheState(cache) for cache in self.cache),
            control_window_ns=self.control_window,
            background_counts=tuple(self.background_count),
            background=self.background,
            background_load_ratio=self.background_load,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenDensity:
    """``[density]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    count: Axis[SandboxCount] = field(default_factory=lambda: [1, 4])
    memory: Axis[MemoryLimit] = field(default_factory=lambda: [None])
    settle_timeout: Duration = 10 * NS_PER_S
    readings: Annotated[StrictInt, Field(ge=1, le=READINGS_MAX)] = 3
    idle_window: Duration = NS_PER_S
    largest: StrictBool = False
    largest_count: SandboxCount = 500
    memory_reserve: MemorySize = 512 * MIB
    ready_limit: Duration = 10 * NS_PER_S

    def resolve(self) -> DensitySettings:
        """Give the settings in the program's units."""
        return DensitySettings(
            count=tuple(self.count),
            settle_timeout_ns=self.settle_timeout,
            memory_bytes=tuple(self.memory),
            readings=self.readings,
            idle_window_ns=self.idle_window,
            bound=DensityBound(
                count=self.largest_count,
                memory_reserve_bytes=self.memory_reserve,
                ready_ns=self.ready_limit,
            )
            if self.largest
            else None,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenLoad:
    """``[load]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    connections: Axis[ConnectionCount] = field(default_factory=lambda: [1])
    rates: Annotated[list[Rate], Field(max_length=POINTS_MAX), AfterValidator(unique)] = field(
        default_factory=list
    )
    duration: Duration = 2 * NS_PER_S
    warm_up: DurationOrZero = 500 * NS_PER_MS
    drain: DurationOrZero = NS_PER_S
    operation: Annotated[StrictStr, AfterValidator(one_of(tuple(Operation)))] = Operation.EMPTY
    payload: Size = 0
    demand: EngineText = "none"
    workers: WorkerCount = 1
    threads: ThreadCount = 1
    depth: Annotated[StrictInt, Field(ge=1, le=DEPTH_MAX)] = 1
    request_timeout: Duration = 5 * NS_PER_S
    protocol: Annotated[StrictStr, AfterValidator(one_of(tuple(LoadProtocol)))] = LoadProtocol.RPC
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

    layouts: Axis[Annotated[StrictStr, AfterValidator(one_of(tuple(Layout)))]] = field(
        default_factory=lambda: list(Layout)
    )
    counts: Axis[FleetCount] = field(default_factory=lambda: [1, 2])
    operation: Annotated[StrictStr, AfterValidator(one_of(tuple(Operation)))] = Operation.SPIN
    demands: Axis[EngineText] = field(default_factory=lambda: ["constant:100us"])
    rates: Annotated[Axis[Rate], BeforeValidator(load_steps)] = field(
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

    modes: Axis[Annotated[StrictStr, AfterValidator(one_of(tuple(RpcMode)))]] = field(
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
    tests: Axis[Annotated[StrictStr, AfterValidator(one_of(tuple(InsideTest)))]] = field(
        default_factory=lambda: [InsideTest.PROBES.value]
    )
    repeats: Annotated[StrictInt, Field(ge=1, le=REPEATS_MAX)] = 5
    deadline: Duration = 120 * NS_PER_S
    dd_block: BlockSize = 256
    dd_count: Annotated[StrictInt, Field(ge=1, le=DD_COUNT_MAX)] = 1 << 20
    fio_variants: Axis[Annotated[StrictStr, AfterValidator(one_of(tuple(FioVariant)))]] = field(
        default_factory=lambda: [variant.value for variant in FioVariant]
    )
    fio_jobs: Axis[Annotated[StrictStr, AfterValidator(one_of(FIO_JOBS))]] = field(
        default_factory=lambda: list(FIO_JOBS)
    )
    fio_size: FileSize = 256 * MIB
    fio_block: BlockSize = 16 * KIB
    fio_threads: ThreadCount = 8
    fio_duration: Duration = 5 * NS_PER_S
    network_duration: Duration = 2 * NS_PER_S
    network_block: BlockSize = 8 * KIB
    download: FileSize = 64 * MIB
    function_limit: Annotated[StrictInt, Field(ge=2, le=FUNCTION_LIMIT_MAX)] = 200_000

    def resolve(self) -> InsideSettings:
        """Give the settings in the program's units."""
        return InsideSettings(
            probes=tuple(self.probes),
            batches=self.batches,
            tests=tuple(InsideTest(test) for test in self.tests),
            repeats=self.repeats,
            deadline_ns=self.deadline,
            dd_block_bytes=self.dd_block,
            dd_count=self.dd_count,
            fio_variants=tuple(FioVariant(variant) for variant in self.fio_variants),
            fio_jobs=tuple(self.fio_jobs),
            fio_size_bytes=self.fio_size,
            fio_block_bytes=self.fio_block,
            fio_threads=self.fio_threads,
            fio_duration_ns=self.fio_duration,
            network_duration_ns=self.network_duration,
            network_block_bytes=self.network_block,
            download_bytes=self.download,
            function_limit=self.function_limit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSizedFor:
    """``[sized_for]``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    processors: Annotated[StrictInt, Field(ge=1, le=PROCESSORS_MAX)]
    memory: MemorySize

    def resolve(self) -> MachineSize:
        """Give the machine in the program's units."""
        return MachineSize(processors_count=self.processors, memory_bytes=self.memory)


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenExperiment:
    """The whole file."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    name: Annotated[StrictStr, AfterValidator(run_name)]
    seed: Annotated[StrictInt, Field(ge=0, le=SEED_MAX)] = 1
    blocks: Annotated[StrictInt, Field(ge=1, le=BLOCKS_MAX)] = 3
    baseline: StrictStr = "process"
    drivers: DriverNames = field(default_factory=lambda: [AVAILABLE])
    confidence: Annotated[StrictFloat, Field(gt=0, lt=1)] = 0.95
    sized_for: WrittenSizedFor | None = None
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
            sized_for=None if self.sized_for is None else self.sized_for.resolve(),
        )
