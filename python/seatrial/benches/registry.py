"""The benches by name, and their metrics in the metric registry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seatrial.benches.density import DensityBench
from seatrial.benches.fleet import FleetBench
from seatrial.benches.inside import InsideBench
from seatrial.benches.load import LoadBench
from seatrial.benches.rpc import RpcBench
from seatrial.benches.rund import RUND_BENCHES
from seatrial.benches.start import StartBench
from seatrial.errors import ConfigError
from seatrial.model.metric import register

if TYPE_CHECKING:
    from seatrial.benches.base import Bench

BENCHES: dict[str, Bench] = {
    bench.name: bench
    for bench in (
        StartBench(),
        DensityBench(),
        LoadBench(),
        FleetBench(),
        RpcBench(),
        InsideBench(),
    )
}

#: Experiments of other tools: their results can be imported, and nothing be run.
IMPORTED: dict[str, Bench] = {bench.name: bench for bench in RUND_BENCHES}

for _bench in (*BENCHES.values(), *IMPORTED.values()):
    register(*_bench.metrics)


def names() -> tuple[str, ...]:
    """Returns the names of all benches, in the order a reader asks the questions."""
    return tuple(BENCHES)


def get(name: str) -> Bench:
    """Returns a bench, or the experiment of another tool.

    Raises:
        ConfigError: no bench has that name; the message lists those that exist.
    """
    if name in IMPORTED:
        return IMPORTED[name]
    if name not in BENCHES:
        raise ConfigError(
            f"unknown bench {name!r}; expected one of: {', '.join(BENCHES)}",
            hint="run 'seatrial list'",
        )
    return BENCHES[name]
