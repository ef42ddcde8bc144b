"""What lean sandboxes share, and what they do not, although their root is prepared once for all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext, SandboxSpec, new_run_id
from seatrial.model.experiment import NetworkMode
from tests.support.needs import needs_driver, needs_root

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.drivers.session import LocalSession

pytestmark = pytest.mark.driver

DEADLINE_NS = 30_000_000_000
KINDS = ("mnt", "pid", "uts", "ipc", "net")


@pytest.fixture(params=["lean", "lean-prepared", "lean-pooled"])
def session(request: pytest.FixtureRequest) -> Iterator[LocalSession]:
    """An open session of each driver."""
    needs_driver(request.param)
    with registry.get(request.param).open(DriverContext.for_run(new_run_id())) as opened:
        yield cast("LocalSession", opened)


def held(
    session: LocalSession, count: int, *, network: NetworkMode = NetworkMode.NONE
) -> list[int]:
    """The first processes of sandboxes that stay."""
    spec = SandboxSpec(role=("idle",), network=network, deadline_ns=DEADLINE_NS)
    plans = [session.plan(spec, number) for number in range(count)]
    done = session.launcher.start(plans, wait_for="ready", hold=True, timeout_ns=DEADLINE_NS)
    pids = [result.pid for result in done.results if result.pid is not None]
    assert len(pids) == count, done
    return pids


def namespace(pid: int | str, kind: str) -> str:
    """The identity of a process's namespace."""
    return str(Path(f"/proc/{pid}/ns/{kind}").readlink())


def own_root(pid: int) -> Path:
    """What a process sees as its root."""
    return Path("/proc", str(pid), "root")


def mounts(pid: int) -> dict[str, tuple[str, set[str]]]:
    """Type and options of what a process sees mounted, by mount point."""
    found = {}
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        own, _, kind = line.partition(" - ")
        words = own.split()
        found[words[4]] = (kind.split()[0], set(words[5].split(",")))
    return found


def test_every_namespace_is_a_sandboxs_own(session: LocalSession) -> None:
    """Also of sandboxes that one batch or one thread of the launcher has made."""
    pids = held(session, 3) + held(session, 2)
    for kind in KINDS:
        assert len({namespace(pid, kind) for pid in (*pids, "self")}) == 6, kind


def test_the_hosts_network_is_used_where_it_is_asked_for(session: LocalSession) -> None:
    """Only namespaces of mode `none` are made ahead; the next sandbox is where it should be."""
    held(session, 2)
    for pid in held(session, 2, network=NetworkMode.HOST):
        assert namespace(pid, "net") == namespace("self", "net")
        assert namespace(pid, "mnt") != namespace("self", "mnt")


def test_a_sandbox_sees_its_root_and_nothing_of_the_host(session: LocalSession) -> None:
    """The root is read-only, /proc and /tmp are its own, devices are all that is bound."""
    (pid,) = held(session, 1)
    seen = mounts(pid)
    assert "ro" in seen["/"][1]
    assert (seen["/proc"][0], seen["/tmp"][0]) == ("proc", "tmpfs")
    assert {place for place in seen if not place.startswith("/dev/")} == {"/", "/proc", "/tmp"}


def test_temporary_files_of_one_are_not_those_of_another(session: LocalSession) -> None:
    """Each /tmp is a file system of its own, also beside one that was made before it."""
    needs_root("write into a sandbox from outside")
    pids = held(session, 2)
    (own_root(pids[0]) / "tmp/mine").write_text("mine")
    pids += held(session, 1)
    found = [[path.name for path in (own_root(pid) / "tmp").iterdir()] for pid in pids]
    assert found == [["mine"], [], []]


def test_no_mount_of_a_sandbox_reaches_the_host(session: LocalSession) -> None:
    """The prepared root is mounted nowhere that anybody else could see."""
    held(session, 2)
    assert str(session.directory) not in Path("/proc/self/mountinfo").read_text()


def test_the_flags_name_what_is_made_before_the_clock(session: LocalSession) -> None:
    """What a start finds made is a condition of the run, so that two runs are told apart."""
    made = session.flags["made before the clock"]
    if os.geteuid() == 0:
        assert ("network namespaces" in made) is (session.name != "lean")
        assert ("used again" in made) is (session.name == "lean-pooled")
        assert "mount namespace" in made
    else:
        assert made == "nothing"
