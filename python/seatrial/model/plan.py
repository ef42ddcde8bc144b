"""What will run: every trial, in order, with its seed. Equal plans have equal hashes."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from seatrial.model.experiment import Experiment
from seatrial.model.scalar import Scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One combination of a bench's axes, such as ``start`` at ``{"concurrency": 8}``."""

    bench: str
    values: Mapping[str, Scalar] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """A text that names the point uniquely, the same in every run: ``start concurrency=8``."""
        axes = (f"{name}={_text(self.values[name])}" for name in sorted(self.values))
        return " ".join((self.bench, *axes))

    def __hash__(self) -> int:
        """Hash by the key, since a mapping has no hash of its own."""
        return hash(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One trial of the plan: one point on one driver in one block."""

    # "t0001", "t0002"...: of fixed width, in the order of execution.
    trial_id: str
    index: int
    block: int
    driver: str
    point: Point
    # The same for every driver at the same point of the same block: what is compared across
    # drivers then saw the same arrivals and the same demands.
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """An experiment with its drivers named, its axes expanded and its order fixed."""

    experiment: Experiment
    trials: tuple[TrialSpec, ...]
    seed: int
    # SHA-256 over everything that defines the plan, as 64 hexadecimal digits.
    plan_hash: str
    # How long the whole plan will take, roughly; not a part of the hash.
    estimated_ns: int

    @property
    def drivers(self) -> tuple[str, ...]:
        """The drivers, as the experiment lists them."""
        return self.experiment.drivers

    @property
    def points(self) -> tuple[Point, ...]:
        """The different points, benches in their usual order and values growing."""
        benches = self.experiment.benches
        unique = {trial.point for trial in self.trials}
        return tuple(sorted(unique, key=lambda point: (benches.index(point.bench), _rank(point))))


def _rank(point: Point) -> tuple[tuple[str, float, str], ...]:
    # Numbers sort as numbers and texts as texts, under one key that compares with itself.
    return tuple(
        (name, float("-inf"), value) if isinstance(value, str) else (name, float(value), "")
        for name, value in sorted(point.values.items())
    )


def _text(value: Scalar) -> str:
    return f"{value:g}" if isinstance(value, float) and value == int(value) else str(value)
