"""Container engines as data: command lines, limits, and what is refused."""

from __future__ import annotations

import resource
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from seatrial.drivers import engine
from seatrial.drivers.base import DriverContext
from seatrial.drivers.instance import SeenProcess
from seatrial.drivers.session import LocalSession
from seatrial.errors import ConfigError, DriverUnavailable


def test_no_limit_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Podman lowers its own limit of processes, so ours may be more than it can give."""
    limits = {resource.RLIMIT_NOFILE: (1024, 20_000), resource.RLIMIT_NPROC: (96_343, 96_343)}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits[kind])
    assert engine.own_limit("nofile") == "nofile=1024:20000"
    assert engine.own_limit("nproc") == "nproc=32768:32768"
    limits[resource.RLIMIT_NPROC] = (1000, resource.RLIM_INFINITY)
    assert engine.own_limit("nproc") == "nproc=1000:1000"
    limits[resource.RLIMIT_NPROC] = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    assert engine.own_limit("nproc") == "nproc=32768:32768"


def test_an_unknown_option_is_refused() -> None:
    """It says which there are."""
    context = DriverContext.for_run("engine-options", options={"runtme": "crun"})
    with pytest.raises(ConfigError, match=r"driver\.podman\.runtme.*known: runtime"):
        engine.podman().open(context)


def test_roles() -> None:
    """The monitor and the engine's own command are no payload."""
    words = {
        "/usr/bin/conmon": "monitor",
        "/usr/bin/podman": "runtime",
        "/seatrial-guest": "payload",
    }
    for word, role in words.items():
        seen = SeenProcess(pid=1, name="x", first_word=word, group="")
        assert engine.EngineSession.role_of(None, seen) == role  # type: ignore[arg-type]  # it looks at the process only


def test_a_missing_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """As every driver does."""
    monkeypatch.setenv("PATH", "/nowhere")
    result = engine.nerdctl().probe()
    assert not result.status.is_usable
    assert "nerdctl is not installed" in result.detail
    assert result.hint == "install nerdctl, and start containerd"
    assert Path("/nowhere").exists() is False


def test_the_runtime_below_podman_is_part_of_its_version(tmp_path: Path) -> None:
    """Two versions of it do not pass for the same conditions; what a daemon takes is not known."""
    runtime = tmp_path / "crun"
    runtime.write_text("#!/bin/sh\necho crun version 1.8.1\n")
    runtime.chmod(0o755)
    assert engine.full_version(engine.PODMAN, "4.3.1", runtime=str(runtime)) == "4.3.1+crun-1.8.1"
    assert engine.full_version(engine.DOCKER, "28.2.2", runtime="crun") == "28.2.2"


def test_a_runtime_that_is_not_there_is_told_by_name() -> None:
    """Before the engine is asked, which says less."""
    where = r"driver\.podman\.runtime = 'nowhere': nowhere is not installed"
    with pytest.raises(DriverUnavailable, match=where) as caught:
        engine.full_version(engine.PODMAN, "4.3.1", runtime="nowhere")
    assert caught.value.hint == "install nowhere, or name another in the experiment"
    with pytest.raises(DriverUnavailable, match=r"driver\.podman\.runtime.*does not run"):
        engine.full_version(engine.PODMAN, "4.3.1", runtime="/bin/false")


@pytest.mark.parametrize(("needed_count", "asked_count"), [(0, 0), (1, 1), (2, 2), (9, 4)])
def test_a_container_is_removed_again_until_it_is_gone(
    monkeypatch: pytest.MonkeyPatch, needed_count: int, asked_count: int
) -> None:
    """What was killed while it was removing a container makes the next removal fail."""
    asked: list[tuple[str, ...]] = []

    def run(_self: object, *words: str, check: bool) -> str:
        assert not check
        asked.append(words)
        return ""

    monkeypatch.setattr(LocalSession, "_kill", lambda _self, _instance: None)
    monkeypatch.setattr(engine.EngineSession, "_knows", lambda *_: len(asked) < needed_count)
    monkeypatch.setattr(engine.EngineSession, "_run", run)
    session = object.__new__(engine.EngineSession)
    session._litter = Counter()
    session._kill(SimpleNamespace(id="st-1"))  # type: ignore[arg-type]  # all that it looks at
    assert asked == [("rm", "--force", "st-1")] * asked_count
    assert session._litter == Counter(container=1 if needed_count else 0)
