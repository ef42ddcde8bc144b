"""Makes an experiment smaller, or larger, for the machine at hand: ``--scale 0.05``, or ``auto``.

Counts of sandboxes and amounts of work are multiplied and rounded to values that a reader keeps in
mind; rounds, repeats, blocks, memory limits and everything else stay. What was changed is kept in
the experiment, so a plan and a run say it. Pure.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Final, TypeVar

from seatrial.config.fields import SANDBOXES_MAX
from seatrial.errors import ConfigError
from seatrial.model.experiment import Experiment, Scaling
from seatrial.units import MIB, NS_PER_MS, NS_PER_S, format_bytes, format_duration

#: Factors beyond these are a slip of the pen.
FACTOR_MIN: Final = 0.001
FACTOR_MAX: Final = 100.0
AUTO: Final = "auto"

#: Leading digits of a rounded count; whole multiples only, so 15 and not 1.5.
LEADING: Final = (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0)
#: Counts of sandboxes, by bench; each may be a list.
COUNTS: Final[Mapping[str, tuple[str, ...]]] = {
    "start": ("concurrency", "background_counts"),
    "density": ("count",),
}
#: Keys of the file that are called otherwise than the settings that they become.
KEYS: Final[Mapping[str, str]] = {"background_counts": "background_count"}
#: Amounts of work, by setting of the bench ``inside``, each with the least that measures anything.
WORK: Final[Mapping[str, int]] = {
    "dd_count": 1 << 14,
    "fio_size_bytes": 16 * MIB,
    "download_bytes": MIB,
}
#: Lengths of work, likewise.
LENGTHS: Final[Mapping[str, int]] = {"fio_duration_ns": NS_PER_S, "network_duration_ns": NS_PER_S}

SettingsT = TypeVar("SettingsT")


def read_factor(
    text: str, experiment: Experiment, *, processors_count: int, memory_bytes: int
) -> float:
    """Gives the factor that ``--scale`` asks for.

    ``auto`` is the smaller of this machine's processors and memory over those that the experiment
    is sized for, at most 1, rounded down to two digits.

    Raises:
        ConfigError: it is neither ``auto`` nor a number within bounds, or the experiment does not
            tell what machine it is sized for.
    """
    if text == AUTO:
        return _auto(experiment, processors_count=processors_count, memory_bytes=memory_bytes)
    try:
        factor = float(text)
    except ValueError:
        factor = math.nan
    if not FACTOR_MIN <= factor <= FACTOR_MAX:
        raise ConfigError(
            f"--scale {text}; expected {AUTO}, or a number from {FACTOR_MIN:g} to {FACTOR_MAX:g}",
            hint="0.05 makes 20 of 400 sandboxes",
            code="scale",
        )
    return factor


def _auto(experiment: Experiment, *, processors_count: int, memory_bytes: int) -> float:
    wanted = experiment.sized_for
    if wanted is None:
        raise ConfigError(
            f"{experiment.name} does not tell for what machine its counts are",
            hint="give a number such as --scale 0.5, or a table [sized_for] with processors and "
            "memory",
            code="scale",
        )
    exact = min(
        1.0,
        processors_count / wanted.processors_count,
        memory_bytes / wanted.memory_bytes,
    )
    step = 10.0 ** (math.floor(math.log10(exact)) - 1)
    return max(FACTOR_MIN, float(f"{math.floor(exact / step + 1e-9) * step:.2g}"))


def scaled(experiment: Experiment, factor: float) -> Experiment:
    """Gives the experiment with its counts and amounts multiplied, and what was changed.

    Raises:
        ConfigError: nothing in it can be scaled.
    """
    changes: list[str] = []
    benches: dict[str, object] = {}
    for bench, names in COUNTS.items():
        settings = getattr(experiment, bench)
        if settings is not None:
            new = {name: _counts(getattr(settings, name), factor) for name in names}
            benches[bench] = _changed(settings, new, bench, changes)
    if experiment.density is not None and experiment.density.bound is not None:
        bound = experiment.density.bound
        largest = {"count": _count(bound.count, factor)}
        changed = _changed(bound, largest, "density.largest", changes)
        density = benches["density"]
        benches["density"] = dataclasses.replace(density, bound=changed)  # type: ignore[type-var]  # settings are dataclasses
    if experiment.inside is not None:
        inside = experiment.inside
        work = {
            **{name: _power(getattr(inside, name), factor, least) for name, least in WORK.items()},
            **{
                name: _length(getattr(inside, name), factor, least)
                for name, least in LENGTHS.items()
            },
        }
        benches["inside"] = _changed(inside, work, "inside", changes)
    if not benches:
        raise ConfigError(
            f"nothing in {experiment.name} can be scaled; expected one of [start], [density] or "
            "[inside]",
            hint="leave --scale out, and change the file",
            code="scale",
        )
    scaling = Scaling(factor=factor, changes=tuple(changes))
    return dataclasses.replace(experiment, scaling=scaling, **benches)  # type: ignore[arg-type]  # each is of its field's type


def _changed(
    settings: SettingsT, new: Mapping[str, object], place: str, changes: list[str]
) -> SettingsT:
    for name, value in new.items():
        old = getattr(settings, name)
        if old != value:
            shown = [_text(name, one) for one in (old, value)]
            key = KEYS.get(name, name.removesuffix("_bytes").removesuffix("_ns"))
            changes.append(f"{place}.{key}: {shown[0]} -> {shown[1]}")
    return dataclasses.replace(settings, **new)  # type: ignore[type-var]  # settings are dataclasses


def _text(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, int) and name.endswith("_bytes"):
        return format_bytes(value)
    if isinstance(value, int) and name.endswith("_ns"):
        return format_duration(value)
    return str(value)


def _counts(values: Sequence[int], factor: float) -> tuple[int, ...]:
    """Scales a sweep; values that become one are one point. What was 0 or 1 stays."""
    return tuple(dict.fromkeys(_count(value, factor) for value in values))


def _count(value: int, factor: float) -> int:
    if value <= 1 or factor == 1:
        return value
    exact = min(value * factor, SANDBOXES_MAX)
    if exact <= 1:
        return 1
    power = 10.0 ** math.floor(math.log10(exact))
    choices = [lead * size for size in (power, power * 10) for lead in LEADING]
    whole = [round(one) for one in choices if one >= 1 and one == round(one)]
    return min(whole, key=lambda one: abs(math.log(one / exact)))


def _power(value: int, factor: float, least: int) -> int:
    """Scales an amount to a power of two; never below the least unless it was."""
    if factor == 1:
        return value
    exact = max(value * factor, min(value, least))
    return min(value, least) if exact <= least else 1 << round(math.log2(exact))


def _length(value_ns: int, factor: float, least_ns: int) -> int:
    """Scales a length to tenths of a second."""
    if factor == 1:
        return value_ns
    tenth = 100 * NS_PER_MS
    return max(round(value_ns * factor / tenth) * tenth, min(value_ns, least_ns))
