"""The leak check of the test suite itself: it sees what it is there to see."""

from __future__ import annotations

import os
import socket
import subprocess
import threading

from tests.support.stock import differences, take_stock


def test_nothing_is_no_difference() -> None:
    """Two looks at a process that does nothing are equal."""
    assert differences(take_stock(), take_stock()) == []


def test_a_descriptor_is_seen() -> None:
    """An open socket is named with its number."""
    before = take_stock()
    with socket.socket() as one:
        (line,) = differences(before, take_stock())
        assert line.startswith(f"descriptor {one.fileno()} -> socket:")


def test_a_reused_number_is_seen() -> None:
    """A descriptor that took the number of a closed one is another descriptor."""
    first, second = socket.socketpair()
    before = take_stock()
    number = first.fileno()
    first.close()
    with socket.socket() as other:
        assert other.fileno() == number
        assert len(differences(before, take_stock())) == 1
    second.close()


def test_a_thread_is_seen() -> None:
    """A thread that still runs is named."""
    before = take_stock()
    release = threading.Event()
    thread = threading.Thread(target=release.wait, name="left-over")
    thread.start()
    try:
        assert differences(before, take_stock()) == ["thread left-over"]
    finally:
        release.set()
        thread.join()


def test_a_child_is_seen_even_as_a_zombie() -> None:
    """A child that ended but was not waited for is a leak too."""
    before = take_stock()
    with subprocess.Popen(["true"]) as child:
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert differences(before, take_stock()) == [f"child {child.pid} true (Z)"]
