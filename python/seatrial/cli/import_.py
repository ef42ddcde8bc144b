"""``seatrial import``: other tools' logs as numbers with units, intervals and caveats."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from seatrial.importers.lancet import LancetBlock, LancetLog, LancetQuantile
    from seatrial.importers.mitosis import MitosisLog
    from seatrial.importers.source import Notice

TOOLS: Final = ("lancet", "mitosis", "rund")
DESCRIPTION: Final = """\
Reads the log of another tool, and says what is odd about it.

  lancet   the coordinator's tables '#ReqCount QPS RxBw TxBw' and '#Avg Lat 50th ...'; a bound
           that was printed as 0 becomes unknown
  mitosis  'passed: Nus, thpt: N requests/s', '[name] Throughput: N containers/sec, latency N ms',
           'epoch @ N: thpt: N reqs/sec. ...'; rates are summed over hosts and processes
  rund     the raw data of RunD's artifact: trees time_*, density_*, mem_*, in a directory or a tar
           archive, any sweep; --out keeps it as a run for report and compare, --csv writes the
           tables time.csv, cpu.csv, density_*.csv and mem_*.csv

Lines of lancet and mitosis may begin with '[host] out: ' or '@host'.
Exit code 1 if there is something to be wary of.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = DESCRIPTION
    parser.add_argument("tool", choices=TOOLS, metavar="TOOL", help="lancet, mitosis or rund")
    parser.add_argument("log", type=Path, metavar="LOG", help="the log file; rund: DIR|TAR")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument(
        "--parquet", type=Path, metavar="FILE", help="write the rows to a new Parquet file as well"
    )
    for name, what in (("first", "warm-up"), ("last", "tail")):
        parser.add_argument(
            f"--skip-{name}",
            type=_count,
            default=0,
            metavar="N",
            help=f"mitosis: leave each source's {name} N intervals ({what}) out of the rates",
        )
    parser.add_argument(
        "--out", type=Path, metavar="STORE", help="rund: also make a run directory under STORE"
    )
    parser.add_argument(
        "--csv", type=Path, metavar="DIR", help="rund: also write its tables, as its scripts do"
    )
    parser.add_argument(
        "--user-hz",
        type=_count,
        metavar="N",
        help="rund: ticks in a second of the measured kernel's /proc/stat (default: 100)",
    )


def execute(args: argparse.Namespace) -> int:
    """Prints what the log says; returns 1 if a reader has to be wary of it."""
    from seatrial.cli import output
    from seatrial.importers import tables
    from seatrial.importers.lancet import read_lancet
    from seatrial.importers.mitosis import read_mitosis

    _check_options(args)
    if args.tool == "rund":
        from seatrial.cli.imported_rund import import_rund

        return import_rund(args)
    log: LancetLog | MitosisLog
    if args.tool == "lancet":
        log = lancet = read_lancet(args.log)
        frame, lines = tables.lancet_rows(lancet), _lancet_lines(lancet)
    else:
        log = mitosis = read_mitosis(args.log, skip_first=args.skip_first, skip_last=args.skip_last)
        frame, lines = tables.mitosis_rows(mitosis), _mitosis_lines(mitosis)
    if args.parquet is not None:
        tables.write_parquet(frame, args.parquet)
    if args.json:
        output.data_json(log)
    else:
        for line in [*lines, *_notice_lines(log.notices)]:
            output.data(line)
    return ExitCode.FINDING if log.notices else ExitCode.OK


#: The options that only some tools have.
OPTIONS: Final = {
    "out": ("rund",),
    "csv": ("rund",),
    "user_hz": ("rund",),
    "parquet": ("lancet", "mitosis"),
    "skip_first": ("mitosis",),
    "skip_last": ("mitosis",),
}


def _check_options(args: argparse.Namespace) -> None:
    """Refuses an option that would change nothing."""
    for name, tools in OPTIONS.items():
        if getattr(args, name, None) and args.tool not in tools:
            raise ConfigError(
                f"--{name.replace('_', '-')} means nothing for {args.tool}; expected it with "
                f"{' or '.join(tools)} only",
                hint="leave it out; `seatrial import --help` tells what each tool takes",
            )


def _count(text: str) -> int:
    if not text.isdecimal():
        message = f"got {text!r}; expected a whole number from 0"
        raise argparse.ArgumentTypeError(message)
    return int(text)


def _lancet_lines(log: LancetLog) -> Iterable[str]:
    from seatrial.units import format_duration, format_rate

    for number, block in enumerate(log.blocks, 1):
        yield f"measurement {number}: {block.request_count} replies, {_bandwidths(block)}"
        yield f"  achieved {format_rate(block.achieved_rps)}"
        if block.mean_ns is not None:
            yield f"  mean   {format_duration(block.mean_ns)}"
        for quantile in block.quantiles:
            yield f"  p{quantile.percentile:<5g} {_interval(quantile)}"


def _bandwidths(block: LancetBlock) -> str:
    received, sent = block.received_bytes_per_s, block.sent_bytes_per_s
    return f"{received:,.0f} B/s received, {sent:,.0f} B/s sent"


def _interval(quantile: LancetQuantile) -> str:
    from seatrial.units import format_duration

    bounds = [
        "unknown" if bound is None else format_duration(bound)
        for bound in (quantile.low_ns, quantile.high_ns)
    ]
    return f"{format_duration(quantile.point_ns)} [{bounds[0]}, {bounds[1]}]"


def _mitosis_lines(log: MitosisLog) -> Iterable[str]:
    from seatrial.units import format_duration

    for source in log.sources:
        latency = source.latency_ns
        told = "" if latency is None else f", latency {format_duration(latency)}"
        yield (
            f"{source.source}: {source.rate_per_s:,.2f} {log.unit}/s over {source.counted_count} "
            f"of {source.intervals_count} intervals{told}"
        )
    yield f"total of {len(log.sources)}: {log.total_rate_per_s:,.2f} {log.unit}/s"


def _notice_lines(notices: Iterable[Notice]) -> Iterable[str]:
    for notice in notices:
        yield f"{notice.code}: {notice.message}"
