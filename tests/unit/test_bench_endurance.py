"""The endurance run finds what it is for: a lost request, a wrong count, a growing process."""

from __future__ import annotations

import resource

import pytest

from benchmarks.endurance import Part, checked, raise_files_limit
from benchmarks.watched import Watched
from seatrial.errors import EnvironmentTrouble
from seatrial.guest.stats import ServerStats
from seatrial.loadgen import Histogram
from seatrial.units import MIB, NS_PER_S

PART = Part(name="steady", rate_rps=100.0, connections=4, length_ns=10 * NS_PER_S)
FIGURES = {"intended_count": 1000, "sent_count": 1000, "ok_count": 1000, "rate_rps": 100.0}
FLAT = [100 * MIB] * 40


def failing(
    *,
    figures: dict[str, float] | None = None,
    memory: list[int] | None = None,
    requests: int = 1000,
    connections: int = 4,
) -> set[str]:
    """The names of the checks that do not hold."""
    readings = {"engine": memory or FLAT, "server": FLAT}
    watched = Watched(figures={**FIGURES, **(figures or {})}, readings=readings)
    stats = ServerStats(
        protocol="rpc",
        at_mono_ns=1,
        accepted_connections=connections,
        refused_connections=0,
        closed_connections=connections,
        open_connections=0,
        requests=requests,
        replies=requests,
        bad_requests=0,
        unknown_requests=0,
        dropped_datagrams=0,
        received_bytes=1,
        sent_bytes=1,
        operations={},
        worker_requests=(requests,),
        service_histogram=Histogram(),
        queue_histogram=Histogram(),
    )
    return {check.name for check in checked(PART, watched, stats) if not check.holds}


def test_a_sound_run_holds_everything() -> None:
    """Nothing is found where nothing is wrong."""
    assert failing() == set()


def test_what_is_wrong_is_found() -> None:
    """Each kind of trouble fails its own check."""
    assert failing(figures={"ok_count": 999}) == {
        "correct replies, of what was due",
        "replies that the server counted, of correct ones",
    }
    assert failing(requests=1001) == {
        "requests that the server counted, of what was sent",
        "replies that the server counted, of correct ones",
    }
    assert failing(connections=5) == {"connections that the server took"}
    assert failing(figures={"rate_rps": 80.0}) == {"rate"}


def test_growth_is_from_the_second_tenth_to_the_last() -> None:
    """What is touched first does not count, nor does one odd reading; what creeps does."""
    assert failing(memory=[1 * MIB] * 4 + FLAT[4:]) == set()
    assert failing(memory=[*FLAT[:-1], 900 * MIB]) == set()
    creeping = [100 * MIB + number * MIB for number in range(40)]
    assert failing(memory=creeping) == {"growth of the engine's memory"}


def test_too_short_a_run_has_no_growth() -> None:
    """Ten parts need ten readings."""
    watched = Watched(figures={}, readings={"engine": [1] * 9})
    with pytest.raises(EnvironmentTrouble, match="9 readings of memory; need at least 10"):
        watched.growth_bytes("engine")


def test_more_files_than_the_machine_allows() -> None:
    """The limit and the wish are in the message."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this machine has no limit")
    with pytest.raises(EnvironmentTrouble, match=f"at most {hard} files .* expected {hard + 1}"):
        raise_files_limit(hard + 1)
