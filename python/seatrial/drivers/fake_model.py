"""The model behind the fake driver: laws of durations, rates of failures, and the seeded draws.

Pure: the same model gives the same scripts in the same order, whatever the clock says.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from seatrial.drivers.options import OptionError, unknown_option
from seatrial.errors import UnitError

if TYPE_CHECKING:
    from seatrial.model.scalar import Scalar

LAW_FORMS: Final = "constant:5ms, exponential:5ms or lognormal:5ms:0.2"
MS: Final = 1_000_000
US: Final = 1_000
PROBE_COSTS_NS: Final[Mapping[str, int]] = {
    "syscall": 100,
    "page-fault": 500,
    "file-write": 20_000,
    "file-read": 10_000,
    "fork": 60_000,
    "fork-exec": 200_000,
    "memory-copy": 4_000_000,
}


class LawName(StrEnum):
    """Shapes of a duration's distribution."""

    CONSTANT = "constant"
    EXPONENTIAL = "exponential"
    LOGNORMAL = "lognormal"


class Fate(StrEnum):
    """What becomes of a start."""

    COMES_UP = "comes-up"
    SPAWN_FAILS = "spawn-fails"
    EXITS_EARLY = "exits-early"
    HANGS = "hangs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Law:
    """A distribution of durations.

    ``scale_ns`` is the value (constant), the mean (exponential) or the median (lognormal);
    ``sigma`` is the standard deviation of the logarithm, for lognormal only.
    """

    name: LawName = LawName.CONSTANT
    scale_ns: int = 0
    sigma: float = 0.0

    def draw(self, source: random.Random) -> int:
        """Give one duration (ns); every law takes one draw, so that laws can be swapped."""
        uniform = source.random()
        if self.name is LawName.EXPONENTIAL:
            return round(-self.scale_ns * math.log1p(-uniform))
        if self.name is LawName.LOGNORMAL:
            return round(self.scale_ns * math.exp(self.sigma * _normal_quantile(uniform)))
        return self.scale_ns

    def quantile(self, q: float) -> float:
        """Give the exact q-quantile (ns), 0 < q < 1: the truth that a chain has to recover."""
        if self.name is LawName.EXPONENTIAL:
            return -self.scale_ns * math.log1p(-q)
        if self.name is LawName.LOGNORMAL:
            return self.scale_ns * math.exp(self.sigma * _normal_quantile(q))
        return float(self.scale_ns)


def _normal_quantile(q: float) -> float:
    from statistics import NormalDist

    # The source may draw an exact 0, whose quantile is minus infinity.
    return NormalDist().inv_cdf(min(max(q, 1e-12), 1 - 1e-12))


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeModel:
    """How fake sandboxes behave; ratios are probabilities of each start, drawn apart."""

    seed: int = 0
    launch_lag: Law = Law(scale_ns=20 * US)
    start: Law = Law(name=LawName.LOGNORMAL, scale_ns=5 * MS, sigma=0.2)
    """From invocation to first byte, alone on the machine."""
    hello_ns: int = 10 * US
    ready_ns: int = 200 * US
    reply_ns: int = 50 * US
    stop: Law = Law(scale_ns=1 * MS)
    gone: Law = Law(scale_ns=2 * MS)
    """From the exit to nothing being left."""
    cpu: Law = Law(scale_ns=3 * MS)
    processors: int = 2
    """Starts beyond that many at once wait; 0: none ever waits."""
    first_start_ratio: float = 1.0
    """The session's first start takes this many times as long."""
    drift_ratio: float = 0.0
    """Each start takes this much longer than the one before, relative to the first."""
    spawn_failure_ratio: float = 0.0
    early_exit_ratio: float = 0.0
    hang_ratio: float = 0.0
    leak_ratio: float = 0.0
    memory_bytes: int = 4 << 20
    launcher_cpu_ns: int = 100 * US
    server: str = "fake://?workers=1&service=constant:100us"
    """What the load engine models when it is pointed at a fake sandbox."""
    probe_costs_ns: Mapping[str, int] = field(default_factory=lambda: dict(PROBE_COSTS_NS))

    def queue_ns(self, script: Script, position: int) -> int:
        """Give how long the start at a position of a batch waits for a processor (ns)."""
        if self.processors <= 0:
            return 0
        return (position // self.processors) * script.start_ns

    def describe(self) -> str:
        """Give the model's main laws as a flag of the session."""
        return f"{self.start.name}:{self.start.scale_ns}ns sigma={self.start.sigma:g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The life of one fake sandbox, drawn before it begins."""

    number: int
    seed: int
    fate: Fate
    launch_lag_ns: int
    start_ns: int
    hello_ns: int
    ready_ns: int
    reply_ns: int
    stop_ns: int
    gone_ns: int
    cpu_ns: int
    leaks: bool


class Draws:
    """Scripts of a model, one after another; each kind of draw has a stream of its own."""

    def __init__(self, model: FakeModel, *, seed: int = 0) -> None:
        """Seed the streams, by the model and by the trial: no two trials draw the same."""
        self._model = model
        self._count = 0
        names = ("launch_lag", "start", "stop", "gone", "cpu", "fate", "leak")
        # One stream each, so that a higher failure rate leaves the latencies as they were.
        self._streams = {name: random.Random(f"{model.seed}/{seed}/{name}") for name in names}

    def next(self) -> Script:
        """Draw the next sandbox's life."""
        model = self._model
        number, self._count = self._count, self._count + 1
        factor = (model.first_start_ratio if number == 0 else 1.0) + model.drift_ratio * number
        return Script(
            number=number,
            seed=model.seed * 1_000_003 + number,
            fate=self._fate(),
            launch_lag_ns=self._draw("launch_lag", model.launch_lag),
            start_ns=round(self._draw("start", model.start) * factor),
            hello_ns=model.hello_ns,
            ready_ns=model.ready_ns,
            reply_ns=model.reply_ns,
            stop_ns=self._draw("stop", model.stop),
            gone_ns=self._draw("gone", model.gone),
            cpu_ns=self._draw("cpu", model.cpu),
            leaks=self._streams["leak"].random() < model.leak_ratio,
        )

    def _draw(self, stream: str, law: Law) -> int:
        return law.draw(self._streams[stream])

    def _fate(self) -> Fate:
        model = self._model
        at = self._streams["fate"].random()
        for fate, ratio in (
            (Fate.SPAWN_FAILS, model.spawn_failure_ratio),
            (Fate.EXITS_EARLY, model.early_exit_ratio),
            (Fate.HANGS, model.hang_ratio),
        ):
            if at < ratio:
                return fate
            at -= ratio
        return Fate.COMES_UP


def model_from_options(model: FakeModel, options: Mapping[str, Scalar]) -> FakeModel:
    """Give the model with what ``[driver.fake]`` says; laws are texts like ``lognormal:5ms:0.2``.

    Raises:
        ConfigError: an option is unknown or has no meaning.
    """
    known = {one.name: getattr(model, one.name) for one in fields(model)}
    changes: dict[str, object] = {}
    for name, value in options.items():
        current = known.get(name)
        if name not in known or isinstance(current, Mapping):
            names = (n for n, v in known.items() if not isinstance(v, Mapping))
            raise unknown_option(f"driver.fake.{name}", names)
        changes[name] = _converted(name, value, current)
    return replace(model, **changes)  # type: ignore[arg-type]  # each value was converted to its field's type


def _converted(name: str, value: Scalar, current: object) -> object:
    if isinstance(current, Law):
        return parse_law(str(value), where=f"driver.fake.{name}")
    if isinstance(current, str) and isinstance(value, str):
        return value
    if name.endswith("_ns") and isinstance(value, str):
        from seatrial.units import parse_duration_ns

        try:
            return parse_duration_ns(value)
        except UnitError as error:
            expected = "expected a duration such as '2ms'"
            raise OptionError(f"driver.fake.{name}", expected, value=value) from error
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if is_number and isinstance(current, float):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool) and not name.endswith("_ns"):
        return value
    expected = "a duration such as '2ms'" if name.endswith("_ns") else type(current).__name__
    raise OptionError(f"driver.fake.{name}", f"expected {expected}", value=value)


def parse_law(text: str, *, where: str) -> Law:
    """Read ``constant:5ms``, ``exponential:5ms`` or ``lognormal:5ms:0.2``.

    Raises:
        ConfigError: it is none of these.
    """
    from seatrial.units import parse_duration_ns

    words = text.split(":")
    count = 3 if words[0] == LawName.LOGNORMAL else 2
    problem = OptionError(where, f"expected {LAW_FORMS}", value=text)
    if len(words) != count:
        raise problem
    try:
        sigma = float(words[2]) if count > 2 else 0.0  # noqa: PLR2004 - lognormal has a third word
        return Law(name=LawName(words[0]), scale_ns=parse_duration_ns(words[1]), sigma=sigma)
    except ValueError as error:
        raise problem from error
