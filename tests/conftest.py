"""Fixtures for all tests.

Goal: a test leaves the process as it found it. `_no_leaks` runs around every test and fails the
one that left a file descriptor, a Python thread or a child process behind, so that a leak is
reported where it was made and not three tests later. `_no_remains` does the same for what a suite
leaves on the machine.
"""

from __future__ import annotations

import gc
import os
import threading
from threading import Event
from typing import TYPE_CHECKING

import pytest

from tests.support.remains import all_remains
from tests.support.stock import differences, take_stock

if TYPE_CHECKING:
    from collections.abc import Iterator

# A library of the test runner writes the size of a terminal there; what is tested obeys it.
for name in ("COLUMNS", "LINES"):
    os.environ.pop(name, None)

LOOKS_COUNT = 20
LOOK_PAUSE_S = 0.5


@pytest.fixture(autouse=True, scope="session")
def _no_remains() -> Iterator[None]:
    """The whole suite leaves no process, mount, cgroup, network namespace or interface behind.

    Only where the machine is ours alone (CI is set, and no other tests run beside these): another
    suite at work looks like a leftover.
    """
    before = all_remains()
    yield
    if not os.environ.get("CI") or os.environ.get("SEATRIAL_TESTS_BESIDE"):
        return
    left = all_remains() - before
    for _ in range(LOOKS_COUNT):  # what tests beside us are still at work with is gone by then
        if not left:
            return
        Event().wait(LOOK_PAUSE_S)
        left &= all_remains()
    if left:
        pytest.fail("the suite left behind:\n  " + "\n  ".join(sorted(left)), pytrace=False)


@pytest.fixture(autouse=True)
def _no_leaks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves descriptors, threads or children behind."""
    before = take_stock()
    yield
    if not differences(before, take_stock()):
        return
    for thread in set(threading.enumerate()) - before.threads:
        thread.join(timeout=2)  # a thread that is just ending is no leak
    gc.collect()  # an object in a reference cycle still holds its descriptor
    lines = differences(before, take_stock())
    if lines:
        pytest.fail(f"{request.node.nodeid} left behind:\n  " + "\n  ".join(lines), pytrace=False)
