"""The coordinator: starts agents, lets them offer one load together, and merges what they found.

Every agent draws the same schedule and sends its own part of it (``agent`` of ``agents`` in the
request), all from one agreed instant on. An agent that dies or falls silent ends the load: a load
with a hole in it is not the one that was asked for.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import secrets
import selectors
import signal
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Self

from seatrial import proc
from seatrial.agents.cargo import Gathered, order_of, unpack_snapshot
from seatrial.agents.frames import Frame, FrameError, Kind
from seatrial.agents.live import LoadSnapshot, TeamSnapshot
from seatrial.agents.outcome import LoadOutcome
from seatrial.agents.peer import (
    AGENT_VARIABLE,
    Identity,
    Peer,
    PeerLost,
    accept_agent,
    own_identity,
)
from seatrial.agents.worker import SILENCE_NS
from seatrial.errors import EnvironmentTrouble, TrialFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType, TracebackType

    from seatrial.loadgen import LoadRequest

TOKEN_BYTES: Final = 32
#: From the order to the start: time in which every agent makes its connections.
LEAD_NS: Final = 300_000_000
LEAD_PER_CONNECTION_NS: Final = 200_000
#: An agent may need this much longer than its load is long before it is overdue.
OVERDUE_NS: Final = 60_000_000_000
#: How often the start may be put off because an agent was not ready by then.
STARTS_MAX: Final = 4
START_FACTOR: Final = 4
CODE_START_MISSED: Final = "start-missed"
TURN_NS: Final = 100_000_000
LAST_WORDS_BYTES: Final = 2_000


@dataclasses.dataclass(frozen=True, slots=True)
class TeamOutcome:
    """What each agent found, by its name; merge those whose numbers belong together."""

    by_agent: Mapping[str, LoadOutcome]
    was_interrupted: bool

    def merged(self, *names: str) -> LoadOutcome:
        """Returns what the named agents found as one, or all of them if none is named."""
        chosen = [self.by_agent[name] for name in names or self.by_agent]
        outcome = LoadOutcome.merged(chosen)
        return dataclasses.replace(outcome, was_interrupted=self.was_interrupted)


@dataclasses.dataclass(slots=True)
class _Member:
    """One agent, as the coordinator knows it."""

    identity: Identity
    peer: Peer
    process: proc.Spawned | None
    heard_at_ns: int
    gathered: Gathered | None = None
    failure: Frame | None = None

    def describe(self) -> str:
        who = self.identity
        return f"agent {who.name} (process {who.pid} on {who.host})"


class Team:
    """Agents that are ready for loads; leaving the ``with`` block ends them all."""

    def __init__(self) -> None:
        """Makes an empty team; use `local` for agents on this host."""
        self._members: dict[str, _Member] = {}
        self._token = secrets.token_bytes(TOKEN_BYTES)

    @classmethod
    def local(cls, names: Sequence[str]) -> Self:
        """Starts an agent process for each name, each on a socket pair of its own.

        Raises:
            EnvironmentTrouble: a process cannot be started.
            TrialFailed: a process does not become an agent.
        """
        team = cls()
        try:
            for name in names:
                team._start_local(name)
        except BaseException:
            team.close()
            raise
        return team

    @property
    def token_text(self) -> str:
        """The token as agents take it from the variable SEATRIAL_AGENT_TOKEN."""
        return self._token.hex()

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the agents."""
        return tuple(self._members)

    def pid_of(self, name: str) -> int:
        """The process id of an agent, on its own host."""
        return self._members[name].identity.pid

    def admit(self, stream: socket.socket, process: proc.Spawned | None = None) -> str:
        """Does the handshake with an agent that has connected; returns its name.

        Raises:
            FrameError: it speaks another protocol, does not know the token, or its name is taken.
            PeerLost: it went away or is silent.
            EnvironmentTrouble: its clock is not ours.
        """
        peer = Peer(stream)
        try:
            identity = accept_agent(peer, self._token)
            self._check(identity)
        except BaseException:
            peer.close()
            raise
        member = _Member(identity, peer, process, heard_at_ns=time.monotonic_ns())
        self._members[identity.name] = member
        return identity.name

    def _check(self, identity: Identity) -> None:
        if identity.name in self._members:
            raise FrameError(f"a second agent calls itself {identity.name}")
        if identity.boot_id != own_identity("coordinator").boot_id:
            raise EnvironmentTrouble(
                f"agent {identity.name} runs on {identity.host}, whose clock is not this one's",
                hint="run agents on the coordinator's host, or in sandboxes of it",
            )

    def _start_local(self, name: str) -> None:
        ours, theirs = socket.socketpair()
        with contextlib.ExitStack() as stack:
            stack.callback(ours.close)
            process = proc.spawn(
                [
                    sys.executable,
                    "-m",
                    "seatrial.cli.main",
                    "agent",
                    "--name",
                    name,
                    "--fd",
                    str(theirs.fileno()),
                ],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, AGENT_VARIABLE: self.token_text},
                stderr="pipe",
            )
            stack.callback(process.close)
            theirs.close()
            try:
                self.admit(ours, process)
            except PeerLost as error:
                raise PeerLost(
                    f"agent {name} did not come up: {error}{_last_words(process)}"
                ) from error
            stack.pop_all()

    def run(
        self,
        requests: Mapping[str, LoadRequest],
        *,
        observe: Callable[[LoadSnapshot], bool] | None = None,
    ) -> TeamOutcome:
        """Lets the named agents offer one load each, from one instant on, and merges the results.

        `observe` is called a few times a second; True stops offering, everywhere, without losing
        what was measured. Ctrl-C does the same and marks the result as interrupted.

        Raises:
            TrialFailed: an agent died, fell silent or is overdue (`agent-lost`), or could not offer
                its load; the message names it.
        """
        lead_ns = LEAD_NS + LEAD_PER_CONNECTION_NS * max(
            request.connections for request in requests.values()
        )
        for _ in range(STARTS_MAX):
            try:
                return _Load(self._chosen(requests), requests, observe).perform(lead_ns)
            except _StartMissed:
                lead_ns *= START_FACTOR
        message = f"the agents were not ready within {lead_ns // START_FACTOR / 1e9:.1f} s"
        raise TrialFailed(message, hint="use fewer connections or agents", code=CODE_START_MISSED)

    def _chosen(self, requests: Mapping[str, LoadRequest]) -> Mapping[str, _Member]:
        return {name: self._members[name] for name in requests}

    def close(self) -> None:
        """Ends every agent; one that does not obey is killed."""
        for member in self._members.values():
            with contextlib.suppress(PeerLost):
                member.peer.send(Kind.BYE, {})
        for member in self._members.values():
            if member.process is not None:
                member.process.wait(timeout_s=1.0)
                member.process.close()
            member.peer.close()
        self._members.clear()

    def __enter__(self) -> Self:
        """Gives the team itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ends the agents whatever happened."""
        self.close()


class _StartMissed(Exception):
    """An agent was not ready at the agreed instant."""


class _Load:
    """One load of a team, from the order to the reports."""

    def __init__(
        self,
        members: Mapping[str, _Member],
        requests: Mapping[str, LoadRequest],
        observe: Callable[[LoadSnapshot], bool] | None,
    ) -> None:
        self._members = members
        self._requests = requests
        self._observe = observe
        self._snapshot = TeamSnapshot()
        self._is_finishing = False
        self._interrupts_count = 0

    def perform(self, lead_ns: int) -> TeamOutcome:
        start_at_ns = time.monotonic_ns() + lead_ns
        for name, member in self._members.items():
            member.gathered, member.failure = Gathered(), None
            member.heard_at_ns = time.monotonic_ns()
            request = dataclasses.replace(self._requests[name], start_at_ns=start_at_ns)
            self._say(member, Kind.RUN, order_of(request))
        deadline_ns = start_at_ns + max(map(_length_ns, self._requests.values())) + OVERDUE_NS
        with _interrupts_noted(self._note), selectors.DefaultSelector() as selector:
            for member in self._members.values():
                selector.register(member.peer, selectors.EVENT_READ, member)
            while any(self._is_out(member) for member in self._members.values()):
                self._turn(selector, deadline_ns)
            self._raise_failures()
            outcomes = {
                name: member.gathered.outcome()
                for name, member in self._members.items()
                if member.gathered is not None
            }
        return TeamOutcome(outcomes, was_interrupted=self._interrupts_count > 0)

    def _note(self) -> None:
        self._interrupts_count += 1

    @staticmethod
    def _is_out(member: _Member) -> bool:
        return member.failure is None and not (member.gathered and member.gathered.is_whole)

    def _turn(self, selector: selectors.BaseSelector, deadline_ns: int) -> None:
        for key, _ in selector.select(TURN_NS / 1e9):
            self._listen(key.data)
        self._look_for_the_dead(deadline_ns)
        if self._interrupts_count > 1:
            raise KeyboardInterrupt
        if self._interrupts_count or self._is_to_finish():
            self._finish()

    def _is_to_finish(self) -> bool:
        """Shows what is new to the observer, and gives its answer."""
        if self._observe is None or self._is_finishing or not self._snapshot.is_fresh:
            return False
        return self._observe(self._snapshot.take_all())

    def _listen(self, member: _Member) -> None:
        while True:
            try:
                frame = member.peer.receive(timeout_ns=0)
            except PeerLost as error:
                raise _lost(member, str(error)) from error
            if frame is None:
                return
            member.heard_at_ns = time.monotonic_ns()
            self._take(member, frame)

    def _take(self, member: _Member, frame: Frame) -> None:
        match frame.kind:
            case Kind.SNAPSHOT:
                self._snapshot.put(member.identity.name, unpack_snapshot(frame))
            case Kind.PART | Kind.REPORT if member.gathered is not None:
                member.gathered.take(frame)
            case Kind.FAILED:
                member.failure = frame
                self._finish()
            case _:
                pass

    def _look_for_the_dead(self, deadline_ns: int) -> None:
        now_ns = time.monotonic_ns()
        for member in self._members.values():
            if not self._is_out(member):
                continue
            silence_ns = now_ns - member.heard_at_ns
            if silence_ns > SILENCE_NS:
                raise _lost(member, f"it has said nothing for {silence_ns / 1e9:.1f} s")
            if now_ns > deadline_ns:
                message = f"{member.describe()} should have reported long ago"
                raise TrialFailed(message, code="agent-lost")

    def _finish(self) -> None:
        if not self._is_finishing:
            self._is_finishing = True
            for member in self._members.values():
                self._say(member, Kind.FINISH, {})

    def _say(self, member: _Member, kind: Kind, fields: Mapping[str, object]) -> None:
        try:
            member.peer.send(kind, fields)
        except PeerLost as error:
            raise _lost(member, str(error)) from error

    def _raise_failures(self) -> None:
        failed = [member for member in self._members.values() if member.failure is not None]
        if not failed:
            return
        told = [member.failure.fields for member in failed if member.failure is not None]
        if any(fields.get("code") == CODE_START_MISSED for fields in told):
            raise _StartMissed
        first, hint = told[0], told[0].get("hint")
        raise TrialFailed(
            f"{failed[0].describe()}: {first.get('message')}",
            hint=None if hint is None else str(hint),
            code=str(first.get("code")),
        )


@contextlib.contextmanager
def _interrupts_noted(note: Callable[[], None]) -> Iterator[None]:
    """Calls `note` where a signal would raise `KeyboardInterrupt`.

    In the middle of reading it could lose a piece of a frame, and with it a whole report.
    """
    before: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        try:
            before[signal.Signals(number)](number, frame)
        except KeyboardInterrupt:
            note()

    # Elsewhere signals neither arrive nor can be taken.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = handler
                signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _length_ns(request: LoadRequest) -> int:
    return request.warm_up_ns + request.measure_ns + request.drain_ns


def _lost(member: _Member, reason: str) -> TrialFailed:
    words = "" if member.process is None else _last_words(member.process)
    return PeerLost(f"{member.describe()} is lost: {reason}{words}")


def _last_words(process: proc.Spawned) -> str:
    """What a process said last, if it has ended."""
    code = process.wait(timeout_s=0.2)
    if code is None or process.stderr is None:
        return ""
    words = process.stderr.read()[-LAST_WORDS_BYTES:].decode(errors="replace").strip()
    return f"; it ended with {code}" + (f" and said: {words}" if words else "")
