"""``seatrial import rund``: RunD's raw data as tables, as a run, and in print."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from seatrial.errors import ExitCode

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

    from seatrial.importers.rund.compat import StartFigures
    from seatrial.importers.rund.rows import RundData

#: More notices than this are counted, not printed: a log cut in two has thousands.
NOTICES_SHOWN = 40


def import_rund(args: argparse.Namespace) -> int:
    """Prints what the data say, and keeps what was asked for; 1 if they are not whole."""
    from seatrial.cli import output
    from seatrial.importers.rund.read import USER_HZ, read_rund

    user_hz = USER_HZ if args.user_hz is None else args.user_hz
    data = read_rund(args.log, user_hz=user_hz)
    with output.finishing(partial(_write, data, args)):
        _show(data, as_json=args.json)
    return ExitCode.FINDING if any(one.notices for one in data) else ExitCode.OK


def _show(data: Sequence[RundData], *, as_json: bool) -> None:
    from seatrial.cli import output
    from seatrial.importers.rund.compat import memory_figures, start_figures

    if as_json:
        output.data_json(
            [
                {
                    "name": one.name,
                    "starts": start_figures(one),
                    "memory": memory_figures(one),
                    "conditions": {" ".join(key): dict(v) for key, v in one.conditions.items()},
                    "notices": one.notices,
                }
                for one in data
            ]
        )
    else:
        for one in data:
            _print(one)


def _write(data: Sequence[RundData], args: argparse.Namespace) -> None:
    from seatrial.cli import output
    from seatrial.importers.rund.compat import write_tables
    from seatrial.importers.rund.store import store_data

    if args.csv is not None:
        written = write_tables(data, args.csv)
        output.talk(f"tables: {len(written)} files in {args.csv}")
    if args.out is not None:
        for one in data:
            path = store_data(one, args.out, source=str(args.log))
            output.talk(f"run directory: {path}")


def _print(data: RundData) -> None:
    from seatrial.cli import output
    from seatrial.importers.rund.compat import memory_figures, start_figures
    from seatrial.units import format_bytes

    output.data(f"{data.name}: {', '.join(data.runtimes)}")
    figures = start_figures(data)
    for experiment in ("time", "density"):
        cells = [one for one in figures if one.experiment == experiment]
        if cells:
            output.data("")
            output.table(*_start_table(cells))
    memory = memory_figures(data)
    if memory:
        output.data("")
        output.table(
            ("mem", "guest memory", "count", "PSS a sandbox"),
            [
                (
                    one.runtime,
                    format_bytes(one.memory_bytes),
                    str(one.count),
                    "refused" if one.pss_mean_bytes is None else format_bytes(one.pss_mean_bytes),
                )
                for one in memory
            ],
        )
    for notice in data.notices[:NOTICES_SHOWN]:
        output.data(f"{notice.code}: {notice.message}")
    if len(data.notices) > NOTICES_SHOWN:
        output.data(f"... and {len(data.notices) - NOTICES_SHOWN} more (--json has all)")


def _start_table(cells: Sequence[StartFigures]) -> tuple[Sequence[str], list[tuple[str, ...]]]:
    is_dense = cells[0].background is not None
    headers = [
        cells[0].experiment,
        *(["idle"] if is_dense else []),
        "at once",
        "rounds",
        "makespan, mean",
        "latency, mean",
        "p50",
        "p99",
        "max",
        "host CPU",
        *(["amplified"] if is_dense else []),
    ]
    return headers, [tuple(_start_row(one, is_dense=is_dense)) for one in cells]


def _start_row(one: StartFigures, *, is_dense: bool) -> Iterable[str]:
    from seatrial.units import format_duration, format_ratio

    yield one.runtime
    if is_dense:
        yield str(one.background)
    yield str(one.concurrency)
    yield str(one.rounds_count)
    for value_ns in (
        one.makespan_mean_ns,
        one.latency_mean_ns,
        one.latency_p50_ns,
        one.latency_p99_ns,
        one.latency_max_ns,
        one.host_cpu_mean_ns,
    ):
        yield "-" if value_ns is None else format_duration(value_ns)
    if is_dense:
        yield "-" if one.amplification_ratio is None else format_ratio(one.amplification_ratio)
