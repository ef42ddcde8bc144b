"""``seatrial list``: what there is to choose from. Nothing is probed; ``doctor`` does that."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Mapping

Row = dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument(
        "kind",
        nargs="?",
        choices=tuple(KINDS),
        help="what to list; everything when left out",
    )
    parser.add_argument("--json", action="store_true", help="print the list as JSON")


def execute(args: argparse.Namespace) -> int:
    """Print the lists; give 0."""
    from seatrial.cli import output

    kinds = (args.kind,) if args.kind else tuple(KINDS)
    lists = {kind: KINDS[kind]() for kind in kinds}
    if args.json:
        output.data_json(lists)
        return 0
    for position, (kind, rows) in enumerate(lists.items()):
        if len(lists) > 1:
            output.data(f"{'' if position == 0 else chr(10)}{kind}:")
        if rows:
            output.table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    return 0


def _drivers() -> list[Row]:
    from seatrial.drivers import registry

    return [
        {"driver": name, "kind": "auxiliary" if name in registry.AUXILIARY else "runtime"}
        for name in registry.names()
    ]


def _benches() -> list[Row]:
    from seatrial.benches import registry

    rows = []
    for name in registry.names():
        bench = registry.get(name)
        rows.append({"bench": name, "headline": bench.headline, "question": bench.question})
    return rows


def _metrics() -> list[Row]:
    # The benches declare their metrics when they are imported.
    from seatrial.benches import registry
    from seatrial.model.metric import METRICS

    registry.names()
    return [
        {
            "metric": metric.name,
            "unit": metric.unit,
            "better": metric.direction.value,
            "meaning": metric.meaning,
        }
        for metric in METRICS.values()
    ]


def _presets() -> list[Row]:
    from seatrial.config.load import PRESETS, preset_text

    # The first line of a preset is a comment that says what it is for.
    return [
        {"preset": name, "meaning": preset_text(name).splitlines()[0].removeprefix("#").strip()}
        for name in PRESETS
    ]


KINDS: Mapping[str, Callable[[], list[Row]]] = {
    "drivers": _drivers,
    "benches": _benches,
    "metrics": _metrics,
    "presets": _presets,
}
