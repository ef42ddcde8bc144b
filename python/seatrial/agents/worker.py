"""The agent: offers the loads that its coordinator asks for, one after another.

The main thread offers the load. Another one reads what the coordinator says and gives signs of
life; when the coordinator is gone it ends the process by SIGKILL, since a load that nobody waits
for must not go on, an agent holds nothing that needs putting away, and SIGTERM may be ignored.
"""

from __future__ import annotations

import queue
import signal
import threading
from typing import TYPE_CHECKING, Final

from seatrial.agents.cargo import pack, pack_snapshot, request_of
from seatrial.agents.frames import Frame, FrameError, Kind
from seatrial.agents.live import LoadSnapshot
from seatrial.agents.outcome import LoadOutcome
from seatrial.agents.peer import PeerLost, join_coordinator
from seatrial.errors import SeatrialError
from seatrial.loadgen import run_load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from seatrial.agents.peer import Identity, Peer
    from seatrial.loadgen import Snapshot

#: How often an agent says that it is alive; the coordinator gives it up after `SILENCE_NS`.
ALIVE_PERIOD_NS: Final = 500_000_000
#: An agent that has said nothing for so long counts as dead.
SILENCE_NS: Final = 2_500_000_000


def work(peer: Peer, token: bytes, identity: Identity) -> None:
    """Obeys a coordinator until it says BYE.

    Raises:
        FrameError: it speaks another protocol, or does not know the token.
        PeerLost: it went away before the handshake was done.
    """
    join_coordinator(peer, token, identity)
    Worker(peer, identity.name).obey()


class Worker:
    """One agent after its handshake."""

    def __init__(self, peer: Peer, name: str) -> None:
        """Takes the connection over."""
        self._peer = peer
        self._name = name
        self._send_lock = threading.Lock()
        self._orders: queue.SimpleQueue[Frame] = queue.SimpleQueue()
        self._is_finished = threading.Event()

    def obey(self) -> None:
        """Offers load after load, until BYE."""
        threading.Thread(target=self._listen, name="seatrial-agent", daemon=True).start()
        while (order := self._orders.get()).kind is not Kind.BYE:
            self._run(order)

    def _run(self, order: Frame) -> None:
        self._is_finished.clear()
        try:
            request = request_of(order.fields)
            result = run_load(request, observe=self._observe)
        except SeatrialError as error:
            told = {"code": error.code, "message": error.message, "hint": error.hint}
            self._say(Kind.FAILED, told)
            return
        outcome = LoadOutcome.of(
            result, name=self._name, threads=request.threads, connections=request.connections
        )
        for frame in pack(outcome):
            self._say(frame.kind, frame.fields, frame.data)

    def _observe(self, snapshot: Snapshot) -> bool:
        frame = pack_snapshot(LoadSnapshot.of(snapshot))
        self._say(frame.kind, frame.fields, frame.data)
        return self._is_finished.is_set()

    def _listen(self) -> None:
        """Sorts what the coordinator says; its silence means nothing, its end everything."""
        try:
            while True:
                frame = self._peer.receive(timeout_ns=ALIVE_PERIOD_NS)
                if frame is None:
                    self._say(Kind.ALIVE, {})
                elif frame.kind is Kind.FINISH:
                    self._is_finished.set()
                elif frame.kind in {Kind.RUN, Kind.BYE}:
                    self._orders.put(frame)
                    if frame.kind is Kind.BYE:
                        return
        except (PeerLost, FrameError):
            signal.raise_signal(signal.SIGKILL)

    def _say(self, kind: Kind, fields: Mapping[str, object], data: bytes = b"") -> None:
        with self._send_lock:
            try:
                self._peer.send(kind, fields, data)
            except PeerLost:
                signal.raise_signal(signal.SIGKILL)
