"""The command line as a whole: which module is loaded, what is printed, which code comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from seatrial.cli import main as cli
from seatrial.cli import output
from seatrial.config.load import PRESETS
from seatrial.errors import ConfigError, DriverUnavailable, ExitCode, StoreError
from seatrial.model.experiment import BENCHES

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def perform(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs the command line with a function in the place of the command `clean`."""

    def run(action: Callable[[], int], *options: str) -> int:
        command = SimpleNamespace(
            add_arguments=lambda _parser: None, execute=lambda _args: action()
        )
        monkeypatch.setattr(cli, "_command", lambda _name: command)
        return cli.main(["clean", *options])

    return run


def raising(error: BaseException) -> Callable[[], int]:
    """A command that fails."""

    def action() -> int:
        raise error

    return action


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("what", hint="do this"), 2),
        (DriverUnavailable("what", hint="do this"), 3),
        (StoreError("what", hint="do this"), 3),
    ],
)
def test_errors_become_text_and_code(
    perform: Callable[..., int], capsys: pytest.CaptureFixture[str], error: Exception, code: int
) -> None:
    """An error is two lines on standard error, and no traceback."""
    assert perform(raising(error)) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "error: what\nhint: do this\n"


def test_many_lines_are_indented(
    perform: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """The mistakes of a file stand below their heading."""
    perform(raising(ConfigError("x.toml: 2 mistakes\none\ntwo")))
    assert capsys.readouterr().err == "error: x.toml: 2 mistakes\n  one\n  two\n"


def test_traceback_on_demand(
    perform: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    """--traceback works after the command as well."""
    assert perform(raising(ConfigError("what")), "--traceback") == ExitCode.USAGE
    assert "Traceback (most recent call last)" in capsys.readouterr().err


def test_bugs_are_reported_with_a_file(
    perform: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """An unexpected exception is one line; its traceback is in a file that the hint names."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert perform(raising(RuntimeError("first\nsecond"))) == ExitCode.INTERNAL
    error = capsys.readouterr().err
    assert error.startswith("error: internal error: RuntimeError: first\nhint: this is a bug")
    assert "Traceback" not in error
    (file,) = tmp_path.iterdir()
    assert str(file) in error
    assert "RuntimeError: first\nsecond" in file.read_text()


def test_ctrl_c(perform: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """An interrupt is no error, and has the code that shells expect."""
    assert perform(raising(KeyboardInterrupt())) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_commands_code_is_passed_on(perform: Callable[..., int]) -> None:
    """A command decides between 0 and 1 itself."""
    assert perform(lambda: 1) == ExitCode.FINDING
    assert perform(lambda: 0) == ExitCode.OK


def python(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "seatrial.cli.main", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
        timeout=60,
        **options,  # type: ignore[call-overload]  # passed through as they are
    )


@pytest.mark.parametrize(
    ("arguments", "code", "part"),
    [
        ((), 2, "usage: seatrial"),
        (("fly",), 2, "COMMAND: got 'fly'; expected one of 'run'"),
        (("list", "--colour"), 2, "unknown option --colour"),
        (("plan", "quik"), 2, 'did you mean "quick"?'),
        (("plan", "quick", "--drivers", "runcc"), 2, 'unknown driver "runcc" (did you mean "runc"'),
    ],
)
def test_wrong_usage(arguments: tuple[str, ...], code: int, part: str) -> None:
    """Wrong usage ends in code 2, with the talk on standard error only."""
    done = python(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert part in done.stderr


def test_help_names_every_command() -> None:
    """The help is data: it goes to standard output."""
    done = python("--help")
    assert done.returncode == 0
    assert all(f"    {name} " in done.stdout for name in cli.COMMANDS)


def test_version() -> None:
    """The version is one line."""
    assert python("--version").stdout.startswith("seatrial ")


def test_every_command_can_be_asked_for_help() -> None:
    """The table names modules that exist and declare their options."""
    for name in cli.COMMANDS:
        done = python(name, "--help")
        assert done.returncode == 0, done.stderr
        assert f"usage: seatrial {name}" in done.stdout


def test_a_reader_that_goes_away() -> None:
    """A closed pipe ends the command quietly, as it ends other tools."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "seatrial.cli.main", "list", "presets"],
        stdout=write_end,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
        timeout=60,
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (cli.EXIT_OUTPUT_CLOSED, "")


def test_list_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Everything that is listed can be read by a program."""
    assert cli.main(["list", "--json"]) == 0
    lists = json.loads(capsys.readouterr().out)
    assert list(lists) == ["drivers", "benches", "metrics", "presets"]
    assert "process" in [row["driver"] for row in lists["drivers"]]
    assert [row["bench"] for row in lists["benches"]] == list(BENCHES)
    assert all(row["meaning"] for row in lists["metrics"])
    assert lists["presets"][0]["preset"] == "quick"


def test_list_of_one_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """One kind is a plain table."""
    assert cli.main(["list", "presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["preset", "meaning"]
    assert len(lines) == 1 + len(PRESETS)


@pytest.mark.usefixtures("works_everywhere")
def test_plan_says_what_would_run(capsys: pytest.CaptureFixture[str]) -> None:
    """Order, counts, time and hash, for drivers that are given."""
    assert cli.main(["plan", "inside", "--drivers", "process,runc"]) == 0
    out = capsys.readouterr().out
    assert "trials      10 = 5 blocks x 2 drivers x 1 points" in out
    assert "hash" in out
    assert out.count("  inside\n") >= 10


@pytest.mark.usefixtures("works_everywhere")
def test_plan_takes_the_changes_that_a_run_takes(capsys: pytest.CaptureFixture[str]) -> None:
    """Blocks, seed and baseline are in the plan; what is out of range is refused."""
    words = ["plan", "inside", "--drivers", "process,runc"]
    assert cli.main([*words, "--blocks", "2", "--seed", "7", "--baseline", "runc"]) == 0
    out = capsys.readouterr().out
    assert "trials      4 = 2 blocks x 2 drivers x 1 points" in out
    assert "seed        7" in out
    assert "baseline    runc" in out
    assert cli.main([*words, "--blocks", "0"]) == 2
    assert "--blocks: 0; expected 1 or more" in capsys.readouterr().err


@pytest.mark.usefixtures("works_everywhere")
def test_plan_tells_the_time_of_slow_drivers_and_of_missing_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Two seconds a start make a plan of hours; what cannot run is told and costs the usual."""
    from seatrial.units import parse_duration_ns

    def minutes(driver: str) -> float:
        assert cli.main(["plan", "start", "--drivers", f"process,{driver}"]) == 0
        shown = capsys.readouterr()
        assert ("cannot run here: crun (missing: so it is said)" in shown.err) == (driver == "crun")
        text = next(line for line in shown.out.splitlines() if line.startswith("time"))
        return parse_duration_ns(text.partition("about ")[2].replace(" ", "")) / 60e9

    assert minutes("runc") > 2 * minutes("crun")


@pytest.mark.usefixtures("works_everywhere")
def test_plan_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """The JSON is the whole plan, which is read back as such."""
    from seatrial.model.codec import decode
    from seatrial.model.plan import Plan

    assert cli.main(["plan", "start", "--drivers", "process", "--json"]) == 0
    plan = decode(Plan, json.loads(capsys.readouterr().out))
    assert plan.drivers == ("process",)
    assert len(plan.trials) == 25


@pytest.mark.usefixtures("works_everywhere")
def test_long_plans_are_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Only the beginning is shown, unless all is asked for."""
    cli.main(["plan", "start", "--drivers", "process"])
    assert "... and 5 more (--all prints them)" in capsys.readouterr().out
    cli.main(["plan", "start", "--drivers", "process", "--all"])
    assert "t0025" in capsys.readouterr().out


def test_tables_are_aligned(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns line up by what a terminal shows, wide characters too."""
    output.table(("a", "b"), [("長", "x"), ("abc", "y")])
    assert capsys.readouterr().out == "a    b\n長   x\nabc  y\n"


def test_json_of_model_objects(capsys: pytest.CaptureFixture[str]) -> None:
    """Dataclasses and enums are printed as JSON; infinity as a text."""
    output.data_json({"code": ExitCode.OK, "value": float("inf")})
    assert json.loads(capsys.readouterr().out) == {"code": 0, "value": "inf"}


def test_rendering_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What Rich lays out for a pipe has no colour."""
    output.render("[bold]plain[/bold]")
    assert capsys.readouterr().out == "plain\n"


def test_available_drivers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What works is taken, one flavour of a runtime; what is left out has its reason."""
    from seatrial.cli.available import resolve
    from seatrial.drivers import registry
    from seatrial.drivers.base import Capabilities, ProbeResult, ProbeStatus
    from tests.support.requests import FULL

    found = {
        "process": ProbeStatus.WORKS,
        "lean": ProbeStatus.DEGRADED,
        "runc": ProbeStatus.MISSING,
        "runsc": ProbeStatus.BROKEN,
        "runsc-ptrace": ProbeStatus.WORKS,
        "runsc-kvm": ProbeStatus.WORKS,
        "qemu": ProbeStatus.DEGRADED,
        "qemu-template": ProbeStatus.DEGRADED,
    }
    probed: list[str] = []

    def driver(name: str) -> SimpleNamespace:
        result = ProbeResult(
            name=name,
            status=found[name],
            version=None,
            detail="why",
            capabilities=Capabilities(is_emulated=name.startswith("qemu")),
        )
        return SimpleNamespace(probe=lambda: probed.append(name) or result)

    monkeypatch.setattr(registry, "names", lambda: (*found, "null"))
    monkeypatch.setattr(registry, "get", driver)
    import dataclasses

    asked = dataclasses.replace(FULL, drivers=("available",))
    available = resolve(asked)
    assert available.drivers == ("process", "lean", "runsc-ptrace")
    assert available.skipped == {
        "runc": "missing: why",
        "runsc": "broken: why",
        "runsc-kvm": "another flavour of runsc is used",
        "qemu": "emulated here, so slow; to include it: --drivers available,qemu",
        "qemu-template": "emulated here, like qemu",
    }
    assert sorted(probed) == sorted(set(found) - {"runsc-kvm", "qemu-template"})
    assert resolve(FULL, ("lean",)).drivers == ("lean",)
    with_qemu = resolve(asked, ("available", "qemu-template"))
    assert with_qemu.drivers == ("process", "lean", "runsc-ptrace", "qemu-template")
    assert with_qemu.skipped["qemu"] == "another flavour of qemu is used"
    found |= dict.fromkeys(FULL.drivers, ProbeStatus.WORKS)
    assert resolve(FULL).drivers == FULL.drivers
    found["runc"] = ProbeStatus.MISSING
    probed.clear()
    with pytest.raises(DriverUnavailable, match='baseline "runc" does not work here: missing'):
        resolve(dataclasses.replace(asked, baseline="runc"))
    assert probed == ["runc"], "nothing else is tried for a run that cannot be"
    by_ptrace = resolve(dataclasses.replace(asked, baseline="runsc-ptrace"))
    assert by_ptrace.drivers == ("process", "lean", "runsc-ptrace")
    assert by_ptrace.skipped["runsc"] == "another flavour of runsc is used"


def test_drivers_of_the_command_line() -> None:
    """Names with commas; a slip is an error that suggests."""
    from seatrial.cli.available import parse_drivers

    assert parse_drivers(None) is None
    assert parse_drivers("process, runc") == ("process", "runc")
    assert parse_drivers("available,qemu") == ("available", "qemu")
    with pytest.raises(ConfigError) as caught:
        parse_drivers("proces")
    assert caught.value.code == "driver-unknown"


def test_chosen_command_is_the_only_one_loaded() -> None:
    """The help of one command does not pay for the others."""
    program = (
        "import sys; from seatrial.cli.main import main\n"
        "try: main(['list', '--help'])\n"
        "except SystemExit: pass\n"
        "print(sorted(n for n in sys.modules if n.startswith('seatrial.cli.')), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(Path(cli.__file__).parents[2])},
    )
    assert (
        done.stderr.strip() == "['seatrial.cli.list', 'seatrial.cli.main', 'seatrial.cli.output']"
    )


def test_the_parser_knows_no_abbreviations() -> None:
    """A new option can never change what an old command line means."""
    with pytest.raises(SystemExit):
        cli.main(["--vers"])


def test_the_package_is_the_command() -> None:
    """`python -m seatrial` is `seatrial`: the same text, the same codes."""
    command = [sys.executable, "-m", "seatrial"]
    done = subprocess.run([*command, "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: seatrial ")
    done = subprocess.run([*command, "nothing"], capture_output=True, text=True, check=False)
    assert done.returncode == ExitCode.USAGE
    assert "nothing" in done.stderr
