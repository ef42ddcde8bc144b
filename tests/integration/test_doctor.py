"""``seatrial doctor`` for real: what it finds, what it leaves, and what it does without root."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from seatrial.probes.block_device import find_mount
from tests.support.command import Done, Seatrial
from tests.support.needs import needs_driver
from tests.support.remains import all_remains

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def seatrial(tmp_path: Path) -> Iterator[Seatrial]:
    """The command with a state directory of its own."""
    state = tmp_path / "s"
    state.mkdir(mode=0o700)
    yield Seatrial(home=tmp_path, state=state)
    assert not list(state.glob("seatrial/*")), "state of a run is left"


def checks_of(done: Done) -> dict[str, dict[str, Any]]:
    """The checks by group and name."""
    assert done.code in {0, 3}, done.shown
    found = json.loads(done.out)["checks"]
    return {f"{one['group']}/{one['name']}": one for one in found}


def filesystem_of(place: Path) -> str:
    """The type of the file system that a directory is on."""
    return find_mount(Path("/proc/self/mountinfo").read_text(), place.resolve()).filesystem


def test_it_tries_everything_and_leaves_nothing(seatrial: Seatrial) -> None:
    """Every group has something to say about this machine; the baseline works."""
    needs_driver("process")
    before = all_remains()
    done = seatrial.call("doctor", "--json", "--drivers", "process,lean")
    assert done.code == 0, done.shown
    checks = checks_of(done)
    assert {name.partition("/")[0] for name in checks} == {
        "noise", "host", "clocks", "limits", "kernel", "cgroups", "isolation", "network",
        "storage", "tools", "launcher", "runtimes", "kvm", "leftovers",
    }  # fmt: skip
    assert checks["runtimes/process"]["level"] in {"ok", "warn"}
    assert checks["runtimes/process"]["values"]["elapsed_ns"] > 0
    assert checks["leftovers/this examination"]["level"] == "ok", done.shown
    late = checks["noise/jitter of a sleeper"]["values"]
    assert 0 < late["p50_ns"] <= late["p99_ns"] <= late["longest_ns"]
    assert sum(count for _, count in late["histogram"]) == 400
    floor = [checks[f"launcher/{name}"] for name in ("alone", "10 at once", "50 at once")]
    assert {one["level"] for one in floor} == {"ok"}, floor
    traits = {one["driver"]: one for one in json.loads(done.out)["traits"]}
    assert set(traits) == {"process", "lean"}
    for one in traits.values():
        assert one["trouble"] is None, one
        assert one["teardown_ns"] > 0, one
        assert 0 <= one["idle_ratio"] < 1, one
        assert one["write"]["moved_bytes"] == one["read"]["moved_bytes"] == 8 << 20, one
    # Whatever is wrong comes with what follows from it, and with what to do.
    for check in checks.values():
        if check["level"] not in {"ok", "untried"}:
            assert check["consequence"], check
            assert check["fix"], check
    assert not {line for line in all_remains() - before if "probe-" in line or "doctor-" in line}


def test_what_is_ignored_is_told_from_what_is_honoured(tmp_path: Path) -> None:
    """By the pages of the very file: a plain process's write goes past the cache, gVisor's may not.

    Whichever it is, what the pages say and what is said of them agree.
    """
    for name in ("process", "runsc"):
        needs_driver(name)
    if filesystem_of(tmp_path) in {"tmpfs", "overlay"}:
        pytest.skip("the tests' directory is on no disk")
    # The sockets of runsc want a shorter path than a test's own directory has.
    with tempfile.TemporaryDirectory(prefix="st") as state:
        seatrial = Seatrial(home=tmp_path, state=Path(state))
        done = seatrial.call("doctor", "--json", "--only", "runtimes", "--drivers", "process,runsc")
        assert done.code == 0, done.shown
        assert not list(seatrial.state.glob("seatrial/*")), "state of a run is left"
    checks = checks_of(done)
    assert checks["runtimes/process: direct I/O"]["level"] == "ok", done.shown
    found = checks["runtimes/runsc: direct I/O"]
    cached = [found["values"][way]["cached_bytes"] for way in ("write", "read")]
    is_ignored = max(cached) > 0
    assert found["values"]["honour"] == ("ignored" if is_ignored else "honoured"), found
    assert found["level"] == ("warn" if is_ignored else "ok"), found
    assert not list(tmp_path.glob("seatrial-doctor-*"))


def test_a_person_reads_problems_first_and_a_sentence_last(seatrial: Seatrial) -> None:
    """On a terminal of a hundred columns and without colours."""
    needs_driver("process")
    done = seatrial.call("doctor", "--only", "runtimes,limits", "--drivers", "process")
    assert done.code == 0, done.shown
    lines = done.out.rstrip().splitlines()
    assert lines[-1] == "Exit code 0: nothing that was chosen stands in the way."
    assert lines[-2] == "Usable runtimes: process."
    assert "\x1b" not in done.out
    assert "runtimes: process ..." in done.err


def test_what_was_chosen_and_does_not_run_is_exit_code_three(seatrial: Seatrial) -> None:
    """A program of that name that is no runtime."""
    tools = seatrial.home / "bin"
    tools.mkdir()
    (tools / "bwrap").write_text("#!/bin/sh\nexit 1\n")
    (tools / "bwrap").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    words = ("doctor", "--json", "--only", "runtimes", "--drivers", "bwrap")
    done = seatrial.call(*words, environment={"PATH": path})
    assert done.code == 3, done.shown
    check = checks_of(done)["runtimes/bwrap"]
    assert check["level"] in {"broken", "missing"}
    assert check["is_needed"] is True


def test_without_root_it_says_what_it_could_not_try(seatrial: Seatrial) -> None:
    """In a user namespace of its own the same files are there, and no power over the machine."""
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("unshare of util-linux is not installed")
    as_user = (unshare, "--user", "--map-user=1000", "--map-group=1000")
    if seatrial.execute([*as_user, "true"]).code != 0:
        pytest.skip("this machine allows no user namespaces")
    argv = (sys.executable, "-m", "seatrial.cli.main", "doctor", "--json")
    groups = "limits,cgroups,isolation,network,storage,launcher,runtimes"
    done = seatrial.execute([*as_user, *argv, "--only", groups, "--drivers", "process"])
    checks = checks_of(done)
    assert checks["limits/user"]["evidence"] == "user id 1000"
    assert checks["limits/capabilities"]["level"] == "warn"
    assert checks["network/namespace with a pair"]["level"] == "untried"
    assert checks["runtimes/process"]["level"] in {"ok", "warn"}, done.shown
    assert checks["leftovers/this examination"]["level"] == "ok", done.shown


def test_a_thin_pool_is_only_printed(seatrial: Seatrial) -> None:
    """A shell would take it; nothing is made."""
    done = seatrial.call("doctor", "--thin-pool", "10GiB")
    assert done.code == 0, done.shown
    assert "dmsetup create seatrial-pool" in done.out
    wrong = seatrial.call("doctor", "--thin-pool", "10")
    assert (wrong.code, "hint:" in wrong.err or "expected" in wrong.err) == (2, True), wrong.shown
