"""Experiment files: every mistake at once, each with its place and what belongs there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.benches.load_request import check_load, request_of
from seatrial.config.expand import points_of, points_of_load
from seatrial.config.load import PRESETS, Source, load_experiment, parse_experiment, read_source
from seatrial.errors import ConfigError
from seatrial.model.experiment import (
    AVAILABLE,
    INSIDE_PROBES,
    CacheState,
    DensityBound,
    NetworkMode,
    Operation,
)

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.model.experiment import Experiment

KNOWN = ("process", "lean", "runc", "runsc")

GOOD = """
name = "mine"
seed = 7
blocks = 4
baseline = "runc"
drivers = ["process", "runc"]
confidence = 0.9

[network]
mode = "veth"

[start]
concurrency = [1, 8]
rounds = 20
deadline = "2min"

[load]
connections = [1, 16]
rates = ["200/s", "1.5k/s"]
duration = "5s"
operation = "spin"
demand = "exponential:100us"
payload = "64KiB"

[driver.runsc]
platform = "systrap"
"""


def parse(text: str) -> Experiment:
    """Checks a text as if it were the file x.toml."""
    source = Source(name="x.toml", text=text, is_preset=False)
    return parse_experiment(source, known_drivers=KNOWN, check_load=check_load)


def mistakes(text: str) -> list[str]:
    """The lines of the error that a text provokes, without the heading."""
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert caught.value.hint is not None
    lines = str(caught.value).splitlines()
    return lines if len(lines) == 1 else lines[1:]


def check(rest: str, expected: str) -> None:
    """A file with one mistake in it gives exactly one line, which begins as expected."""
    (line,) = mistakes(f'name = "x"\n{rest}')
    assert line.startswith(expected), line


def test_a_good_file() -> None:
    """Every key arrives in the program's own units."""
    experiment = parse(GOOD)
    assert experiment.seed == 7
    assert experiment.drivers == ("process", "runc")
    assert experiment.network is NetworkMode.VETH
    assert experiment.benches == ("start", "load")
    assert experiment.start is not None
    assert experiment.start.deadline_ns == 120 * 10**9
    assert experiment.load is not None
    assert experiment.load.rates_rps == (200.0, 1500.0)
    assert experiment.load.operation is Operation.SPIN
    assert experiment.load.payload_bytes == 65536
    assert experiment.driver_options == {"runsc": {"platform": "systrap"}}


def test_storms_and_limits() -> None:
    """Caches, company, limits and the bound arrive in the program's own units."""
    experiment = parse(
        """name = "x"
[start]
cache = ["warm", "cold"]
background_count = [0, 100]
background = "runsc"
background_load = 0.05
control_window = "0s"
[density]
memory = ["none", "128MiB"]
largest = true
memory_reserve = "1GiB"
ready_limit = "2s"
largest_count = 50
"""
    )
    assert experiment.start is not None
    assert experiment.start.caches == (CacheState.WARM, CacheState.COLD)
    assert experiment.start.background_counts == (0, 100)
    assert (experiment.start.background, experiment.start.background_load_ratio) == ("runsc", 0.05)
    assert experiment.start.control_window_ns == 0
    assert experiment.density is not None
    assert experiment.density.memory_bytes == (None, 128 << 20)
    assert experiment.density.bound == DensityBound(
        count=50, memory_reserve_bytes=1 << 30, ready_ns=2_000_000_000
    )


def test_defaults() -> None:
    """A name and a bench are enough; the drivers are then those that work."""
    experiment = parse('name = "x"\n[inside]\n')
    assert experiment.drivers == (AVAILABLE,)
    assert experiment.wants_available_drivers
    assert experiment.inside is not None
    assert experiment.inside.probes == INSIDE_PROBES
    assert experiment.density is None


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_good(name: str) -> None:
    """Every preset is a good file that says in its first line what it is for."""
    source = read_source(name)
    assert source.is_preset
    assert source.text.startswith("# ")
    assert load_experiment(name, known_drivers=KNOWN, check_load=check_load).name == name


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("[start]\nround = 3", 'x.toml:3: start.round: unknown key (did you mean "rounds"?)'),
        ("colour = 1\n[start]", "x.toml:2: colour: unknown key; expected one of name, seed"),
        ("[start]\nrounds = 0", "x.toml:3: start.rounds: got 0; expected at least 1"),
        ("[start]\nrounds = true", "x.toml:3: start.rounds: got true; expected a whole number"),
        ("[start]\nrounds = 1.5", "x.toml:3: start.rounds: got 1.5; expected a whole number"),
        ("[start]\nconcurrency = 4", "x.toml:3: start.concurrency: got 4; expected a list"),
        ("[start]\nconcurrency = []", "x.toml:3: start.concurrency: got []; expected at least 1"),
        ("[start]\nconcurrency = [1,0]", "x.toml:3: start.concurrency[1]: got 0; expected at"),
        ("[start]\nconcurrency = [4,4]", "x.toml:3: start.concurrency: 4 twice; expected each"),
        ("[start]\nconcurrency = [99999]", "x.toml:3: start.concurrency[0]: got 99999; expected"),
        ("[start]\ndeadline = 10", "x.toml:3: start.deadline: got 10; expected a duration with"),
        ('[start]\ndeadline = "10"', 'x.toml:3: start.deadline: "10" has no unit; expected'),
        ('[start]\ndeadline = "0s"', 'x.toml:3: start.deadline: got "0s"; expected more than 0'),
        ('[start]\ndeadline = "2h"', 'x.toml:3: start.deadline: got "2h"; expected more than 0'),
        ("start = 3", "x.toml:2: start: got 3; expected a table"),
        ("[load]\nthreads = 65", "x.toml:3: load.threads: got 65; expected at most 64"),
        ("[load]\nworkers = 65", "x.toml:3: load.workers: got 65; expected at most 64"),
        (
            "[load]\nconnections = [8, 2]\nthreads = 4",
            "x.toml:4: load.threads: got 4; expected at most 2, the smallest of load.connections",
        ),
        (
            "[load]\nthreads = 2",
            "x.toml:3: load.threads: got 2; expected at most 1, the smallest of load.connections",
        ),
        (
            "[inside]\nbatches = 10001",
            "x.toml:3: inside.batches: got 10001; expected at most 10000",
        ),
        ("blocks = 0\n[start]", "x.toml:2: blocks: got 0; expected at least 1"),
        ("seed = -1\n[start]", "x.toml:2: seed: got -1; expected at least 0"),
        ("confidence = 95.0\n[start]", "x.toml:2: confidence: got 95.0; expected less than 1"),
        ('network.mode = "vet"\n[start]', 'x.toml:2: network.mode: got "vet" (did you mean "veth"'),
        ('baseline = "lean"\ndrivers = ["runc"]\n[start]', 'x.toml:2: baseline: "lean" is not'),
        (
            'drivers = ["process", "run"]\n[start]',
            'x.toml:2: drivers[1]: unknown driver "run" (did',
        ),
        ('drivers = "all"\n[start]', "x.toml:2: drivers: got 'all'; expected a list of driver"),
        ("drivers = []\n[start]", "x.toml:2: drivers: got []; expected a list of driver names"),
        ("drivers = [3]\n[start]", "x.toml:2: drivers[0]: got 3; expected a text in quotes"),
        ("[start]\n[driver.runk]\na = 1", 'x.toml:3: driver.runk: unknown driver "runk" (did you'),
        ("[start]\n[driver.runc]\na = [1]", "x.toml:4: driver.runc.a: got [1]; expected a text, a"),
        ('[load]\nrates = ["0/s"]', 'x.toml:3: load.rates[0]: got "0/s"; expected more than 0/s'),
        (
            "[load]\nrates = [200]",
            "x.toml:3: load.rates[0]: got 200; expected a rate with its unit",
        ),
        ('[load]\npayload = "2MiB"', 'x.toml:3: load.payload: got "2MiB"; expected at most 1.00'),
        ("[load]\npayload = 64", "x.toml:3: load.payload: got 64; expected a size with its unit"),
        ('[load]\ndemand = "gauss:1ms"', 'x.toml:3: load.demand: got "gauss:1ms"; expected none,'),
        ('[load]\noperation = "spin"', 'x.toml:2: load.demand: operation "spin" needs a demand'),
        ('[load]\ndemand = "constant:1ms"', 'x.toml:3: load.demand: operation "empty" takes no'),
        ('[inside]\nprobes = ["syscal"]', 'x.toml:3: inside.probes[0]: got "syscal" (did you mean'),
        ("blocks = 3", "x.toml: no bench asked for; expected at least one of [start], [density]"),
    ],
)
def test_one_mistake(rest: str, expected: str) -> None:
    """Each mistake gives one line: file, line, key, value, expectation."""
    check(rest, expected)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ('[start]\ncache = ["cool"]', 'x.toml:3: start.cache[0]: got "cool"'),
        ("[start]\nbackground_count = [-1]", "x.toml:3: start.background_count[0]: got -1"),
        ('[start]\nbackground = "runk"', 'x.toml:3: start.background: unknown driver "runk" (did'),
        ("[start]\nbackground_load = 1.5", "x.toml:3: start.background_load: got 1.5; expected at"),
        ('[density]\nmemory = ["1KiB"]', 'x.toml:3: density.memory[0]: got "1KiB"; expected 4.00'),
        ("[density]\nmemory = [64]", "x.toml:3: density.memory[0]: got 64; expected a size with"),
        ('[density]\nmemory_reserve = "none"', "x.toml:3: density.memory_reserve: "),
        ("[density]\nreadings = 0", "x.toml:3: density.readings: got 0; expected at least 1"),
    ],
)
def test_one_mistake_about_storms_and_limits(rest: str, expected: str) -> None:
    """As above, for what sandboxes are started beside and how much they may take."""
    check(rest, expected)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (
            '[load]\nrates = ["1/s"]\narrival = "poison"',
            'x.toml:4: load.arrival: got "poison"; expected fixed, poisson, uniform,',
        ),
        (
            '[load]\nrates = ["1/s"]\narrival = "lognormal:cv=-1"',
            'x.toml:4: load.arrival: got "lognormal:cv=-1"; expected lognormal:cv=CV, the',
        ),
        (
            '[load]\nrates = ["1/s"]\narrival = "trace:/nowhere"',
            'x.toml:4: load.arrival: got "trace:/nowhere"; expected trace:PATH',
        ),
        (
            '[load]\narrival = "fixed"',
            'x.toml:3: load.arrival: got "fixed" without an open loop; expected at least one of',
        ),
        (
            '[load]\nrates = ["1/s"]\npattern = "rampp"',
            'x.toml:4: load.pattern: got "rampp"; expected fixed, step:from=',
        ),
        (
            '[load]\nrates = ["1/s"]\npattern = "ramp:from=0,to=9,over=1s"',
            "x.toml:3: load.rates: rate_rps is 1, expected none, because this pattern has rates of",
        ),
        (
            '[load]\nthink = "1ms"',
            'x.toml:3: load.think: got "1ms"; expected none, constant:100us,',
        ),
        ('[load]\nwait = "sleep"', 'x.toml:3: load.wait: got "sleep"; expected block, hybrid or'),
        (
            '[load]\ntimestamps = "nic"',
            'x.toml:3: load.timestamps: got "nic"; expected user, kernel or hardware',
        ),
        ('[load]\nprotocol = "smtp"', 'x.toml:3: load.protocol: got "smtp"; expected one of rpc,'),
        ('[load]\nprotocol = "echo"', "x.toml:2: load.payload: payload_bytes is 0, expected at"),
        (
            '[load]\nprotocol = "echo"\npayload = "8B"\noperation = "touch"',
            "x.toml:5: load.operation: operation is 5, expected empty (0)",
        ),
        (
            '[load]\nprotocol = "http"\noperation = "checksum"',
            'x.toml:4: load.operation: got "checksum", which "http" does not have; expected',
        ),
        (
            '[load]\nreply_bytes = "1KiB"',
            'x.toml:3: load.reply_bytes: got it with operation "empty"; expected "checksum"',
        ),
        (
            "[load]\nconnections = [2]\nthreads = 2\noutstanding_max = 1",
            "x.toml:5: load.outstanding_max: outstanding_max is 1, expected at least one for each",
        ),
    ],
)
def test_one_thing_that_the_engine_refuses(rest: str, expected: str) -> None:
    """Laws and whole loads are checked by the engine, and told like any other mistake."""
    check(rest, expected)


def test_bad_names() -> None:
    """A name becomes part of paths, so it is plain; and it must be there."""
    assert mistakes('name = "a/b"\n[start]')[0].startswith('x.toml:1: name: got "a/b"; expected')
    assert mistakes("[start]\n") == ["x.toml: name: missing; expected a value"]


def test_all_mistakes_at_once() -> None:
    """Nothing is found only after something else was mended, not even between keys."""
    lines = mistakes(
        'nam = "x"\nblocks = 0\nbaseline = "proces"\n[start]\nconcurrency = [0]\n'
        '[load]\nrates = ["1"]\nduration = 5\noperation = "spin"\n'
    )
    keys = [line.split(": ")[1] for line in lines]
    assert keys == [
        "name",
        "nam",
        "blocks",
        "baseline",
        "start.concurrency[0]",
        "load.demand",
        "load.rates[0]",
        "load.duration",
    ]  # fmt: skip - one list


def test_malformed_toml_gives_line_and_column() -> None:
    """What is no TOML at all is reported with its place."""
    with pytest.raises(ConfigError, match=r"x\.toml: no valid TOML: .*line 2, column 8") as caught:
        parse('name = "x"\nseed = \n')
    assert caught.value.code == "toml"


def test_error_codes() -> None:
    """Programs can tell the kinds of trouble apart."""
    with pytest.raises(ConfigError) as caught:
        parse("")
    assert caught.value.code == "experiment"


def test_long_values_are_cut() -> None:
    """A message stays a line, whatever was written."""
    (line,) = mistakes(f'name = "x"\nblocks = "{"9" * 5000}"\n[start]')
    assert len(line) < 200


def test_a_file_is_read(tmp_path: Path) -> None:
    """A path works as text and as a path, and its text is kept as it is."""
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)
    assert load_experiment(path, known_drivers=KNOWN).name == "mine"
    assert read_source(str(path)).text == GOOD


def test_a_missing_file_suggests_a_preset() -> None:
    """A misspelt preset is the usual reason for a missing file."""
    with pytest.raises(ConfigError, match=r'"quik" \(did you mean "quick"\?\)') as caught:
        read_source("quik")
    assert caught.value.code == "file-missing"


def test_unknown_preset() -> None:
    """Asking for the text of a preset that is not there lists those that are."""
    from seatrial.config.load import preset_text

    with pytest.raises(ConfigError, match="expected one of quick, start") as caught:
        preset_text("slow")
    assert caught.value.code == "preset-unknown"


def test_files_that_are_no_text(tmp_path: Path) -> None:
    """A binary, a directory and a huge file are refused with a reason."""
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff\xfe\x00")
    huge = tmp_path / "huge"
    huge.write_bytes(b"#" * ((1 << 20) + 1))
    for path, code, part in [
        (binary, "file-encoding", "not UTF-8"),
        (tmp_path, "file-unreadable", "Is a directory"),
        (huge, "file-too-large", "larger than 1.00 MiB"),
    ]:
        with pytest.raises(ConfigError, match=part) as caught:
            read_source(path)
        assert caught.value.code == code


def test_bounds_are_those_of_what_runs_them() -> None:
    """The largest values that the load engine and the guest accept are good ones."""
    text = "[load]\nconnections = [64, 100]\nthreads = 64\nworkers = 64\n"
    experiment = parse(f'name = "x"\n{text}[inside]\nbatches = 10000\n')
    assert experiment.load is not None
    assert experiment.load.threads == experiment.load.workers == 64


def test_what_the_engine_refuses_is_told_with_all_other_mistakes() -> None:
    """A law is checked by the engine, also when something else is wrong in the file."""
    lines = mistakes(
        'name = "x"\nblocks = 0\n[load]\nrates = ["1"]\narrival = "poison"\nthink = "x"\n'
        'wait = "y"\nduration = 5\n'
    )
    keys = [line.split(": ")[1] for line in lines]
    assert keys == [
        "blocks",
        "load.rates[0]",
        "load.arrival",
        "load.think",
        "load.wait",
        "load.duration",
    ]  # fmt: skip - one list


def test_a_pattern_with_rates_of_its_own_is_one_open_loop() -> None:
    """It needs no list of rates, and its course is the name of the point."""
    ramp = "ramp:from=0,to=900,over=1s"
    experiment = parse(f'name = "x"\n[load]\nconnections = [2, 4]\npattern = "{ramp}"\n')
    assert [point.values for point in points_of(experiment)] == [
        {"mode": "closed", "connections": 2},
        {"mode": "closed", "connections": 4},
        {"mode": "open", "connections": 4, "rates": ramp},
    ]


def test_what_the_engine_is_asked_for() -> None:
    """Arrivals belong to open loops and think times to closed ones; HTTP has paths."""
    text = (
        '[load]\nrates = ["50/s"]\narrival = "gamma:cv=2"\nthink = "constant:1ms"\n'
        'operation = "spin_wall"\ndemand = "gamma:mean=1ms,cv=2"\npayload = "9B"\n'
        'cool_down = "100ms"\n'
    )
    settings = parse(f'name = "x"\n{text}protocol = "http"\n').load
    assert settings is not None
    closed, opened = (
        request_of(settings, point, target="tcp://127.0.0.1:1", seed=1)
        for point in points_of_load(settings)
    )
    assert (closed.arrival, closed.rate_rps, closed.think) == ("closed", None, "constant:1ms")
    assert (opened.arrival, opened.rate_rps, opened.think) == ("gamma:cv=2", 50, "none")
    assert opened.cool_down_ns == 100_000_000
    assert opened.options == {
        "path": "/spin_wall/{demand_ns}ns",
        "method": "POST",
        "body_bytes": "9",
    }
    assert (opened.operation, opened.payload_bytes) == ("empty", 0)
    rpc = parse('name = "x"\n[load]\noperation = "checksum"\nreply_bytes = "1KiB"\n').load
    assert rpc is not None
    request = request_of(rpc, points_of_load(rpc)[0], target="fake://?workers=1", seed=1)
    assert request.options == {"reply_bytes": "1024"}


def test_threads_are_not_compared_with_faulty_connections() -> None:
    """A wrong list is the one mistake; what does not fit it is not a second one."""
    (line,) = mistakes('name = "x"\n[load]\nconnections = ["2"]\nthreads = 4')
    assert line.startswith("x.toml:3: load.connections[0]: "), line


def test_load_steps_have_both_ends() -> None:
    """A table of load steps is spelt out, its end included, whatever rounding does."""
    steps = '[fleet]\nrates = { from = "0.1k/s", to = "0.5k/s", by = "0.1k/s" }\n'
    fleet = parse(f'name = "x"\n{steps}').fleet
    assert fleet is not None
    assert fleet.rates_rps == (100.0, 200.0, 300.0, 400.0, 500.0)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('{ from = "1k/s", to = "2k/s" }', "expected a list of rates, or load steps such as"),
        ('{ from = "2k/s", to = "1k/s", by = "1/s" }', "a last step that is not below the first"),
        ('{ from = "1/s", to = "9k/s", by = "1/s" }', "9000 steps; expected at most 100"),
    ],
)
def test_load_steps_that_are_none(written: str, expected: str) -> None:
    """What is wrong with a table of steps is said."""
    (line,) = mistakes(f'name = "x"\n[fleet]\nrates = {written}\n')
    assert expected in line


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        (
            '[rpc]\nclient_duration = "60s"\nserver_duration = "60s"\n',
            "x.toml:4: rpc.server_duration: got 1.00 min, but the clients run for 1.01 min",
        ),
        (
            '[rpc]\nclient_duration = "1s"\ninterval = "2s"\n',
            "x.toml:4: rpc.interval: got 2.00 s; expected at most 1.00 s",
        ),
        (
            "[fleet]\ncounts = [1, 9]\nload_agents = 2\n",
            "x.toml:2: fleet.connections: got 16; expected at least 18, so that each of 2 load",
        ),
        (
            "[fleet]\nconnections = 4\nthreads = 5\n",
            "x.toml:4: fleet.threads: got 5; expected at most 4, the connections of one load agent",
        ),
        (
            "[fleet]\ncounts = [65]\nconnections = 65\n",
            'x.toml:3: fleet.counts[0]: got 65; expected at most 64 with layout "servers"',
        ),
        (
            '[fleet]\ndemands = ["none"]\n',
            'x.toml:3: fleet.demands[0]: operation "spin" needs a demand',
        ),
    ],
)
def test_what_does_not_fit_together(rest: str, expected: str) -> None:
    """Settings of the benches with agents are checked against each other before anything runs."""
    check(rest, expected)
