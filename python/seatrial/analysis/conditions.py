"""Under which conditions numbers were taken, and in which of them two sides differ.

A difference between two numbers is a difference of what was compared only if nothing else differed.
What is known about a cell's conditions is in the manifest: the machine, the settings of the bench,
the flags and the version of the driver, and for imported runs what stood beside the logs.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Final

from seatrial.model.codec import encode
from seatrial.model.experiment import BENCHES
from seatrial.model.finding import Finding, Severity
from seatrial.model.fingerprint import IDENTITY_FACTS
from seatrial.model.summary import Confounder

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from seatrial.model.summary import Cell
    from seatrial.store.manifest import Manifest

#: Settings that are axes: a point that both sides have is the same, whatever else was swept.
SWEPT: Final[Mapping[str, frozenset[str]]] = {
    "start": frozenset({"concurrency", "background_counts", "caches"}),
    "density": frozenset({"count", "memory_bytes"}),
    "fleet": frozenset({"layouts", "counts", "demands", "rates_rps"}),
    "rpc": frozenset({"modes", "threads", "clients"}),
    "inside": frozenset({"tests", "fio_variants"}),
}


def confounders(
    before: Manifest, after: Manifest, *, pairs: Mapping[str, str]
) -> tuple[Confounder, ...]:
    """Returns every condition in which the two sides differ, the widest first.

    Args:
        before: The older side.
        after: The newer side.
        pairs: Drivers that are compared, those of ``before`` to those of ``after``. What two
            different drivers are (flags, version) is what is compared, and no confounder.
    """
    found = [
        Confounder(name=name, before=old, after=new)
        for name, old, new in _differing(_machine(before), _machine(after))
    ]
    for bench in BENCHES:
        sides = [_settings(one, bench) for one in (before, after)]
        if all(sides):
            found += [
                Confounder(name=f"{bench}.{name}", bench=bench, before=old, after=new)
                for name, old, new in _differing(*sides)
            ]
    for one, two in sorted(pairs.items()):
        if one not in before.plan.drivers or two not in after.plan.drivers:
            continue
        label = one if one == two else f"{one} -> {two}"
        if one == two:
            flags = [dict(side.driver_flags.get(one, {})) for side in (before, after)]
            found += [
                Confounder(name=f"flag.{name}", driver=label, before=old, after=new)
                for name, old, new in _differing(*flags)
            ]
        for bench in dict.fromkeys((*_benches(before), *_benches(after))):
            known = [
                dict(side.conditions.get(f"{bench} {name}", {}))
                for side, name in ((before, one), (after, two))
            ]
            if any(known):
                found += [
                    Confounder(name=name, bench=bench, driver=label, before=old, after=new)
                    for name, old, new in _differing(*known)
                ]
    return _without_repetition(found)


def _benches(manifest: Manifest) -> tuple[str, ...]:
    return manifest.plan.experiment.benches


def _without_repetition(found: Iterable[Confounder]) -> tuple[Confounder, ...]:
    """What holds for the whole machine needs not be told of a driver again, such as the kernel."""
    kept: list[Confounder] = []
    for one in found:
        is_told = any(
            (other.name, other.before, other.after) == (one.name, one.before, one.after)
            and other.bench is None
            and other.driver is None
            for other in kept
        )
        if not is_told:
            kept.append(one)
    return tuple(kept)


def _machine(manifest: Manifest) -> dict[str, object]:
    facts: dict[str, object] = {
        name: manifest.fingerprint.facts.get(name) for name in IDENTITY_FACTS
    }
    return {**facts, "network": manifest.plan.experiment.network.value}


def _settings(manifest: Manifest, bench: str) -> dict[str, object]:
    settings = getattr(manifest.plan.experiment, bench)
    if settings is None:
        return {}
    written = encode(settings)
    swept = SWEPT.get(bench, frozenset())
    if not isinstance(written, dict):
        return {}
    return {name: value for name, value in written.items() if name not in swept}


def _differing(
    before: Mapping[str, object], after: Mapping[str, object]
) -> list[tuple[str, str, str]]:
    return [
        (name, _text(before.get(name)), _text(after.get(name)))
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def _text(value: object) -> str:
    return "unknown" if value is None else str(value)


def inside_run(manifest: Manifest) -> tuple[Confounder, ...]:
    """Returns in which conditions drivers of one run differ from its baseline.

    Trials of ours share machine and settings; imported ones were taken whenever it was.
    """
    baseline = manifest.plan.experiment.baseline
    found: list[Confounder] = []
    for driver in manifest.plan.drivers:
        if driver != baseline:
            found += confounders(manifest, manifest, pairs={baseline: driver})
    return tuple(found)


def confounded_findings(found: Sequence[Confounder], *, baseline: str) -> list[Finding]:
    """Returns a finding for each driver and bench that differ from the baseline in conditions."""
    groups: dict[tuple[str | None, str | None], list[Confounder]] = {}
    for one in found:
        groups.setdefault((one.driver, one.bench), []).append(one)
    return [
        Finding(
            code="confounded",
            severity=Severity.WARNING,
            message=f"{bench}: {driver} was measured under other conditions than {baseline}: "
            + ", ".join(f"{one.name} {one.after} and not {one.before}" for one in members),
            driver=_driver_of(driver),
        )
        for (driver, bench), members in groups.items()
    ]


def mark_confounded(cells: Sequence[Cell], found: Sequence[Confounder]) -> tuple[Cell, ...]:
    """Returns the cells, those whose ratio compares unequal conditions marked."""
    places = {(one.bench, _driver_of(one.driver)) for one in found}
    return tuple(
        dataclasses.replace(cell, marks=(*cell.marks, "confounded"))
        if cell.ratio is not None and (cell.bench, cell.driver) in places
        else cell
        for cell in cells
    )


def _driver_of(label: str | None) -> str | None:
    return None if label is None else label.rpartition(" -> ")[2]
