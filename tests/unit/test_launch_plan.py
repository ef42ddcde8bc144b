"""Start plans and results as data: what goes to the launcher and what is read from it."""

from __future__ import annotations

import json

import pytest

from seatrial.errors import ProtocolMismatch
from seatrial.launch import Bind, Isolation, Outcome, StartPlan, StartResult, StopResult


def test_a_plan_travels_with_every_field() -> None:
    """Every field of a plan stands in its JSON form, nested ones included."""
    plan = StartPlan(
        id="box-0001",
        argv=("/bin/guest", "idle"),
        env=("A=b",),
        cwd="/",
        channel_fd=5,
        cgroup_procs=("/sys/fs/cgroup/x/cgroup.procs",),
        network_namespace="/run/netns/x",
        isolation=Isolation(
            namespaces=("mount", "pid"),
            root="/srv/root",
            binds=(Bind(source="/srv/data", target="/data", read_only=False),),
            proc=True,
            tmpfs=("/tmp",),
            hostname="hull",
            uid_map="0 1000 1",
            gid_map="0 1000 1",
            read_only_root=True,
            network_ahead=True,
        ),
        stdio="capture",
        deadline_ns=5,
        kill_argv=("/bin/true",),
        ready="ready",
    )
    assert json.loads(json.dumps(plan.to_json())) == {
        "id": "box-0001",
        "argv": ["/bin/guest", "idle"],
        "env": ["A=b"],
        "cwd": "/",
        "channel_fd": 5,
        "channel_path": None,
        "cgroup_procs": ["/sys/fs/cgroup/x/cgroup.procs"],
        "network_namespace": "/run/netns/x",
        "isolation": {
            "namespaces": ["mount", "pid"],
            "root": "/srv/root",
            "binds": [{"source": "/srv/data", "target": "/data", "read_only": False}],
            "proc": True,
            "tmpfs": ["/tmp"],
            "hostname": "hull",
            "uid_map": "0 1000 1",
            "gid_map": "0 1000 1",
            "read_only_root": True,
            "network_ahead": True,
        },
        "stdio": "capture",
        "deadline_ns": 5,
        "kill_argv": ["/bin/true"],
        "ready": "ready",
    }


def test_what_a_plan_leaves_out_is_none_or_empty() -> None:
    """The least plan asks for nothing but its command and its channel."""
    record = StartPlan(id="a", argv=("/bin/true",), deadline_ns=1).to_json()
    assert record["isolation"] is None
    assert record["kill_argv"] is None
    assert record["env"] == []
    assert record["channel_fd"] == 3


def test_a_result_keeps_unknown_apart_from_zero() -> None:
    """An event that did not happen is None; output that was not captured is no text."""
    record = {"id": "a", "outcome": "timed-out", "due_at_ns": 7, "stderr_tail": None}
    result = StartResult.from_json(record)
    assert result.outcome is Outcome.TIMED_OUT
    assert result.first_byte_at_ns is None
    assert result.stderr_tail == ""


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"id": "a", "outcome": "fine", "due_at_ns": 1}, "outcome 'fine'"),
        ({"id": "a", "due_at_ns": 1}, "outcome None"),
        ({"id": "a", "outcome": "ok"}, "incomplete"),
        ({"id": "a", "outcome": "ok", "due_at_ns": 1, "colour": 3}, "unknown fields ['colour']"),
    ],
)
def test_a_result_of_another_version_is_refused(record: dict[str, object], expected: str) -> None:
    """A launcher of another version is named as such, not misread."""
    with pytest.raises(ProtocolMismatch) as caught:
        StartResult.from_json(record)
    assert expected in str(caught.value)
    assert caught.value.hint == "run 'make build'"


def test_a_stop_result_is_read() -> None:
    """The end of a held sandbox that had died by itself has no request."""
    result = StopResult.from_json({"id": "a", "exit_seen_at_ns": 9, "signal": 11})
    assert (result.stop_requested_at_ns, result.exit_seen_at_ns, result.signal) == (None, 9, 11)
