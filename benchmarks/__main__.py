"""``python -m benchmarks``: runs families of benchmarks, prints tables, writes `RESULTS.md`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import (
    audit,
    cost,
    ctr,
    echo,
    frozen,
    imports,
    lean,
    open_loop,
    paced,
    page,
    runc,
    unary,
    web,
)
from benchmarks.peers import (
    dataframes,
    fortio,
    ghz,
    grpcio,
    h2load,
    hey,
    oha,
    sockperf,
    vegeta,
    wrk,
)
from benchmarks.rows import Row
from benchmarks.series import one_line
from benchmarks.settings import MEMORY_NS, ROUNDS, SECONDS, Settings, processors, smoke
from seatrial.errors import SeatrialError
from seatrial.units import NS_PER_S

RESULTS = Path(__file__).parent / "RESULTS.md"
MEASURED = Callable[[Settings], list[Row]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Rows that are measured together."""

    section: str
    title: str
    rows: MEASURED
    peers: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    """Whose versions belong beside the rows."""


WEB_PEERS = {"oha": oha.version, "vegeta": vegeta.version, "fortio": fortio.version}
FAMILIES = {
    "runc": Family(section="Start", title="runc against a bare C loop", rows=runc.rows),
    "ctr": Family(section="Start", title="ctr run against a bare C loop", rows=ctr.rows),
    "lean": Family(
        section="Start", title="Lean sandboxes against a bare child", rows=lean.rows
    ),
    "echo": Family(
        section="Load engine",
        title="Closed loop over TCP echo (T1-T4)",
        rows=echo.rows,
        peers={"sockperf": sockperf.version},
    ),
    "open": Family(
        section="Load engine", title="Punctuality of the open loop (T8, T9, T12)",
        rows=open_loop.rows,
    ),
    "cost": Family(section="Load engine", title="Its own cost (T16, T17)", rows=cost.rows),
    "http": Family(
        section="Peers",
        title="Closed loop over HTTP/1.1 (T5, T6)",
        rows=web.rows,
        peers={"wrk": wrk.version, "h2load": h2load.version, "hey": hey.version},
    ),
    "grpc": Family(
        section="Peers",
        title="Closed loop over gRPC (T7)",
        rows=unary.rows,
        peers={"h2load": h2load.version, "ghz": ghz.version, "grpcio": grpcio.version},
    ),
    "paced": Family(
        section="Peers", title="Open loop over HTTP/1.1 (T10, T11)", rows=paced.rows,
        peers=WEB_PEERS,
    ),
    "audit": Family(
        section="Peers", title="Arrivals as the server sees them (T10)", rows=audit.rows,
        peers=WEB_PEERS,
    ),
    "frozen": Family(
        section="Peers",
        title="A server that stands still (T14)",
        rows=frozen.rows,
        peers={"wrk": wrk.version, "h2load": h2load.version, "hey": hey.version, **WEB_PEERS},
    ),
    "import": Family(
        section="Importers",
        title="RunD's raw data against pandas",
        rows=imports.rows,
        peers={"pandas": dataframes.version},
    ),
}  # fmt: skip
#: What `--only` takes beside the names of families.
GROUPS = {
    "start": ["runc", "ctr", "lean"],
    "load": [name for name in FAMILIES if name not in {"runc", "ctr", "lean", "import"}],
}


def main() -> int:
    """Runs the chosen families; returns 0, since speed is reported here and never asserted."""
    # So that servers are ended and files removed when the run is ended from outside.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    args = parsed()
    if args.list:
        for name, family in FAMILIES.items():
            print(f"{name:<8} {family.section}: {family.title}")
        return 0
    texts: dict[str, str] = {}
    with tempfile.TemporaryDirectory(prefix="seatrial-bench-") as folder:
        settings = settings_of(args, Path(folder))
        for name in args.only or FAMILIES:
            family = FAMILIES[name]
            print(f"{name}: {family.title} ...", file=sys.stderr, flush=True)
            texts[family.title] = measured(family, settings)
            print(f"### {family.title}\n\n{texts[family.title]}", flush=True)
            if not (args.no_write or args.smoke):
                # At once, so that a later failure does not lose it.
                write(texts)
    return 0


def parsed() -> argparse.Namespace:
    """Returns the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    known = [*FAMILIES, *GROUPS]
    parser.add_argument("--only", nargs="+", choices=known, metavar="NAME", help="what to run")
    parser.add_argument("--list", action="store_true", help="list what there is, and end")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each row ({ROUNDS})")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of one run ({SECONDS:g})")
    parser.add_argument(
        "--memory-seconds",
        type=float,
        dest="memory",
        default=MEMORY_NS / NS_PER_S,
        help=f"of the run whose memory is watched ({MEMORY_NS / NS_PER_S:g})",
    )
    parser.add_argument(
        "--rund",
        type=Path,
        metavar="DIR|TAR",
        default=os.environ.get(imports.VARIABLE),
        help=f"RunD's raw data, for the family import ({imports.VARIABLE})",
    )
    parser.add_argument("--smoke", action="store_true", help="one short round: does it all work?")
    parser.add_argument("--no-write", action="store_true", help="do not write RESULTS.md")
    args = parser.parse_args()
    for name, value in (
        ("rounds", args.rounds),
        ("seconds", args.seconds),
        ("memory-seconds", args.memory),
    ):
        if value <= 0:
            parser.error(f"--{name} {value}: expected more than 0")
    args.only = [one for name in args.only or () for one in GROUPS.get(name, [name])]
    return args


def settings_of(args: argparse.Namespace, build: Path) -> Settings:
    """Returns the settings that the command line asks for."""
    rund = None if args.rund is None else Path(args.rund)
    if args.smoke:
        return replace(smoke(build), rund=rund)
    server_cpu, client_cpu = processors()
    return replace(
        Settings(build=build, server_cpu=server_cpu, client_cpu=client_cpu),
        rund=rund,
        rounds=args.rounds,
        seconds=args.seconds,
        memory_ns=int(args.memory * NS_PER_S),
    )


def measured(family: Family, settings: Settings) -> str:
    """Returns a family's text; what it lacks altogether is said in a row, and stops nothing."""
    try:
        rows = family.rows(settings)
    except SeatrialError as error:
        rows = [
            Row(
                id="",
                name=family.title,
                ours=f"none: {one_line(str(error))}",
                verdict="not measured",
            )
        ]
    versions = {name: version_text(version) for name, version in family.peers.items()}
    how = f"{settings.rounds} rounds of {settings.seconds:g} s."
    return page.family_text(rows, how=how, versions=versions)


def version_text(version: Callable[[], str]) -> str:
    """Returns a peer's version, or that it is not there."""
    try:
        return version()
    except SeatrialError:
        return "(missing)"


def write(texts: Mapping[str, str]) -> None:
    """Writes the page, with the families that were not measured as they stood."""
    known = {family.title for family in FAMILIES.values()} | {page.ENDURANCE}
    before = page.read_families(RESULTS.read_text()) if RESULTS.exists() else {}
    kept = {title: text for title, text in before.items() if title in known}
    sections: dict[str, list[str]] = {}
    for family in FAMILIES.values():
        sections.setdefault(family.section, []).append(family.title)
    sections.setdefault("Load engine", []).append(page.ENDURANCE)
    RESULTS.write_text(page.whole(sections, kept | texts))


if __name__ == "__main__":
    sys.exit(main())
