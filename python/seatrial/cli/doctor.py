"""``seatrial doctor``: what this machine can measure, what not, why, and how to fix it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seatrial.doctor.check import Group
    from seatrial.doctor.examine import Wanted

DESCRIPTION = """\
Says what this machine can measure, what not, why, and how to fix it. It starts a sandbox with each
runtime and removes it, measures the noise for two seconds, and leaves nothing behind.
"""
EPILOG = """\
exit codes: 0 what was chosen is usable, 3 something that it needs is missing or broken (without
--drivers: something that the baseline "process" needs)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.description = DESCRIPTION
    parser.epilog = EPILOG
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--drivers", metavar="A,B", help="these must work; start no others")
    parser.add_argument(
        "--only",
        metavar="GROUP,...",
        help="only these groups of checks: noise, host, clocks, limits, kernel, cgroups, "
        "isolation, network, storage, tools, launcher, runtimes, kvm, leftovers",
    )
    parser.add_argument(
        "--fast", "--quick", dest="fast", action="store_true", help="look only, start nothing"
    )
    parser.add_argument(
        "--problems", action="store_true", help="leave out the checks that found nothing wrong"
    )
    parser.add_argument(
        "--out", metavar="DIR", default="runs", help="where runs will be kept (default: runs)"
    )
    parser.add_argument(
        "--thin-pool",
        metavar="SIZE",
        help="only print the commands for a thin pool of that size (containerd's snapshotter "
        "devmapper); nothing is run",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")


def execute(args: argparse.Namespace) -> int:
    """Looks and tries; returns 0, or 3 when what was chosen cannot run."""
    from seatrial.cli import output
    from seatrial.errors import ExitCode

    if args.thin_pool is not None:
        output.data(_thin_pool(args.thin_pool))
        return ExitCode.OK
    from seatrial.cli.doctor_text import show
    from seatrial.doctor.examine import examine

    wanted = _wanted(args)
    examination = examine(wanted, tell=lambda step: output.talk(f"{step.group}: {step.name} ..."))
    if args.json:
        output.data_json(examination)
    else:
        show(examination, only_problems=args.problems)
    return ExitCode.ENVIRONMENT if examination.blocking else ExitCode.OK


def _wanted(args: argparse.Namespace) -> Wanted:
    from seatrial.cli.available import parse_drivers
    from seatrial.doctor.check import Group
    from seatrial.doctor.examine import Wanted
    from seatrial.drivers.tools import runsc_candidates

    drivers = parse_drivers(args.drivers)
    return Wanted(
        groups=parse_groups(args.only) if args.only else frozenset(Group),
        drivers=drivers,
        starts=not args.fast,
        run_dir=Path(args.out),
        tools_dir=runsc_candidates()[-1].parent,
    )


def parse_groups(text: str) -> frozenset[Group]:
    """Read the value of ``--only``: names with commas between them.

    Raises:
        ConfigError: a name is unknown.
    """
    from seatrial.config.problems import unknown
    from seatrial.doctor.check import Group
    from seatrial.errors import ConfigError

    known = tuple(group.value for group in Group)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ConfigError(f"--only: {unknown('group', name, known)}", code="group-unknown")
    return frozenset(Group(name) for name in names)


def _thin_pool(size: str) -> str:
    import shutil

    from seatrial.doctor.storage import existing
    from seatrial.doctor.thin_pool import ThinPool
    from seatrial.units import parse_size_bytes

    pool = ThinPool(data_bytes=parse_size_bytes(size))
    return pool.text(free_bytes=shutil.disk_usage(existing(pool.directory)).free)
