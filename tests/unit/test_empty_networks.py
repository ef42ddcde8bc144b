"""Empty networks that are used again: which, when not, how many, and what of them stays open."""

from __future__ import annotations

import errno
import os
import struct
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from seatrial import netns
from seatrial.drivers import empty_networks
from seatrial.drivers.empty_networks import EmptyNetworks
from seatrial.errors import EnvironmentTrouble
from seatrial.netns import Content

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.netns import Identity

NEW = Content(interfaces=(b"lo",), addresses=(), routes=(), rules=(b"local",))


class Scripted:
    """Namespaces that are open files, each with what a test says is in it."""

    def __init__(self) -> None:
        self.contents: dict[int, Content | OSError] = {}
        self.people: set[Identity] = set()
        self.refusal: OSError | None = None
        self.scans_count = 0

    def make_empty(self) -> int:
        if self.refusal is not None:
            raise self.refusal
        descriptor = os.open("/dev/zero", os.O_RDONLY | os.O_CLOEXEC)
        self.contents[descriptor] = NEW
        return descriptor

    def identity_of(self, descriptor: int) -> Identity:
        return (4, descriptor)

    def look_into(self, descriptor: int) -> Content:
        content = self.contents[descriptor]
        if isinstance(content, OSError):
            raise content
        return content

    def inhabited(self) -> frozenset[Identity]:
        self.scans_count += 1
        return frozenset(self.people)


@pytest.fixture
def kernel() -> Scripted:
    """What stands in for the kernel."""
    return Scripted()


@pytest.fixture
def networks(kernel: Scripted) -> Iterator[EmptyNetworks]:
    """A pool, closed at the end: the fixture of all tests looks for descriptors."""
    pool = EmptyNetworks(kernel=kernel)
    yield pool
    pool.close()


def number_of(path: str) -> int:
    """The descriptor that a path leads to."""
    assert path.startswith(f"/proc/{os.getpid()}/fd/")
    return int(path.rpartition("/")[2])


def used_once(networks: EmptyNetworks) -> str:
    """A network that was a sandbox's and is free again."""
    path = networks.take("first")
    networks.give_back("first", is_gone=True)
    return path


def test_one_that_is_as_new_is_used_again(networks: EmptyNetworks) -> None:
    """None is made while one is free."""
    path = used_once(networks)
    assert networks.take("second") == path
    assert (networks.made_count, networks.thrown_away_count) == (1, 0)


def test_two_never_have_the_same(networks: EmptyNetworks) -> None:
    """What is taken is nobody else's, whoever had it before."""
    used_once(networks)
    paths = [networks.take(name) for name in ("a", "b", "c")]
    assert len(set(paths)) == 3
    with pytest.raises(AssertionError, match="a has a network already"):
        networks.take("a")


@pytest.mark.parametrize(
    "content",
    [
        Content(interfaces=(b"lo", b"eth0"), addresses=(), routes=(), rules=(b"local",)),
        Content(interfaces=(b"lo up",), addresses=(), routes=(), rules=(b"local",)),
        Content(interfaces=(b"lo",), addresses=(b"10.0.0.1",), routes=(), rules=(b"local",)),
        Content(interfaces=(b"lo",), addresses=(), routes=(b"default",), rules=(b"local",)),
        Content(interfaces=(b"lo",), addresses=(), routes=(), rules=()),
        OSError(errno.EIO, "Input/output error"),
    ],
)
def test_one_that_is_not_as_new_is_thrown_away(
    networks: EmptyNetworks, kernel: Scripted, content: Content | OSError
) -> None:
    """Another one is made in its place, and it is closed."""
    first = number_of(used_once(networks))
    kernel.contents[first] = content
    networks.take("second")
    assert (networks.made_count, networks.thrown_away_count) == (2, 1)
    networks.give_back("second", is_gone=True)
    networks.take("third")
    assert (networks.made_count, networks.thrown_away_count) == (2, 1)


def test_what_has_changed_is_named() -> None:
    """The log says why a namespace was not used again."""
    other = Content(interfaces=(), addresses=(b"1",), routes=(), rules=(b"local",))
    assert other.changes_since(NEW) == ("interfaces", "addresses")
    assert NEW.changes_since(NEW) == ()


def test_one_with_a_process_in_it_is_thrown_away(networks: EmptyNetworks, kernel: Scripted) -> None:
    """Also when everything else in it is as new."""
    kernel.people.add((4, number_of(used_once(networks))))
    networks.take("second")
    assert (networks.made_count, networks.thrown_away_count) == (2, 1)


def test_one_look_for_processes_serves_a_storm(
    networks: EmptyNetworks, kernel: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But neither one that is old, nor one from before a network was given back."""
    now_ns = 1_000
    monkeypatch.setattr(empty_networks, "time", SimpleNamespace(monotonic_ns=lambda: now_ns))
    names = [str(number) for number in range(3)]

    def turn() -> None:
        for name in names:
            networks.take(name)
        for name in names:
            networks.give_back(name, is_gone=True)

    turn()
    assert kernel.scans_count == 0, "new ones are nobody's"
    now_ns += 1
    turn()
    assert kernel.scans_count == 1
    now_ns += 1
    turn()
    assert kernel.scans_count == 2, "they were given back since"
    now_ns += 1
    networks.take("0")
    now_ns += empty_networks.INHABITED_AGE_NS_MAX
    networks.take("1")
    assert kernel.scans_count == 4


def test_what_is_not_gone_keeps_its_network_from_the_next(networks: EmptyNetworks) -> None:
    """The namespace lives on with its processes and is ours no more."""
    networks.take("first")
    networks.give_back("first", is_gone=False)
    networks.give_back("first", is_gone=True)
    networks.take("second")
    assert (networks.made_count, networks.thrown_away_count) == (2, 1)


def test_never_more_than_were_in_use_at_once(networks: EmptyNetworks) -> None:
    """However many sandboxes come and go."""
    for turn in range(5):
        for number in range(turn):
            networks.take(str(number))
        for number in range(turn):
            networks.give_back(str(number), is_gone=True)
    assert networks.made_count == 4


def test_closing_lets_go_of_all(networks: EmptyNetworks, kernel: Scripted) -> None:
    """Free ones and such whose owner was never released; once more does no harm."""
    used_once(networks)
    for name in ("a", "b"):
        networks.take(name)
    networks.close()
    networks.close()
    networks.give_back("a", is_gone=True)
    assert len(kernel.contents) == 2
    for descriptor in kernel.contents:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


@pytest.mark.parametrize("is_late", [False, True])
def test_a_refusal_says_what_to_do(kernel: Scripted, *, is_late: bool) -> None:
    """Also of the look into a new one, of which nothing stays open."""
    refusal = OSError(errno.EMFILE, "Too many open files")
    if is_late:
        kernel.look_into = lambda _: (_ for _ in ()).throw(refusal)  # type: ignore[method-assign]  # fails
    else:
        kernel.refusal = refusal
    networks = EmptyNetworks(kernel=kernel)
    with pytest.raises(EnvironmentTrouble, match="empty network namespace: Too many open") as told:
        networks.take("first")
    assert told.value.hint is not None
    assert "ulimit -n" in told.value.hint
    networks.give_back("first", is_gone=True)


def test_answers_of_netlink_are_split() -> None:
    """By the lengths in their headers, aligned to four bytes."""
    header = struct.Struct("=IHHII")
    answer = header.pack(19, 16, 2, 1, 0) + b"abc\0" + header.pack(16, 3, 2, 1, 0)
    assert list(netns.messages(answer)) == [(16, b"abc"), (3, b"")]


@pytest.mark.parametrize("length", [0, 15, 21])
def test_an_answer_that_is_cut_off_is_refused(length: int) -> None:
    """Before it is taken for an end, or read for ever."""
    answer = struct.pack("=IHHII", length, 16, 2, 1, 0) + b"abcd"
    with pytest.raises(OSError, match="cut off"):
        list(netns.messages(answer))
