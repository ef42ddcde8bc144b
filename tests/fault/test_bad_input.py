"""What a user may get wrong and a machine refuse: a sentence, an exit code, no leftovers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from seatrial.guest.binary import launch_binary
from tests.support.needs import needs_driver, needs_root
from tests.support.remains import remains_of
from tests.support.source import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.command import Done, Seatrial

pytestmark = [pytest.mark.fault, pytest.mark.timeout(300)]

USAGE, ENVIRONMENT, FINDING = 2, 3, 1

GOOD = """
name = "small"
blocks = 1
baseline = "process"
drivers = ["process"]

[start]
concurrency = [2]
rounds = 2
deadline = "1s"
control_window = "20ms"
"""


def check_refused(done: Done, code: int, *words: str) -> None:
    """The call failed with this code and a message of a few lines that holds these words."""
    assert done.code == code, done.shown
    assert "Traceback" not in done.out + done.err, done.shown
    assert "error: " in done.err, done.shown
    for word in words:
        assert word in done.err, done.shown


def check_left_nothing(seatrial: Seatrial) -> None:
    """No run of this directory left anything on the machine."""
    for run_dir in seatrial.runs():
        assert remains_of(run_dir.name, state_root=seatrial.state_root) == []
    assert not seatrial.state_root.exists() or list(seatrial.state_root.iterdir()) == []


# --- what the user writes ------------------------------------------------------------------------


def test_malformed_toml(seatrial: Seatrial) -> None:
    """A file that is no TOML: its name and the line."""
    file = seatrial.experiment('name = "x"\n[start\nrounds = 1\n')
    check_refused(seatrial.call("run", file), USAGE, "experiment.toml", "line 2")
    assert seatrial.runs() == []


def test_all_mistakes_at_once(seatrial: Seatrial) -> None:
    """Each mistake with its key, what was written and what is expected."""
    file = seatrial.experiment(
        'name = "x"\nblock = 3\ndrivers = ["process"]\n[start]\nrounds = 0\ndeadline = 5\n'
    )
    done = seatrial.call("run", file)
    check_refused(done, USAGE, "block", "start.rounds", "start.deadline", "5", "expected")


@pytest.mark.parametrize("command", ["run", "plan"])
def test_unknown_driver(seatrial: Seatrial, command: str) -> None:
    """A driver that does not exist: the name as written, and those that do."""
    file = seatrial.experiment(GOOD.replace('["process"]', '["process", "runk"]'))
    check_refused(seatrial.call(command, file), USAGE, "runk", "runc")
    assert seatrial.runs() == []


@pytest.mark.parametrize("command", ["run", "plan"])
@pytest.mark.parametrize(
    ("table", "parts"),
    [
        (
            "[driver.firecracker]\njailer = true\nuid = 0",
            (":15: driver.firecracker.uid: got 0", "from 1"),
        ),
        ("[driver.firecracker-snapshot]\njailer = 1", ("snapshot.jailer: got 1", "true or false")),
        ("[driver.qemu]\nvcpus = 65", ("driver.qemu.vcpus: got 65", "from 1 to 64")),
        ("[driver.crun]\nfrobnicate = 1", (":14: driver.crun.frobnicate: crun takes no options",)),
        ("[driver.podman]\nruntme = 'crun'", ("podman.runtme: unknown option; known: runtime",)),
        (
            '[driver."cri/runc"]\nimag = "x"',
            (":14: driver.cri/runc.imag: unknown", "endpoint, image"),
        ),
    ],
)
def test_options_of_a_driver(
    seatrial: Seatrial, command: str, table: str, parts: tuple[str, ...]
) -> None:
    """Refused before anything is started, whether or not the driver's program is there."""
    file = seatrial.experiment(f"{GOOD}\n{table}\n")
    check_refused(seatrial.call(command, file), USAGE, *parts)
    assert seatrial.runs() == []


def test_options_among_other_mistakes(seatrial: Seatrial) -> None:
    """Options of drivers are told together with the rest of the file."""
    file = seatrial.experiment(
        GOOD.replace("rounds = 2", "rounds = 0") + "[driver.crun]\nx = 1\n[driver.podman]\ny = 2\n"
    )
    words = ("3 mistakes", "start.rounds", "driver.crun.x", "driver.podman.y")
    check_refused(seatrial.call("plan", file), USAGE, *words)


def test_options_of_a_driver_that_does_not_run(seatrial: Seatrial) -> None:
    """They are no mistake, since --drivers may add it; but it is said that they are of no use."""
    done = seatrial.call("plan", seatrial.experiment(f"{GOOD}[driver.fake]\nhang_ratio = 0.5\n"))
    assert done.code == 0, done.shown
    assert "not used: [driver.fake] (fake is not among the drivers)" in done.err


def test_no_baseline_given(seatrial: Seatrial) -> None:
    """The default is told to be one, and what mends it does."""
    text = GOOD.replace('baseline = "process"\n', "").replace('["process"]', '["fake"]')
    file = seatrial.experiment(text)
    words = ('none is given, and the default "process"', 'baseline = "fake"', "--baseline fake")
    check_refused(seatrial.call("plan", file), USAGE, *words)
    assert seatrial.call("plan", file, "--baseline", "fake").code == 0
    assert seatrial.call("plan", file, "--drivers", "process,fake").code == 0


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("--drivers", "crn"), ('--drivers: unknown driver "crn"', 'did you mean "crun"')),
        (
            ("--drivers", "crun,runc"),
            ('the baseline "process" is not among the drivers crun, runc',),
        ),
        (("--drivers", "process,process"), ("a driver is named twice",)),
        (("--drivers", ","), ("no driver to run on",)),
        (("--baseline", "proces"), ('--baseline: unknown driver "proces"', '"process"')),
        (("--baseline", "crun"), ('the baseline "crun" is not among the drivers process',)),
    ],
)
def test_wrong_drivers_of_the_command_line(
    seatrial: Seatrial, words: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    """They are told before anything is probed."""
    done = seatrial.call("run", seatrial.experiment(GOOD), *words)
    check_refused(done, USAGE, *parts)
    assert "looking for" not in done.err
    assert seatrial.runs() == []


def test_unknown_preset_or_file(seatrial: Seatrial) -> None:
    """Neither a preset nor a file: both are said."""
    check_refused(seatrial.call("run", "quikc"), USAGE, "quikc", "quick")


def test_a_directory_is_no_experiment(seatrial: Seatrial) -> None:
    """A path that cannot be read as a file is named."""
    check_refused(seatrial.call("run", "."), USAGE, ".")


def test_binary_noise_is_no_experiment(seatrial: Seatrial) -> None:
    """Bytes that are no text are refused with the file's name."""
    path = seatrial.home / "noise.toml"
    path.write_bytes(bytes(range(256)))
    check_refused(seatrial.call("run", path), USAGE, "noise.toml")


def test_resuming_what_is_no_run(seatrial: Seatrial) -> None:
    """A directory without a run is named."""
    check_refused(seatrial.call("run", "--resume", seatrial.home), ENVIRONMENT, str(seatrial.home))


@pytest.mark.parametrize("command", ["report", "compare"])
def test_reading_what_is_no_run(seatrial: Seatrial, command: str) -> None:
    """Reports and comparisons name the directory that holds no run."""
    words = [command, "nowhere"] + (["nowhere"] if command == "compare" else [])
    check_refused(seatrial.call(*words), ENVIRONMENT, "nowhere")


# --- what the machine refuses --------------------------------------------------------------------


@pytest.mark.driver
def test_missing_runtime_asked_for_by_name(seatrial: Seatrial) -> None:
    """A runtime that is not installed: its trials are unsupported, or the run is refused."""
    needs_driver("process")
    bare = seatrial.home / "bin"
    bare.mkdir()
    file = seatrial.experiment(GOOD.replace('["process"]', '["process", "crun"]'))
    done = seatrial.call("run", "--no-html", file, environment={"PATH": str(bare)})
    check_refused(done, ENVIRONMENT, "crun")
    check_left_nothing(seatrial)


def test_missing_guest(seatrial: Seatrial) -> None:
    """Without our own binaries the message says how to build them."""
    file = seatrial.experiment(GOOD)
    environment = {"SEATRIAL_BIN_DIR": str(seatrial.home / "nowhere")}
    done = seatrial.call("run", "--no-html", file, environment=environment)
    check_refused(done, ENVIRONMENT, "make build")
    check_left_nothing(seatrial)


@pytest.mark.driver
def test_store_below_a_file(seatrial: Seatrial) -> None:
    """A place for results that cannot be a directory is named."""
    needs_driver("process")
    (seatrial.home / "taken").write_text("a file")
    file = seatrial.experiment(GOOD)
    done = seatrial.call("run", "--out", seatrial.home / "taken" / "runs", file)
    check_refused(done, ENVIRONMENT, "taken")
    check_left_nothing(seatrial)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for a few trials, which cannot be written when remounted so."""
    needs_root("mount a small file system")
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "seatrial-test", folder], check=True, timeout=20
    )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, timeout=20)


@pytest.mark.driver
def test_read_only_store(seatrial: Seatrial, small_disk: Path) -> None:
    """A read-only place for results is named, and nothing is started."""
    needs_driver("process")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True, timeout=20)
    done = seatrial.call("run", "--out", small_disk / "runs", seatrial.experiment(GOOD))
    check_refused(done, ENVIRONMENT, str(small_disk), "hint: ")
    check_left_nothing(seatrial)


@pytest.mark.driver
def test_full_disk(seatrial: Seatrial, small_disk: Path) -> None:
    """A disk that fills up during a run: what was stored is whole, nothing else is there."""
    needs_driver("process")
    file = seatrial.experiment(GOOD.replace("blocks = 1", "blocks = 40"))
    done = seatrial.call("run", "--out", small_disk, file)
    check_refused(done, ENVIRONMENT, "space", "hint: ")
    check_left_nothing(seatrial)
    stored = list(small_disk.glob("*/trials/*"))
    assert stored, "the disk was full before the first trial was stored"
    for path in stored:
        assert (path / "outcome.json").stat().st_size > 0
        assert all(table.stat().st_size > 0 for table in path.glob("*.parquet"))


# --- sandboxes that misbehave --------------------------------------------------------------------


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Directories that hold our launcher and a guest that misbehaves in one way."""
    folders: dict[str, Path] = {}
    for mode in ("SILENT", "DIES", "HELLO_THEN_SILENT", "HELLO_THEN_DIES", "GARBAGE"):
        folder = tmp_path_factory.mktemp(mode.lower())
        guest, source = folder / "seatrial-guest", ROOT / "tests" / "support" / "guests.c"
        command = ["cc", "-static", "-O1", f"-DMODE={mode}", "-o", guest, source]
        subprocess.run(command, check=True, timeout=60)
        shutil.copy2(launch_binary(), folder / "seatrial-launch")
        folders[mode] = folder
    return folders


@pytest.mark.driver
@pytest.mark.parametrize(
    ("driver", "mode", "word"),
    [
        ("process", "SILENT", "timed-out"),
        ("process", "HELLO_THEN_SILENT", "timed-out"),
        ("process", "DIES", "exited-early"),
        ("process", "HELLO_THEN_DIES", "exited-early"),
        ("process", "GARBAGE", "protocol"),
        ("lean", "SILENT", "timed-out"),
        ("lean", "DIES", "exited-early"),
        ("bwrap", "SILENT", "timed-out"),
        ("runc", "SILENT", "timed-out"),
    ],
)
def test_a_guest_that_misbehaves(
    seatrial: Seatrial, guests: dict[str, Path], *, driver: str, mode: str, word: str
) -> None:
    """The run goes on to its end, says what was wrong with the starts, and kills them."""
    needs_driver(driver)
    file = seatrial.experiment(GOOD.replace('"process"', f'"{driver}"'))
    words = [sys.executable, "-m", "tests.support.hasty_run", "run", "--no-html", file]
    done = seatrial.execute(words, {"SEATRIAL_BIN_DIR": str(guests[mode])})
    assert done.code in {FINDING, ENVIRONMENT}, done.shown
    assert "Traceback" not in done.out + done.err, done.shown
    assert word in done.out + done.err, done.shown
    check_left_nothing(seatrial)
