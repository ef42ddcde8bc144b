"""The agent protocol: frames survive any cut, and nothing that was altered is believed."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.agents.frames import (
    BODY_BYTES_MAX,
    Decoder,
    Frame,
    FrameError,
    Kind,
    Sealer,
    encode,
)
from seatrial.agents.peer import Peer, PeerLost, accept_agent, join_coordinator, own_identity
from seatrial.errors import SeatrialError

if TYPE_CHECKING:
    from collections.abc import Iterator

KEY = b"k" * 32
TOKEN = b"t" * 32
FRAMES = [
    Frame(Kind.RUN, {"rate_rps": 1000.5, "targets": ["tcp://127.0.0.1:1"]}),
    Frame(Kind.SNAPSHOT, {"ok_count": 7}, b"\x00\xffbytes"),
    Frame(Kind.ALIVE, {}),
    Frame(Kind.REPORT, {"name": "records"}, bytes(range(256)) * 8),
]


def stream_of(frames: list[Frame]) -> bytes:
    """Returns the bytes of frames that one sealed direction carries."""
    sealer = Sealer(KEY)
    return b"".join(encode(frame, sealer) for frame in frames)


def sealed_decoder() -> Decoder:
    """Returns the reader of that direction."""
    decoder = Decoder()
    decoder.expect_tags_of(Sealer(KEY))
    return decoder


@given(cut=st.integers(1, 300))
def test_frames_survive_any_cut(cut: int) -> None:
    """However the stream is cut into reads, every frame is found once, in order."""
    data, decoder = stream_of(FRAMES), sealed_decoder()
    found = [
        frame
        for start in range(0, len(data), cut)
        for frame in decoder.feed(data[start : start + cut])
    ]
    assert found == FRAMES


@settings(max_examples=2000, deadline=None)
@given(data=st.data())
def test_altered_streams_are_refused_or_cut_short(data: st.DataObject) -> None:
    """Five mutations each: what is delivered is a prefix of what was sent, never anything else."""
    whole = bytearray(stream_of(FRAMES))
    for _ in range(5):
        position = data.draw(st.integers(0, max(0, len(whole) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "insert", "repeat"])):
            case "flip" if whole:
                whole[position] ^= data.draw(st.integers(1, 255))
            case "cut":
                del whole[position:]
            case "insert":
                whole[position:position] = data.draw(st.binary(min_size=1, max_size=20))
            case _:
                whole[position:position] = whole[: data.draw(st.integers(0, 80))]
    decoder, found = sealed_decoder(), []
    with contextlib.suppress(FrameError):
        for frame in decoder.feed(bytes(whole)):
            found.append(frame)  # noqa: PERF402 - what came before the error counts
    assert found == FRAMES[: len(found)]


@settings(max_examples=2000, deadline=None)
@given(junk=st.binary(max_size=200))
def test_garbage_before_the_handshake_is_refused_or_waited_for(junk: bytes) -> None:
    """Without tags, random bytes never become a frame, and never hold more than they are."""
    decoder = Decoder()
    try:
        assert list(decoder.feed(junk)) == []
    except FrameError:
        assert junk
    assert len(decoder._bytes) <= len(junk)


def test_a_frame_cannot_be_replayed() -> None:
    """The same bytes a second time carry the wrong sequence number."""
    data, decoder = stream_of(FRAMES[:1]), sealed_decoder()
    assert list(decoder.feed(data)) == FRAMES[:1]
    with pytest.raises(FrameError, match="tag is wrong") as caught:
        list(decoder.feed(data))
    assert caught.value.code == "agent-protocol"


def test_too_long_a_body_is_refused_on_both_ends() -> None:
    """Neither end makes or believes a frame beyond the bound."""
    with pytest.raises(ValueError, match="expected at most"):
        encode(Frame(Kind.PART, {}, bytes(BODY_BYTES_MAX)), Sealer(KEY))
    header = bytearray(stream_of(FRAMES[:1])[:12])
    header[8:12] = (BODY_BYTES_MAX + 1).to_bytes(4, "little")
    with pytest.raises(FrameError, match="its body has"):
        list(Decoder().feed(bytes(header)))


@pytest.fixture
def ends() -> Iterator[tuple[Peer, Peer]]:
    """Both ends of a connection."""
    first, second = (Peer(stream) for stream in socket.socketpair())
    yield first, second
    first.close()
    second.close()


def shake(ends: tuple[Peer, Peer], agent_token: bytes) -> list[SeatrialError]:
    """Does both parts of the handshake, and returns what failed."""
    errors: list[SeatrialError] = []

    def join() -> None:
        try:
            join_coordinator(ends[1], agent_token, own_identity("a"))
        except SeatrialError as error:
            errors.append(error)
            ends[1].close()

    thread = threading.Thread(target=join)
    thread.start()
    try:
        assert accept_agent(ends[0], TOKEN).name == "a"
    except SeatrialError as error:
        errors.append(error)
        ends[0].close()
    thread.join()
    return errors


def test_both_ends_prove_the_token(ends: tuple[Peer, Peer]) -> None:
    """After the handshake both directions work, with tags."""
    assert shake(ends, TOKEN) == []
    for sender, receiver in (ends, ends[::-1]):
        sender.send(Kind.ALIVE, {"n": 1})
        assert receiver.receive(timeout_ns=10**9) == Frame(Kind.ALIVE, {"n": 1})
    assert ends[0].receive(timeout_ns=0) is None


def test_an_order_may_come_together_with_the_handshake(ends: tuple[Peer, Peer]) -> None:
    """What follows the last frame of the handshake in one read is read with tags."""
    coordinator, agent = ends
    held = threading.Event()

    def join() -> None:
        agent_hello(agent, held)

    thread = threading.Thread(target=join)
    thread.start()
    accept_agent(coordinator, TOKEN)
    coordinator.send(Kind.RUN, {"rate_rps": 5})
    held.set()
    thread.join()
    assert agent.receive(timeout_ns=10**9) == Frame(Kind.RUN, {"rate_rps": 5})


def agent_hello(agent: Peer, held: threading.Event) -> None:
    """Does the agent's part, but reads the coordinator's proof only once the order is there too."""
    receive = agent.receive

    def late(*, timeout_ns: int) -> Frame | None:
        if agent_hello_calls:
            held.wait(timeout=10)
        agent_hello_calls.append(1)
        return receive(timeout_ns=timeout_ns)

    agent_hello_calls: list[int] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agent, "receive", late)
        join_coordinator(agent, TOKEN, own_identity("a"))


def test_a_wrong_token_is_refused(ends: tuple[Peer, Peer]) -> None:
    """The coordinator does not say a word to an agent that does not know the token."""
    first, second = shake(ends, b"x" * 32)
    assert "does not know the token" in str(first)
    assert isinstance(second, PeerLost)
    assert second.code == "agent-lost"
