"""What a load test is asked to do: one load, how sure it has to be, and what it has to prove."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from seatrial.errors import ConfigError
from seatrial.loadgen import REQUESTS_MAX, LoadRequest
from seatrial.loadtest.target import LoadTarget
from seatrial.units import NS_PER_S

if TYPE_CHECKING:
    from collections.abc import Sequence

#: A load of a stated number of requests still ends after so long.
COUNT_DURATION_NS: Final = 3_600 * NS_PER_S
#: Law of the gaps of an open loop that names none.
ARRIVAL: Final = "poisson"
LATENCY_RATE_RPS: Final = 1_000.0
#: How long --ci may go on unless it is told.
BUDGET_NS: Final = 300 * NS_PER_S
#: Patterns that bring their own rates, so that none is given beside them.
PATTERNS_WITH_RATES: Final = frozenset({"step", "ramp", "square"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LoadTestSettings:
    """One load test as it was asked for; durations in ns, rates per second of all agents."""

    target: LoadTarget
    # None: a closed loop.
    rate_rps: float | None = None
    arrival: str = ARRIVAL
    pattern: str = "fixed"
    think: str = "none"
    duration_ns: int = 10 * NS_PER_S
    requests_max: int | None = None
    warm_up_ns: int = NS_PER_S
    cool_down_ns: int = 0
    drain_ns: int = NS_PER_S
    request_timeout_ns: int = NS_PER_S
    connections: int = 16
    depth: int = 1
    outstanding_max: int | None = None
    threads: int = 1
    wait: str | None = None
    cpus: tuple[int, ...] = ()
    timestamps: str = "user"
    operation: str = "empty"
    payload_bytes: int = 0
    demand: str = "none"
    options: dict[str, str] = dataclasses.field(default_factory=dict)
    seed: int = 0
    records_max: int = 1_000_000
    # Several processes: symmetric agents, and agents that only measure beside them.
    agents_count: int = 0
    latency_agents_count: int = 0
    latency_rate_rps: float = LATENCY_RATE_RPS
    # How narrow intervals have to be, as texts such as "p99=2%"; and until when to try.
    precision: tuple[str, ...] = ()
    budget_ns: int = BUDGET_NS
    # What has to hold, as texts such as "p99<5ms".
    objectives: tuple[str, ...] = ()
    finds_capacity: bool = False
    is_strict: bool = False

    @property
    def has_own_rates(self) -> bool:
        """Whether the pattern says the rates itself."""
        return self.pattern.partition(":")[0] in PATTERNS_WITH_RATES

    @property
    def is_open(self) -> bool:
        """Whether requests are due by a schedule, whatever the replies do."""
        return self.rate_rps is not None or self.has_own_rates or self.arrival.startswith("trace:")

    def check(self) -> None:
        """Checks what only makes sense together; the engine checks single values.

        Raises:
            ConfigError: two settings contradict each other; every contradiction is named.
        """
        wrong = [text for is_wrong, text in self._contradictions() if is_wrong]
        if wrong:
            raise ConfigError("; ".join(wrong), hint="`seatrial load --help` explains each option")

    def _contradictions(self) -> Sequence[tuple[bool, str]]:
        has_think = self.think != "none"
        return (
            (self.is_open and has_think, "--think belongs to a closed loop, without --rate"),
            (
                not self.is_open and self.pattern != "fixed",
                f"--pattern {self.pattern} needs --rate",
            ),
            (
                not self.is_open and self.arrival != ARRIVAL,
                f"--arrival {self.arrival} needs --rate: it is the law of an open loop",
            ),
            (
                self.has_own_rates and self.rate_rps is not None,
                f"--pattern {self.pattern} says the rates itself; leave --rate out",
            ),
            (
                self.finds_capacity and not self.objectives,
                "--find-capacity needs --slo: what has to hold, such as 'p99<5ms'",
            ),
            (
                self.finds_capacity and self.pattern != "fixed",
                "--find-capacity looks for a constant rate; leave --pattern out",
            ),
            (
                self.finds_capacity and self.requests_max is not None,
                "--count cuts the trials of --find-capacity short; leave --count out",
            ),
            (
                self.requests_max is not None and bool(self.precision),
                "--count ends the load after its requests, --ci when it is sure; leave one out",
            ),
            (
                self.requests_max is not None and self.cool_down_ns > 0,
                "--count ends the load, so that nothing is left for --cool-down; leave one out",
            ),
            (
                self.latency_agents_count > 0 and self.agents_count == 0,
                "--latency-agents measure beside load agents; add --agents N",
            ),
            (
                not self.is_open and self.latency_agents_count > 0,
                "--latency-agents need --rate: beside a closed loop they would measure its queue",
            ),
        )

    def request(self, **changes: object) -> LoadRequest:
        """Returns the whole load as one process would offer it, with fields changed as given."""
        is_open = self.is_open
        base = LoadRequest(
            targets=self.target.targets,
            protocol=self.target.protocol,
            options={**self.target.options, **self.options},
            operation=self.operation,
            payload_bytes=self.payload_bytes,
            demand=self.demand,
            arrival=self.arrival if is_open else "closed",
            rate_rps=self.rate_rps,
            pattern=self.pattern,
            think=self.think,
            connections=self.connections,
            depth=self.depth,
            outstanding_max=self.outstanding_max,
            threads=self.threads,
            wait=self.wait,
            cpus=self.cpus,
            timestamps=self.timestamps,
            warm_up_ns=self.warm_up_ns,
            measure_ns=self.duration_ns,
            cool_down_ns=self.cool_down_ns,
            drain_ns=self.drain_ns,
            request_timeout_ns=self.request_timeout_ns,
            requests_max=self.requests_max or REQUESTS_MAX,
            records_max=self.records_max,
            seed=self.seed,
        )
        return dataclasses.replace(base, **changes)  # type: ignore[arg-type]  # names are LoadRequest's
