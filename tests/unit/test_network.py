"""Choosing subnets, and refusing what is not ours to remove."""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING

import pytest

from seatrial import network
from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from pathlib import Path

POOL = ipaddress.IPv4Network("10.77.0.0/28")


def nets(*texts: str) -> list[ipaddress.IPv4Network]:
    """Networks from texts."""
    return [ipaddress.IPv4Network(text) for text in texts]


@pytest.mark.parametrize(
    ("used", "first", "expected"),
    [
        ((), 0, "10.77.0.0/30"),
        ((), 2, "10.77.0.8/30"),
        (("10.77.0.0/30",), 0, "10.77.0.4/30"),
        (("10.77.0.5/32",), 1, "10.77.0.8/30"),
        (("10.77.0.8/29",), 2, "10.77.0.0/30"),
        (("192.168.0.0/16",), 0, "10.77.0.0/30"),
        (("10.77.0.0/8",), 0, None),
        (("10.0.0.0/8",), 0, None),
        (("0.0.0.0/0",), 0, None),
    ],
)
def test_the_first_free_subnet(used: tuple[str, ...], first: int, expected: str | None) -> None:
    """Whatever the host uses is skipped, wrapping at the end of the pool."""
    taken = [ipaddress.IPv4Network(text, strict=False) for text in used]
    chosen = network.choose_subnet(POOL, used=taken, first=first)
    assert (None if chosen is None else str(chosen)) == expected


def test_all_used() -> None:
    """An exhausted pool has no subnet."""
    assert network.choose_subnet(POOL, used=nets("10.77.0.0/29", "10.77.0.8/29")) is None


def test_the_pool_can_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """A site whose network is 10.77 says so in the environment."""
    monkeypatch.setenv(network.POOL_VARIABLE, "172.20.0.0/20")
    assert str(network.pool()) == "172.20.0.0/20"


@pytest.mark.parametrize("text", ["10.77.0.1/16", "house", "10.0.0.0/31"])
def test_a_bad_pool_is_named(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """The message names the variable and the value."""
    monkeypatch.setenv(network.POOL_VARIABLE, text)
    with pytest.raises(EnvironmentTrouble, match=network.POOL_VARIABLE):
        network.pool()


@pytest.mark.parametrize("name", ["", ".", "../proc", "a/b"])
def test_only_plain_names_are_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    """An empty name would be the directory of all namespaces."""
    monkeypatch.setattr(network, "NETNS_DIR", tmp_path)
    calls: list[object] = []
    monkeypatch.setattr(network.netns, "call", lambda *arguments: calls.append(arguments))
    network.remove_namespace(name)
    assert calls == []
    assert tmp_path.is_dir()


def test_a_long_interface_name_is_refused() -> None:
    """The kernel would cut or refuse it; either way it could not be removed by name."""
    with pytest.raises(EnvironmentTrouble, match="over 15 bytes"):
        network.create_veth(namespace="st-x", host_interface="stv0123456789abcd")


def test_checks_at_the_same_time_have_names_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several drivers are asked by one process; the kernel takes 15 characters for an interface."""
    made: list[tuple[str, str]] = []

    def make(*, namespace: str, host_interface: str) -> None:
        made.append((namespace, host_interface))

    monkeypatch.setattr(network.os, "geteuid", lambda: 0)
    monkeypatch.setattr(network, "create_veth", make)
    monkeypatch.setattr(network, "remove_veth", lambda **_: None)
    assert [network.problem(), network.problem()] == [None, None]
    assert len(set(made)) == len({namespace for namespace, _ in made}) == 2
    assert all(len(interface) <= 15 for _, interface in made)
