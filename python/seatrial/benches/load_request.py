"""The load that a `[load]` table asks for, as the engine is told, and what is wrong with it.

The texts of laws and patterns are the engine's own, and so is their check: `check_load` makes the
plans that the trials will run, without running them.
"""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Final

from seatrial.config.expand import CLOSED, OPEN, points_of_load
from seatrial.errors import ConfigError
from seatrial.loadgen import LoadRequest, arrival_process
from seatrial.model.experiment import LoadProtocol, Operation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from seatrial.model.experiment import LoadSettings
    from seatrial.model.plan import Point

RECORDS_MAX: Final = 1_000_000
#: Intervals of the measure phase, as many as a figure shows well; none is shorter than a timer's
#: own jitter lets it be.
INTERVALS_COUNT: Final = 60
INTERVAL_NS_MIN: Final = 10_000_000
#: Memory that `touch` writes to, the engine's own default; over HTTP the path has to name it.
TOUCH_BYTES: Final = 1 << 20
#: A target that plans are checked with; nobody connects to it.
NOBODY: Final = "tcp://127.0.0.1:1"
SOME_RATE_RPS: Final = 1000.0
#: What the engine calls a setting where the file has another key for it.
KEYS: Final = {
    "rate_rps": "rates",
    "payload_bytes": "payload",
    "measure_ns": "duration",
    "warm_up_ns": "warm_up",
    "cool_down_ns": "cool_down",
    "drain_ns": "drain",
    "request_timeout_ns": "request_timeout",
}
_NAMED: Final = re.compile(r"(?:load plan:|\w+ option) (\w+)")


def request_of(settings: LoadSettings, point: Point, *, target: str, seed: int) -> LoadRequest:
    """Returns what the engine is asked for at a point."""
    is_open = point.values["mode"] == OPEN
    rate_rps = point.values.get("rate_rps")
    request = LoadRequest(
        targets=(target,),
        protocol=settings.protocol,
        operation=settings.operation,
        payload_bytes=settings.payload_bytes,
        demand=settings.demand,
        arrival=settings.arrival if is_open else CLOSED,
        rate_rps=float(rate_rps) if rate_rps is not None else None,
        pattern=settings.pattern if is_open else "fixed",
        think="none" if is_open else settings.think,
        connections=int(point.values["connections"]),
        threads=settings.threads,
        depth=settings.depth,
        outstanding_max=settings.outstanding_max,
        warm_up_ns=settings.warm_up_ns,
        measure_ns=settings.duration_ns,
        cool_down_ns=settings.cool_down_ns,
        interval_ns=max(INTERVAL_NS_MIN, settings.duration_ns // INTERVALS_COUNT),
        drain_ns=settings.drain_ns,
        request_timeout_ns=settings.request_timeout_ns,
        records_max=RECORDS_MAX,
        seed=seed,
        # The clock of a modelled server stands still while the engine waits; it only blocks.
        wait=None if target.startswith("fake:") else settings.wait,
        timestamps=settings.timestamps,
    )
    if settings.protocol is LoadProtocol.HTTP:
        return _over_http(request, settings)
    if settings.reply_bytes is not None:
        return dataclasses.replace(request, options={"reply_bytes": str(settings.reply_bytes)})
    return request


def _over_http(request: LoadRequest, settings: LoadSettings) -> LoadRequest:
    """Returns the same load with the operation as a path and the payload as a body."""
    reply_bytes = settings.reply_bytes
    paths = {
        Operation.EMPTY: "/ok" if reply_bytes is None else f"/bytes/{reply_bytes}",
        Operation.TOUCH: f"/touch/{TOUCH_BYTES}",
    }
    path = paths.get(settings.operation, f"/{settings.operation}/{{demand_ns}}ns")
    options = {"path": path}
    if settings.payload_bytes:
        options |= {"method": "POST", "body_bytes": str(settings.payload_bytes)}
    return dataclasses.replace(request, operation="empty", payload_bytes=0, options=options)


def check_load(
    load: Mapping[str, object], settings: LoadSettings | None
) -> Iterator[tuple[str, str]]:
    """Gives the key and the text of everything that the engine refuses in a `[load]` table.

    Args:
        load: The table as it was written, whose types may be wrong.
        settings: The same in the program's units; None if something else is wrong with it.
    """
    found = list(_refused_texts(load))
    yield from found
    if settings is not None and not found:
        yield from _refused_plans(settings)


def _refused_texts(load: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """Tries each text alone."""
    rates = load.get("rates")
    has_rates = bool(rates) or not isinstance(rates, list | None)
    tries: tuple[tuple[str, Callable[[str], object]], ...] = (
        ("arrival", lambda text: _process(text, has_rates=has_rates)),
        ("pattern", _pattern),
        ("think", lambda text: _plan(think=text)),
        ("demand", lambda text: _plan(operation="spin", demand=text) if text != "none" else None),
        ("wait", lambda text: _plan(wait=text)),
        ("timestamps", lambda text: _plan(timestamps=text)),
    )
    for key, attempt in tries:
        text = load.get(key)
        if not isinstance(text, str):
            continue
        try:
            attempt(text)
        except ConfigError as error:
            yield key, f'got "{text}"; expected {_expectation(error)}'


def _process(law: str, *, has_rates: bool) -> object:
    is_recorded = law.startswith("trace:") and not has_rates
    return arrival_process(law, None if is_recorded else SOME_RATE_RPS)


def _pattern(text: str) -> object:
    """Tries the pattern with a rate and, if it has rates of its own, without."""
    try:
        return arrival_process("poisson", SOME_RATE_RPS, pattern=text)
    except ConfigError:
        return arrival_process("poisson", pattern=text)


def _plan(
    *,
    operation: str = "empty",
    demand: str = "none",
    think: str = "none",
    wait: str | None = None,
    timestamps: str = "user",
) -> object:
    request = LoadRequest(
        targets=(NOBODY,),
        measure_ns=1_000_000_000,
        operation=operation,
        demand=demand,
        think=think,
        wait=wait,
        timestamps=timestamps,
    )
    return request.to_plan()


def _refused_plans(settings: LoadSettings) -> Iterable[tuple[str, str]]:
    """Makes the plan of every point; says what is wrong with several of them once."""
    refused = dict(_contradictions(settings))
    for point in points_of_load(settings):
        try:
            request_of(settings, point, target=NOBODY, seed=1).to_plan()
        except ConfigError as error:
            named = _NAMED.match(str(error))
            name = named[1] if named else ""
            key = KEYS.get(name, name)
            known = {*KEYS.values(), *(field.name for field in dataclasses.fields(settings))}
            refused.setdefault(key if key in known else "", str(error).removeprefix("load plan: "))
    return refused.items()


def _contradictions(settings: LoadSettings) -> Iterator[tuple[str, str]]:
    """Finds what the engine would take, but not as it was meant."""
    operation, protocol = settings.operation, settings.protocol
    is_http = protocol is LoadProtocol.HTTP
    if is_http and operation is Operation.CHECKSUM:
        others = "expected another one, or protocol rpc or grpc"
        yield "operation", f'got "{operation}", which "{protocol}" does not have; {others}'
    replying = Operation.EMPTY if is_http else Operation.CHECKSUM
    if settings.reply_bytes is not None and operation is not replying:
        others = f'"{Operation.CHECKSUM}", or "{Operation.EMPTY}" with protocol "http"'
        yield "reply_bytes", f'got it with operation "{operation}"; expected {others}'
    is_open = bool(settings.rates_rps) or settings.has_own_rates
    for key, usual in (("arrival", "poisson"), ("pattern", "fixed")):
        text = getattr(settings, key)
        if not is_open and text != usual:
            yield key, f'got "{text}" without an open loop; expected at least one of load.rates'


def _expectation(error: ConfigError) -> str:
    return str(error).partition(", expected ")[2] or str(error)
