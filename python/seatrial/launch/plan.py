"""Start plans and their results as data; nothing here talks to anybody.

Every ``*_at_ns`` is ``CLOCK_MONOTONIC`` in nanoseconds as the launcher read it, the clock of
``time.monotonic_ns``; ``guest_*_mono_ns`` is the guest's own clock, of which only differences mean
something unless the sandbox shares the host's. ``None``: the event did not happen.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Literal, Self, TypeAlias, TypeVar

from seatrial.errors import ProtocolMismatch

Namespace: TypeAlias = Literal["mount", "pid", "uts", "ipc", "net", "user", "cgroup"]
WaitFor: TypeAlias = Literal["hello", "ready", "reply"]
StopHow: TypeAlias = Literal["request", "kill"]

_Record = TypeVar("_Record", bound="StartResult | StopResult")


class Outcome(StrEnum):
    """How a start ended."""

    OK = "ok"
    SPAWN_FAILED = "spawn-failed"
    EXITED_EARLY = "exited-early"
    TIMED_OUT = "timed-out"
    PROTOCOL_ERROR = "protocol-error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A file or directory of the host (``source``) that the sandbox sees as ``target``."""

    source: str
    target: str
    read_only: bool = True

    def to_json(self) -> dict[str, object]:
        """Give the bind as the launcher wants it."""
        return {"source": self.source, "target": self.target, "read_only": self.read_only}


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """The recipe of the ``lean`` sandbox: what the child does to itself before it runs its program.

    The root is bound on itself and becomes ``/``; targets of binds, ``tmpfs`` and ``proc`` must
    exist in it. Five harmless devices are bound where ``/dev`` of the root has files for them.
    Without a user namespace that much is done once a root and copied by each start.
    ``network_ahead``: the network namespace is made before the batch is released.
    """

    namespaces: tuple[Namespace, ...]
    root: str | None = None
    binds: tuple[Bind, ...] = ()
    proc: bool = False
    tmpfs: tuple[str, ...] = ()
    hostname: str | None = None
    uid_map: str | None = None
    gid_map: str | None = None
    read_only_root: bool = False
    network_ahead: bool = False

    def to_json(self) -> dict[str, object]:
        """Give the recipe as the launcher wants it."""
        return {
            "namespaces": list(self.namespaces),
            "root": self.root,
            "binds": [bind.to_json() for bind in self.binds],
            "proc": self.proc,
            "tmpfs": list(self.tmpfs),
            "hostname": self.hostname,
            "uid_map": self.uid_map,
            "gid_map": self.gid_map,
            "read_only_root": self.read_only_root,
            "network_ahead": self.network_ahead,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StartPlan:
    """One sandbox to be started, complete: the launcher looks nothing up in the timed path.

    ``cgroup_procs`` are files that the child writes ``0`` to first of all; they are opened before
    the release. ``deadline_ns`` counts from the release of the batch. ``kill_argv`` cleans up after
    a sandbox that had to be killed. ``channel_path``, instead of ``channel_fd``, is a socket that
    the launcher makes and on which the guest calls: for a sandbox that inherits nothing from the
    command. ``channel_token``, instead of both, is what a guest says that calls by TCP, where
    ``Launcher.listen`` has said: 64 digits 0-9 and a-f, secret and used once.
    """

    id: str
    argv: tuple[str, ...]
    deadline_ns: int
    env: tuple[str, ...] = ()
    cwd: str | None = None
    channel_fd: int | None = 3
    channel_path: str | None = None
    channel_token: str | None = field(default=None, repr=False)
    cgroup_procs: tuple[str, ...] = ()
    network_namespace: str | None = None
    isolation: Isolation | None = None
    stdio: Literal["null", "capture"] = "null"
    kill_argv: tuple[str, ...] | None = None
    ready: Literal["hello", "ready"] = "hello"

    def to_json(self) -> dict[str, object]:
        """Give the plan as the launcher wants it."""
        return {
            "id": self.id,
            "argv": list(self.argv),
            "env": list(self.env),
            "cwd": self.cwd,
            "channel_fd": self.channel_fd,
            "channel_path": self.channel_path,
            "cgroup_procs": list(self.cgroup_procs),
            "network_namespace": self.network_namespace,
            "isolation": None if self.isolation is None else self.isolation.to_json(),
            "stdio": self.stdio,
            "deadline_ns": self.deadline_ns,
            "kill_argv": None if self.kill_argv is None else list(self.kill_argv),
            "ready": self.ready,
            # Few have one, and a launcher of before there were any serves the others.
            **({} if self.channel_token is None else {"channel_token": self.channel_token}),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class StartResult:
    """The timeline and the end of one start.

    ``censored``: the deadline passed first, so every duration is only known to be longer. The CPU
    times are those of the direct child and of what it waited for. ``max_rss_bytes`` is never below
    the launcher's own size, because a child shares its memory until it runs its program.
    """

    id: str
    outcome: Outcome
    due_at_ns: int
    pid: int | None = None
    censored: bool = False
    error: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    stderr_tail: str = ""
    invoked_at_ns: int | None = None
    accepted_at_ns: int | None = None
    first_byte_at_ns: int | None = None
    ready_at_ns: int | None = None
    ping_sent_at_ns: int | None = None
    first_reply_at_ns: int | None = None
    stop_requested_at_ns: int | None = None
    exit_seen_at_ns: int | None = None
    guest_first_instruction_mono_ns: int | None = None
    guest_hello_mono_ns: int | None = None
    guest_ready_mono_ns: int | None = None
    user_ns: int | None = None
    system_ns: int | None = None
    max_rss_bytes: int | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> Self:
        """Read what the launcher sent.

        Raises:
            ProtocolMismatch: it is not a result of this version.
        """
        return _from_json(cls, {**record, "outcome": _outcome(record.get("outcome"))})


@dataclass(frozen=True, slots=True, kw_only=True)
class StopResult:
    """The end of one held sandbox; no ``stop_requested_at_ns``: it had ended before by itself."""

    id: str
    stop_requested_at_ns: int | None = None
    exit_seen_at_ns: int | None = None
    exit_code: int | None = None
    signal: int | None = None
    error: str | None = None
    stderr_tail: str = ""
    user_ns: int | None = None
    system_ns: int | None = None
    max_rss_bytes: int | None = None

    @classmethod
    def from_json(cls, record: Mapping[str, object]) -> Self:
        """Read what the launcher sent.

        Raises:
            ProtocolMismatch: it is not a result of this version.
        """
        return _from_json(cls, record)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartBatch:
    """What became of a batch, in the order of its plans.

    ``launcher_user_ns`` and ``launcher_system_ns`` are the launcher's own CPU time during it.
    """

    released_at_ns: int
    results: tuple[StartResult, ...]
    launcher_user_ns: int
    launcher_system_ns: int


def _outcome(value: object) -> Outcome:
    try:
        return Outcome(str(value))
    except ValueError as error:
        known = ", ".join(Outcome)
        message = f"outcome {value!r} from the launcher, expected one of {known}"
        raise ProtocolMismatch(message, hint="run 'make build'") from error


def _from_json(kind: type[_Record], record: Mapping[str, object]) -> _Record:
    names = {one.name for one in fields(kind)}
    if unknown := record.keys() - names:
        message = f"{kind.__name__} from the launcher has unknown fields {sorted(unknown)}"
        raise ProtocolMismatch(message, hint="run 'make build'")
    text = record.get("stderr_tail")
    try:
        return kind(**{**record, "stderr_tail": "" if text is None else text})  # type: ignore[arg-type]  # the launcher's types, tested end to end
    except TypeError as error:
        message = f"{kind.__name__} from the launcher is incomplete: {error}"
        raise ProtocolMismatch(message, hint="run 'make build'") from error
