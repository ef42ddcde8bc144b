"""Reads an experiment file or a preset, and reports all its mistakes at once.

Checks what can be known without the machine: spelling, types, units, bounds, and whether the parts
fit together. Whether a driver works here is ``seatrial doctor``'s business.
"""

import dataclasses
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Final, TypeAlias

from pydantic import TypeAdapter, ValidationError

from seatrial.config.across import fleet_problems, inside_problems, load_problems, rpc_problems
from seatrial.config.changes import changed_keys, merge_changes
from seatrial.config.problems import (
    BY_OPTION,
    Problem,
    did_you_mean,
    line_of,
    lines_of,
    problems_of,
    unknown,
)
from seatrial.config.written import (
    WrittenDensity,
    WrittenExperiment,
    WrittenFleet,
    WrittenInside,
    WrittenLoad,
    WrittenNetwork,
    WrittenRpc,
    WrittenSizedFor,
    WrittenStart,
)
from seatrial.errors import ConfigError
from seatrial.model.experiment import (
    AVAILABLE,
    BENCHES,
    OWN_BACKGROUND,
    Experiment,
    LoadSettings,
)
from seatrial.model.scalar import Scalar
from seatrial.units import MIB, format_bytes

# The presets, in the order in which they are listed; each is a file in `presets/`.
PRESETS: Final = (
    "quick",
    "start",
    "density",
    "load",
    "inside",
    "kata-lancet",
    "rpc-stress",
    "rund-time",
    "rund-mem",
    "rund-density",
    "gvisor-kata",
)
FILE_BYTES_MAX: Final = MIB

_TABLES: Final[Mapping[str, type]] = {
    "": WrittenExperiment,
    "network": WrittenNetwork,
    "sized_for": WrittenSizedFor,
    "start": WrittenStart,
    "density": WrittenDensity,
    "load": WrittenLoad,
    "fleet": WrittenFleet,
    "rpc": WrittenRpc,
    "inside": WrittenInside,
}
# Gives key and text of all that the load engine refuses in `[load]`: the table as it was written,
# and the settings unless something else is wrong.
LoadCheck: TypeAlias = Callable[
    [Mapping[str, object], LoadSettings | None], Iterable[tuple[str, str]]
]
# Gives key and text of all that a driver refuses in its `[driver.NAME]`.
OptionsCheck: TypeAlias = Callable[[str, Mapping[str, Scalar]], Iterable[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The text of an experiment, and where it came from."""

    # A path as the user wrote it, or the name of a preset.
    name: str
    text: str
    is_preset: bool
    # Values that replace those of the text, as ``KEY=VALUE``.
    changes: tuple[str, ...] = ()

    @property
    def whole_text(self) -> str:
        """The text, with what was changed in it as comments at its end."""
        if not self.changes:
            return self.text
        return "\n".join(
            [self.text.rstrip("\n"), "", *(f"# --set {one}" for one in self.changes), ""]
        )


def preset_text(name: str) -> str:
    """Give the TOML text of a preset.

    Raises:
        ConfigError: there is no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(unknown("preset", name, PRESETS), code="preset-unknown")
    return resources.files("seatrial.config").joinpath("presets", f"{name}.toml").read_text("utf-8")


def read_source(source: str | Path) -> Source:
    """Read an experiment file, or a preset when ``source`` is the name of one.

    A file named like a preset is reached as ``./quick``.

    Raises:
        ConfigError: there is no such file or preset, or it cannot be read as text.
    """
    if isinstance(source, str) and source in PRESETS:
        return Source(name=source, text=preset_text(source), is_preset=True)
    path = Path(source)
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            raise ConfigError(
                f"{path}: larger than {format_bytes(FILE_BYTES_MAX)}: no experiment",
                code="file-too-large",
            )
        text = path.read_text("utf-8")
    except FileNotFoundError as error:
        guess = did_you_mean(str(source), PRESETS)
        message = f'no file and no preset is called "{source}"{guess}'
        hint = f"give a TOML file or one of the presets: {', '.join(PRESETS)}"
        raise ConfigError(message, hint=hint, code="file-missing") from error
    except UnicodeDecodeError as error:
        message = f"{path}: not UTF-8 text (byte {error.start}); an experiment is a TOML file"
        raise ConfigError(message, code="file-encoding") from error
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}", code="file-unreadable") from error
    return Source(name=str(source), text=text, is_preset=False)


def load_experiment(
    source: str | Path, *, known_drivers: Sequence[str], check_load: LoadCheck | None = None
) -> Experiment:
    """Read and check an experiment file or preset.

    ``known_drivers`` are the names that a file may use, ``check_load`` says what the load engine
    refuses (``seatrial.benches.load_request.check_load``): this package knows neither drivers nor
    the engine itself. Without it the texts of laws are taken as they are.

    Raises:
        ConfigError: with every mistake that was found, one a line.
    """
    return parse_experiment(read_source(source), known_drivers=known_drivers, check_load=check_load)


def parse_experiment(
    source: Source,
    *,
    known_drivers: Sequence[str],
    check_load: LoadCheck | None = None,
    check_options: OptionsCheck | None = None,
    are_drivers_replaced: bool = False,
) -> Experiment:
    """Check the text of an experiment; see ``load_experiment``.

    ``check_options`` says what a driver refuses (``seatrial.drivers.registry.option_problems``).
    ``are_drivers_replaced``: others are to take the place of the text's drivers or of its baseline,
    so that these need not fit together.

    Raises:
        ConfigError: with every mistake that was found, one a line.
    """
    try:
        raw = tomllib.loads(source.text)
    except tomllib.TOMLDecodeError as error:
        # The parser's message ends in "(at line 3, column 5)".
        raise ConfigError(f"{source.name}: no valid TOML: {error}", code="toml") from error
    raw = merge_changes(raw, source.changes)
    lines = lines_of(source.text) | dict.fromkeys(changed_keys(source.changes), BY_OPTION)
    written: WrittenExperiment | None = None
    problems: list[Problem] = []
    try:
        written = TypeAdapter(WrittenExperiment).validate_python(raw)
    except ValidationError as error:
        keys_of = {
            path: tuple(field.name for field in dataclasses.fields(table))
            for path, table in _TABLES.items()
        }
        problems += problems_of(error, keys_of=keys_of, lines=lines)
    # The checks across keys read the raw file, so that they run even when a type was wrong. Plans
    # are made of whole settings, and only when everything else is right.
    problems += _new(_refused(raw, None, check_load), problems, lines)
    problems += _new(_across(raw, known_drivers), problems, lines)
    if not are_drivers_replaced:
        problems += _new(_baseline_problems(raw, known_drivers), problems, lines)
    if check_options is not None:
        problems += _new(_option_problems(raw, known_drivers, check_options), problems, lines)
    if not problems:
        problems += _new(_refused(raw, _settings(written), check_load), problems, lines)
    if written is None or problems:
        raise _error(source, problems)
    return written.resolve()


def _new(
    found: Iterable[Problem], problems: Sequence[Problem], lines: Mapping[str, int]
) -> list[Problem]:
    """Give what was found at keys that nothing is wrong with yet, with their lines."""
    faulty = {problem.key for problem in problems}
    return [
        dataclasses.replace(problem, line=line_of(problem.key, lines))
        for problem in found
        if problem.key not in faulty
    ]


def _settings(written: WrittenExperiment | None) -> LoadSettings | None:
    return None if written is None or written.load is None else written.load.resolve()


def _refused(
    raw: Mapping[str, object], settings: LoadSettings | None, check_load: LoadCheck | None
) -> list[Problem]:
    """Find what the load engine refuses."""
    load, fleet = raw.get("load"), raw.get("fleet")
    found: list[Problem] = []
    if check_load is None:
        return found
    if isinstance(load, Mapping):
        found += [
            Problem(key=f"load.{name}" if name else "load", message=message)
            for name, message in check_load(load, settings)
        ]
    demands = fleet.get("demands") if isinstance(fleet, Mapping) else None
    for number, demand in enumerate(demands if isinstance(demands, list) else ()):
        found += [
            Problem(key=f"fleet.demands[{number}]", message=message)
            for _, message in check_load({"demand": demand}, None)
        ]
    return found


def _error(source: Source, problems: Sequence[Problem]) -> ConfigError:
    ordered = sorted(problems, key=lambda problem: (problem.line or 0, problem.key))
    texts = [problem.text(source.name) for problem in ordered]
    if len(texts) > 1:
        texts.insert(0, f"{source.name}: {len(texts)} mistakes")
    return ConfigError(
        "\n".join(texts),
        hint="docs/experiments.md explains every key; 'seatrial plan quick' shows a preset",
        code="experiment",
    )


def _across(raw: Mapping[str, object], known_drivers: Sequence[str]) -> Iterator[Problem]:
    """Find what is wrong between keys, in a file whose types may be wrong as well."""
    if not any(bench in raw for bench in BENCHES):
        tables = ", ".join(f"[{bench}]" for bench in BENCHES)
        yield Problem(key="", message=f"no bench asked for; expected at least one of {tables}")
    yield from _driver_problems(raw, known_drivers)
    load = raw.get("load")
    if isinstance(load, Mapping):
        yield from load_problems(load)
    fleet = raw.get("fleet")
    if isinstance(fleet, Mapping):
        yield from fleet_problems(fleet)
    rpc = raw.get("rpc")
    if isinstance(rpc, Mapping):
        yield from rpc_problems(rpc)
    inside = raw.get("inside")
    if isinstance(inside, Mapping):
        yield from inside_problems(inside)


def _driver_problems(raw: Mapping[str, object], known: Sequence[str]) -> Iterator[Problem]:
    drivers = raw.get("drivers", AVAILABLE)
    named = drivers if isinstance(drivers, list) else []
    for index, name in enumerate(named):
        if isinstance(name, str) and name not in known:
            yield Problem(key=f"drivers[{index}]", message=unknown("driver", name, known))
    start = raw.get("start")
    background = start.get("background", OWN_BACKGROUND) if isinstance(start, Mapping) else None
    if isinstance(background, str) and background not in (*known, OWN_BACKGROUND):
        yield Problem(
            key="start.background",
            message=unknown("driver", background, (*known, OWN_BACKGROUND)),
        )
    baseline = raw.get("baseline")
    if isinstance(baseline, str) and baseline not in known:
        yield Problem(key="baseline", message=unknown("driver", baseline, known))
    options = raw.get("driver")
    for name in options if isinstance(options, Mapping) else ():
        if name not in known:
            yield Problem(key=f"driver.{name}", message=unknown("driver", str(name), known))


def _baseline_problems(raw: Mapping[str, object], known: Sequence[str]) -> Iterator[Problem]:
    drivers = raw.get("drivers", AVAILABLE)
    named = drivers if isinstance(drivers, list) else []
    usual = next(
        one.default for one in dataclasses.fields(WrittenExperiment) if one.name == "baseline"
    )
    baseline = raw.get("baseline", usual)
    if not named or not all(isinstance(name, str) for name in named) or baseline in named:
        return
    if "baseline" in raw:
        message = f'"{baseline}" is not among the drivers; expected one of {", ".join(named)}'
    else:
        mend = next((name for name in named if name in known), named[0])
        message = (
            f'none is given, and the default "{baseline}" is not among the drivers; expected one '
            f'of {", ".join(named)}: write baseline = "{mend}", or give --baseline {mend}'
        )
    yield Problem(key="baseline", message=message)


def _option_problems(
    raw: Mapping[str, object], known: Sequence[str], check: OptionsCheck
) -> Iterator[Problem]:
    tables = raw.get("driver")
    for name, options in tables.items() if isinstance(tables, Mapping) else ():
        if name in known and isinstance(options, Mapping):
            # Lists and tables are reported as what they are: no values of options.
            judged = {key: value for key, value in options.items() if isinstance(value, Scalar)}
            for key, message in check(name, judged):
                yield Problem(key=key, message=message)
