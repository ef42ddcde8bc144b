"""What the user asked for, with every quantity in the program's own units.

An ``Experiment`` is checked by itself (``seatrial.config.load``) but not yet expanded into trials;
a ``Plan`` is. It says nothing about the machine: whether a driver works here is found out later.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from seatrial.model.scalar import Scalar

# Stands in ``Experiment.drivers`` for "every driver whose probe works on this machine".
AVAILABLE: Final = "available"

# The probes that the guest has for the bench `inside`, in the order in which they run.
INSIDE_PROBES: Final = (
    "syscall",
    "page-fault",
    "file-write",
    "file-read",
    "fork",
    "fork-exec",
    "memory-copy",
)

# The jobs of fio, by its own words, in the order in which tables list them.
FIO_JOBS: Final = ("read", "write", "randread", "randwrite", "randrw")

# The benches, in the order in which tables and reports list them.
BENCHES: Final = ("start", "density", "load", "fleet", "rpc", "inside")

# Experiments of other tools, whose results can be imported and not be run.
IMPORTED_BENCHES: Final = ("rund-time", "rund-density", "rund-mem")


class NetworkMode(StrEnum):
    """How a sandbox is reached from the host."""

    NONE = "none"
    HOST = "host"
    VETH = "veth"


class Operation(StrEnum):
    """What a request of the rpc protocol asks the server to do."""

    EMPTY = "empty"
    CHECKSUM = "checksum"
    SPIN = "spin"
    SPIN_WALL = "spin_wall"
    SLEEP = "sleep"
    TOUCH = "touch"


class Layout(StrEnum):
    """How the servers of a fleet are spread over sandboxes."""

    SANDBOXES = "sandboxes"
    SERVERS = "servers"


class RpcMode(StrEnum):
    """What the clients of the bench ``rpc`` ask for."""

    EMPTY = "empty"
    CHECKSUM = "checksum"


class InsideTest(StrEnum):
    """What the bench ``inside`` can do in a sandbox; each but PROBES is a point of its own."""

    PROBES = "probes"
    HELLO = "hello"
    MEMORY = "memory"
    DD = "dd"
    FIO = "fio"
    NETWORK = "network"
    FUNCTIONS = "functions"


class FioVariant(StrEnum):
    """How the jobs of fio are run; each is a point of its own."""

    # As in the experiment that is repeated: all threads over one file, by size, direct.
    SEED = "seed"
    # By time, each thread in a part of its own, past the caches.
    DIRECT = "direct"
    # The same through the caches.
    CACHED = "cached"


class LoadProtocol(StrEnum):
    """What the guest's server speaks in the bench ``load``."""

    RPC = "rpc"
    ECHO = "echo"
    HTTP = "http"
    GRPC = "grpc"


# Patterns of the rate that say all rates themselves.
PATTERNS_WITH_RATES: Final = frozenset({"step", "ramp", "square"})


class CacheState(StrEnum):
    """What the page cache holds of a runtime's files when its starts are released."""

    WARM = "warm"
    COLD = "cold"


# Stands in ``StartSettings.background`` for "the driver that is measured".
OWN_BACKGROUND: Final = "own"


@dataclass(frozen=True, slots=True, kw_only=True)
class StartSettings:
    """Start sandboxes: ``rounds`` batches a trial, each of ``concurrency`` starts at once."""

    concurrency: tuple[int, ...]
    rounds: int
    deadline_ns: int
    caches: tuple[CacheState, ...] = (CacheState.WARM,)
    # An empty window before the first round: what goes on without any start; 0 leaves it out.
    control_window_ns: int = 0
    # Sandboxes that live beside the measured ones: how many, of which driver, and what share of
    # one processor each of them keeps busy.
    background_counts: tuple[int, ...] = (0,)
    background: str = OWN_BACKGROUND
    background_load_ratio: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DensityBound:
    """When "as many sandboxes as fit" is reached: whichever comes first."""

    count: int
    # MemAvailable of the host must stay above it.
    memory_reserve_bytes: int
    # A sandbox that takes longer to get ready does not count as fitting.
    ready_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DensitySettings:
    """Keep ``count`` idle sandboxes alive and read what memory they cost."""

    count: tuple[int, ...]
    settle_timeout_ns: int
    # Limits of each sandbox, a microVM's guest memory; None: no limit.
    memory_bytes: tuple[int | None, ...] = (None,)
    # Readings once settled; the median counts.
    readings: int = 1
    idle_window_ns: int = 500_000_000
    # None: the largest count is not looked for.
    bound: DensityBound | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSettings:
    """Offer load to a service inside: closed loop per ``connections``, open loop per rate."""

    connections: tuple[int, ...]
    rates_rps: tuple[float, ...]
    duration_ns: int
    warm_up_ns: int
    drain_ns: int
    operation: Operation
    payload_bytes: int
    # Service demand of a request as the engine reads it: "none", "constant:100us" or
    # "exponential:1ms".
    demand: str
    workers: int
    threads: int
    depth: int
    request_timeout_ns: int
    protocol: LoadProtocol = LoadProtocol.RPC
    # Texts as the engine reads them: law of the gaps, course of the rate, pause of a closed loop.
    arrival: str = "poisson"
    pattern: str = "fixed"
    think: str = "none"
    # How the engine waits; None leaves it to the engine.
    wait: str | None = None
    timestamps: str = "user"
    # Requests under way on all connections together; None is as many as there are places.
    outstanding_max: int | None = None
    cool_down_ns: int = 0
    # Payload of a reply where the operation has one; None is the server's default.
    reply_bytes: int | None = None

    @property
    def has_own_rates(self) -> bool:
        """Whether arrivals need no rate: the pattern has some, or a trace is replayed as it is."""
        is_recorded = self.arrival.startswith("trace:") and not self.rates_rps
        return self.pattern.partition(":")[0] in PATTERNS_WITH_RATES or is_recorded


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Offer load to ``count`` servers at once, in as many sandboxes or in one."""

    layouts: tuple[Layout, ...]
    counts: tuple[int, ...]
    operation: Operation
    # Service demands, each as the engine reads it.
    demands: tuple[str, ...]
    rates_rps: tuple[float, ...]
    payload_bytes: int
    # Of all load agents together, spread evenly over all servers.
    connections: int
    threads: int
    load_agents: int
    latency_agents: int
    # Of all latency agents together, on top of the rate that is swept.
    latency_rate_rps: float
    duration_ns: int
    warm_up_ns: int
    drain_ns: int
    request_timeout_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcSettings:
    """Keep ``clients`` processes of ``threads`` threads calling one server as fast as it goes."""

    modes: tuple[RpcMode, ...]
    # Payload of each reply in mode checksum.
    payload_bytes: int
    threads: tuple[int, ...]
    clients: tuple[int, ...]
    workers: int
    warm_up_ns: int
    client_duration_ns: int
    server_duration_ns: int
    interval_ns: int
    request_timeout_ns: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InsideSettings:
    """Work inside of a sandbox: the guest's own small probes, and tools of the host.

    ``batches`` is of each probe; every other test is done once as first touch and ``repeats``
    times after that.
    """

    probes: tuple[str, ...]
    batches: int
    tests: tuple[InsideTest, ...] = (InsideTest.PROBES,)
    repeats: int = 5
    deadline_ns: int = 120_000_000_000
    dd_block_bytes: int = 256
    dd_count: int = 1 << 20
    fio_variants: tuple[FioVariant, ...] = (FioVariant.SEED,)
    fio_jobs: tuple[str, ...] = FIO_JOBS
    fio_size_bytes: int = 256 << 20
    fio_block_bytes: int = 16 << 10
    fio_threads: int = 8
    # The longest that a job by size may take, and the length of one by time.
    fio_duration_ns: int = 60_000_000_000
    network_duration_ns: int = 2_000_000_000
    network_block_bytes: int = 8 << 10
    download_bytes: int = 64 << 20
    # Primes below this number are counted by the functions.
    function_limit: int = 200_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSize:
    """What the counts of an experiment are meant for."""

    processors_count: int
    memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """How an experiment was made smaller or larger than its file says."""

    factor: float
    # Each a setting with its old and its new values, in words.
    changes: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """One experiment file, checked. A bench that is None was not asked for."""

    name: str
    seed: int
    blocks: int
    baseline: str
    # Either names of drivers, or (AVAILABLE,), which the caller resolves before expanding.
    drivers: tuple[str, ...]
    confidence: float
    network: NetworkMode = NetworkMode.NONE
    start: StartSettings | None = None
    density: DensitySettings | None = None
    load: LoadSettings | None = None
    fleet: FleetSettings | None = None
    rpc: RpcSettings | None = None
    inside: InsideSettings | None = None
    # Options by driver, each a value by its name.
    driver_options: Mapping[str, Mapping[str, Scalar]] = field(default_factory=dict)
    sized_for: MachineSize | None = None
    # None: everything is as the file says.
    scaling: Scaling | None = None
    # Those of ``IMPORTED_BENCHES`` that an imported run has; a file cannot ask for them.
    imported: tuple[str, ...] = ()

    @property
    def benches(self) -> tuple[str, ...]:
        """The names of the benches that were asked for, in the order of ``BENCHES``."""
        asked = tuple(name for name in BENCHES if getattr(self, name) is not None)
        return (*asked, *self.imported)

    @property
    def wants_available_drivers(self) -> bool:
        """Whether the drivers are still to be found out by probing the machine."""
        return self.drivers == (AVAILABLE,)
