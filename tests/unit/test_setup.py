"""The set-up: which packages a purpose needs, and what it leaves alone."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from tests.support.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

sys.path.insert(0, str(ROOT / "scripts"))
try:
    import peers
    import setup
    import steps
finally:
    sys.path.remove(str(ROOT / "scripts"))


@pytest.mark.parametrize(
    ("purpose", "has", "lacks"),
    [
        ("trial", {"gcc", "runc"}, {"git", "nginx", "wrk"}),
        ("test", {"gcc", "runc", "git", "nginx", "redis-server", "memcached"}, {"wrk", "hey"}),
        ("bench", {"gcc", "runc", "nginx", "wrk", "hey"}, {"git", "chromium", "memcached"}),
    ],
)
def test_a_purpose_has_its_packages(purpose: str, has: set[str], lacks: set[str]) -> None:
    """Nobody installs a browser for a benchmark, or a load generator for a test."""
    names = {row[0] for row in setup.wanted_packages(purpose)}
    assert has <= names
    assert not lacks & names


def test_packages_start_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While packages are installed the policy says no; afterwards it is gone again."""
    policy = tmp_path / "policy-rc.d"
    monkeypatch.setattr(setup, "POLICY", policy)
    with setup.no_daemons():
        assert steps.output_of([policy]) is None
        assert "exit 101" in policy.read_text()
    assert not policy.exists()


def test_a_policy_of_the_machine_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What an administrator decided is neither overwritten nor removed."""
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    monkeypatch.setattr(setup, "POLICY", policy)
    with setup.no_daemons():
        pass
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_every_peer_is_pinned() -> None:
    """Versions come from the lock files, none is whatever is newest."""
    versions = [peers.pinned_module(module) for _, _, module in peers.GO_PEERS]
    assert all(version[0].isdigit() for version in [*versions, peers.pinned_python("grpcio")])
    with pytest.raises(steps.StepError, match="pins no nobody/nothing"):
        peers.pinned_module("nobody/nothing")


def test_a_peer_that_cannot_be_built_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The reason is kept for the benchmark's row; a later build removes it."""
    monkeypatch.setattr(peers, "cache", lambda: tmp_path)

    def fails(made: Path) -> None:
        raise steps.StepError(f"no {made.name} today", tail="one\nthe cause")

    peers.one("oha", "1.2.3", fails)
    assert (tmp_path / "oha.missing").read_text() == "no oha today the cause"
    assert "without oha: no oha today" in capsys.readouterr().out

    peers.one("oha", "1.2.3", lambda made: made.write_text("a program"))
    assert (tmp_path / "oha").resolve() == tmp_path / "oha-1.2.3" / "oha"
    assert not (tmp_path / "oha.missing").exists()
