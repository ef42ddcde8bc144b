"""Who holds a group, and what is taken for abandoned; on made-up trees, with real locks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.probes import cgroup_hold
from seatrial.probes.cgroup import CgroupHost, Hierarchy
from seatrial.probes.cgroup_hold import hold, remove_abandoned

if TYPE_CHECKING:
    from pathlib import Path

RUN = "20260102T030405Z-0a1b"


@pytest.fixture
def host(tmp_path: Path) -> CgroupHost:
    """Two hierarchies of cgroup v1."""
    return CgroupHost(
        tuple(
            Hierarchy(
                version=1,
                controllers=frozenset({name}),
                mount=tmp_path / name,
                base=tmp_path / name,
            )
            for name in ("cpu", "memory")
        )
    )


def any_name(_name: str) -> bool:
    """Every group is a run's."""
    return True


def test_a_held_group_is_kept_until_the_last_lets_go(host: CgroupHost) -> None:
    """Two may hold one group; closing twice is harmless."""
    first, second = hold(host.group(RUN)), hold(host.group(RUN))
    assert first is not None
    assert second is not None
    host.create(f"{RUN}/001")
    assert remove_abandoned(host, any_name) == ()
    first.close()
    first.close()
    assert remove_abandoned(host, any_name) == ()
    assert len(host.group(f"{RUN}/001").directories()) == 2
    second.close()
    assert remove_abandoned(host, any_name) == tuple(
        one.base / "seatrial" / RUN for one in host.hierarchies
    )
    assert host.group(RUN).directories() == ()


def test_only_named_groups_without_processes_go(host: CgroupHost) -> None:
    """A process deep in any hierarchy keeps all; "0" is one in another pid namespace."""
    host.create("foreign")
    host.create(f"{RUN}/001")
    listed = host.hierarchies[1].base / "seatrial" / RUN / "001" / "cgroup.procs"
    listed.write_text("0\n")
    assert remove_abandoned(host, lambda name: name == RUN) == ()
    assert len(host.group(f"{RUN}/001").directories()) == 2
    listed.unlink()
    assert len(remove_abandoned(host, lambda name: name == RUN)) == 2
    assert len(host.group("foreign").directories()) == 2


def test_a_group_removed_before_it_was_locked_is_made_again(
    host: CgroupHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held is what the path names, not a directory that is gone."""
    lock, removals = cgroup_hold._lock, []

    def late(descriptor: int, kind: int) -> bool:
        if not removals:
            removals.extend(host.group(RUN).directories())
            for place in removals:
                place.rmdir()
        return lock(descriptor, kind)

    monkeypatch.setattr(cgroup_hold, "_lock", late)
    held = hold(host.group(RUN))
    assert len(removals) == 1
    assert held is not None
    assert remove_abandoned(host, any_name) == ()
    held.close()
    assert len(remove_abandoned(host, any_name)) == 1


def test_what_somebody_else_has_locked_is_not_waited_for_without_end(
    host: CgroupHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the run goes on without a hold."""
    monkeypatch.setattr(cgroup_hold, "CLAIM_TIMEOUT_NS", 2_000_000)
    host.create(RUN)
    with cgroup_hold._claimed(host.group(RUN)) as places:
        assert len(places) == 2
        assert hold(host.group(RUN)) is None


def test_without_groups_nothing_is_held(tmp_path: Path) -> None:
    """No hierarchy, or one in which nothing can be made."""
    assert hold(CgroupHost(()).group(RUN)) is None
    assert remove_abandoned(CgroupHost(()), any_name) == ()
    (tmp_path / "file").write_text("")
    place = tmp_path / "file"
    one = Hierarchy(version=1, controllers=frozenset({"cpu"}), mount=place, base=place)
    assert hold(CgroupHost((one,)).group(RUN)) is None
