"""How long, how often and where a benchmark measures; the same for both sides of a comparison."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from seatrial.units import NS_PER_S

ROUNDS = 6
SECONDS = 3.0
MEMORY_NS = 20 * NS_PER_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What every family of benchmarks is given.

    Six rounds are the fewest whose extremes are a 95 % interval of the median: the chance that
    all lie on one side of it is 2 * 2**-6 = 3.1 %.
    """

    build: Path
    """Where programs are compiled and tools put their files; removed at the end."""
    rounds: int = ROUNDS
    seconds: float = SECONDS
    warm_up: float = 0.3
    memory_ns: int = MEMORY_NS
    freeze_ns: int = 10 * NS_PER_S
    """Length of the run in whose middle the server stands still."""
    gate_wait_ns: int = 10 * NS_PER_S
    """How long a run waits for a quiet machine before it begins all the same."""
    tries: int = 3
    """How often a run that others disturbed is repeated; the least disturbed one counts."""
    rund: Path | None = None
    """RunD's raw data, a directory or a tar archive; None: there are none here."""
    server_cpu: int = 0
    client_cpu: int = 1

    @property
    def measure_ns(self) -> int:
        """Length of one measurement (ns)."""
        return int(self.seconds * NS_PER_S)

    @property
    def warm_up_ns(self) -> int:
        """Length of what is thrown away before it (ns)."""
        return int(self.warm_up * NS_PER_S)

    def for_server(self, argv: list[str]) -> list[str]:
        """Returns the command, pinned to the server's processor."""
        return ["taskset", "-c", str(self.server_cpu), *argv]

    def for_client(self, argv: list[str]) -> list[str]:
        """Returns the command, pinned to the client's processor."""
        return ["taskset", "-c", str(self.client_cpu), *argv]


def smoke(build: Path) -> Settings:
    """Returns settings that show whether everything works, and measure nothing."""
    server_cpu, client_cpu = processors()
    return Settings(
        build=build,
        rounds=1,
        seconds=0.3,
        warm_up=0.1,
        memory_ns=2 * NS_PER_S,
        freeze_ns=3 * NS_PER_S,
        gate_wait_ns=0,
        tries=1,
        server_cpu=server_cpu,
        client_cpu=client_cpu,
    )


def processors() -> tuple[int, int]:
    """Returns the processors of server and client: the first two that we may use."""
    usable = sorted(os.sched_getaffinity(0))
    return usable[0], usable[min(1, len(usable) - 1)]
