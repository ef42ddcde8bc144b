"""``seatrial clean``: remove what killed runs left on this machine, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's options."""
    parser.add_argument(
        "--dry-run", action="store_true", help="tell what would be removed, and remove nothing"
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def execute(args: argparse.Namespace) -> int:
    """Sweeps what runs left whose owner is dead, or tells of it; returns 0."""
    from seatrial.cli import output
    from seatrial.drivers import registry

    found = registry.would_remove() if args.dry_run else registry.sweep()
    if args.json:
        output.data_json({"would_remove" if args.dry_run else "removed": found})
        return 0
    for line in found:
        output.data(f"would remove {line}" if args.dry_run else f"removed {line}")
    if not found:
        output.talk("nothing to remove: no killed run left anything behind")
    return 0
