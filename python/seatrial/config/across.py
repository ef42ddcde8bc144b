"""What is wrong between the keys of one table, whose types may be wrong as well."""

from collections.abc import Iterator, Mapping
from typing import Final

from seatrial.config.problems import Problem
from seatrial.config.written import WrittenFleet, WrittenInside, WrittenRpc
from seatrial.errors import UnitError
from seatrial.model.experiment import Layout, Operation
from seatrial.units import format_duration, parse_duration_ns

# The guest's own bound on listeners and on workers.
SERVERS_MAX: Final = 64
_WORKING: Final = (Operation.SPIN, Operation.SPIN_WALL, Operation.SLEEP)


def load_problems(load: Mapping[str, object]) -> Iterator[Problem]:
    """Find what does not fit together in ``[load]``."""
    operation, demand = load.get("operation", Operation.EMPTY), load.get("demand", "none")
    yield from _demand_problems("load.demand", operation, demand)
    threads, connections = load.get("threads", 1), load.get("connections", [1])
    counts = connections if isinstance(connections, list) else []
    are_counts = bool(counts) and all(type(count) is int and count > 0 for count in counts)
    if are_counts and type(threads) is int and threads > min(counts):
        yield Problem(
            key="load.threads",
            message=f"got {threads}; expected at most {min(counts)}, the smallest of "
            "load.connections: each thread needs one",
        )


def fleet_problems(fleet: Mapping[str, object]) -> Iterator[Problem]:
    """Find what does not fit together in ``[fleet]``."""
    usual = WrittenFleet()
    operation = fleet.get("operation", usual.operation)
    demands = fleet.get("demands", usual.demands)
    for number, demand in enumerate(demands if isinstance(demands, list) else ()):
        yield from _demand_problems(f"fleet.demands[{number}]", operation, demand)
    connections = fleet.get("connections", usual.connections)
    agents = fleet.get("load_agents", usual.load_agents)
    threads = fleet.get("threads", usual.threads)
    counts = fleet.get("counts", usual.counts)
    numbers = counts if isinstance(counts, list) else []
    layouts = fleet.get("layouts", usual.layouts)
    if isinstance(layouts, list) and Layout.SERVERS in layouts:
        for number, count in enumerate(numbers):
            if type(count) is int and count > SERVERS_MAX:
                yield Problem(
                    key=f"fleet.counts[{number}]",
                    message=f"got {count}; expected at most {SERVERS_MAX} with layout "
                    f'"{Layout.SERVERS}": so many servers can be in one sandbox',
                )
    if not numbers or any(type(value) is not int for value in (*numbers, connections, agents)):
        return
    assert isinstance(connections, int) and isinstance(agents, int)  # noqa: PT018 - for the types
    needed = max(numbers) * agents
    if connections < needed:
        yield Problem(
            key="fleet.connections",
            message=f"got {connections}; expected at least {needed}, so that each of {agents} load "
            f"agents reaches each of {max(numbers)} servers",
        )
    if type(threads) is int and agents > 0 and threads > connections // agents:
        yield Problem(
            key="fleet.threads",
            message=f"got {threads}; expected at most {connections // agents}, the connections of "
            "one load agent: each thread needs one",
        )


def rpc_problems(rpc: Mapping[str, object]) -> Iterator[Problem]:
    """Find what does not fit together in ``[rpc]``."""
    usual = WrittenRpc()
    lengths: dict[str, int] = {}
    for name in ("warm_up", "client_duration", "server_duration", "interval"):
        written = rpc.get(name)
        try:
            lengths[name] = (
                parse_duration_ns(written) if isinstance(written, str) else getattr(usual, name)
            )
        except UnitError:
            return  # it is reported as what it is: no duration
    clients_ns = lengths["warm_up"] + lengths["client_duration"]
    if lengths["server_duration"] <= clients_ns:
        yield Problem(
            key="rpc.server_duration",
            message=f"got {format_duration(lengths['server_duration'])}, but the clients run for "
            f"{format_duration(clients_ns)} (rpc.warm_up and rpc.client_duration); expected a "
            "server that outlives its clients",
        )
    if lengths["interval"] > lengths["client_duration"]:
        yield Problem(
            key="rpc.interval",
            message=f"got {format_duration(lengths['interval'])}; expected at most "
            f"{format_duration(lengths['client_duration'])}, the clients' duration",
        )


def inside_problems(inside: Mapping[str, object]) -> Iterator[Problem]:
    """Find what does not fit together in ``[inside]``."""
    usual = WrittenInside()
    lengths: dict[str, int] = {}
    for name in ("deadline", "fio_duration", "network_duration"):
        written = inside.get(name)
        try:
            lengths[name] = (
                parse_duration_ns(written) if isinstance(written, str) else getattr(usual, name)
            )
        except UnitError:
            return  # it is reported as what it is: no duration
    for name in ("fio_duration", "network_duration"):
        if lengths[name] >= lengths["deadline"]:
            yield Problem(
                key=f"inside.{name}",
                message=f"got {format_duration(lengths[name])}, but each command is killed after "
                f"{format_duration(lengths['deadline'])} (inside.deadline); expected less",
            )


def _demand_problems(key: str, operation: object, demand: object) -> Iterator[Problem]:
    if operation in _WORKING and demand == "none":
        yield Problem(
            key=key,
            message=f'operation "{operation}" needs a demand; expected one such as "constant:1ms"',
        )
    elif operation in tuple(Operation) and operation not in _WORKING and demand != "none":
        yield Problem(
            key=key,
            message=f'operation "{operation}" takes no demand; expected operation '
            f'"{Operation.SPIN}", "{Operation.SPIN_WALL}" or "{Operation.SLEEP}" beside a demand',
        )
