"""``seatrial clean``: remove what killed runs left on this machine, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def execute(args: argparse.Namespace) -> int:
    """Sweeps the state and the control groups of runs whose owner is dead; returns 0."""
    from seatrial.cli import output
    from seatrial.drivers import registry

    removed = registry.sweep()
    if args.json:
        output.data_json({"removed": removed})
        return 0
    for line in removed:
        output.data(f"removed {line}")
    if not removed:
        output.talk("nothing to remove: no killed run left anything behind")
    return 0
