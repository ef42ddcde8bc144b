"""The fake driver: what is put into the model comes out of the stamps, and failures happen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from seatrial.drivers.base import DriverContext, SandboxSpec
from seatrial.drivers.fake import FakeDriver
from seatrial.drivers.fake_model import (
    Draws,
    FakeModel,
    Fate,
    Law,
    LawName,
    model_from_options,
    parse_law,
)
from seatrial.errors import ConfigError, DriverError
from seatrial.launch import Outcome
from tests.support.channel import STOP, Channel

if TYPE_CHECKING:
    from pathlib import Path

    from seatrial.drivers.fake import FakeSession
    from seatrial.launch import StartBatch

MS = 1_000_000
STEADY = FakeModel(start=Law(scale_ns=5 * MS), launch_lag=Law(scale_ns=1000))
SPEC = SandboxSpec(role=("idle",), deadline_ns=100 * MS)


def open_fake(model: FakeModel, tmp_path: Path, **options: str | float | bool) -> FakeSession:
    """A session of the fake driver."""
    context = DriverContext(run_id="run-1", state_dir=tmp_path, options=options)
    return FakeDriver(model).open(context)


def start(session: FakeSession, count: int = 1, *, hold: bool = True) -> StartBatch:
    """Start sandboxes up to their first reply."""
    plans = [session.plan(SPEC, index) for index in range(count)]
    return session.launcher.start(plans, wait_for="reply", hold=hold, timeout_ns=10**10)


def test_stamps_are_sums_of_the_model(tmp_path: Path) -> None:
    """Due, invoked, first byte, ready, reply: each is the one before plus a duration."""
    with open_fake(STEADY, tmp_path) as session:
        (result,) = start(session).results
    assert result.outcome is Outcome.OK
    assert result.invoked_at_ns == result.due_at_ns + 1000
    assert result.first_byte_at_ns == result.invoked_at_ns + 5 * MS
    assert result.ready_at_ns == result.first_byte_at_ns + STEADY.ready_ns
    assert result.first_reply_at_ns == result.ready_at_ns + STEADY.reply_ns


def test_starts_beyond_the_processors_wait(tmp_path: Path) -> None:
    """Five starts on two processors take three rounds."""
    with open_fake(STEADY, tmp_path) as session:
        results = start(session, 5).results
    took = [result.first_byte_at_ns - result.invoked_at_ns for result in results]  # type: ignore[operator]  # all came up
    assert took == [5 * MS, 5 * MS, 10 * MS, 10 * MS, 15 * MS]


def test_batches_follow_each_other(tmp_path: Path) -> None:
    """The timeline never goes back, though nothing is waited for."""
    with open_fake(STEADY, tmp_path) as session:
        first, second = start(session), start(session)
    assert second.released_at_ns >= (first.results[0].first_reply_at_ns or 0)


def test_the_same_seed_gives_the_same_lives() -> None:
    """A script depends on the model alone."""
    one, two, other = (Draws(FakeModel(seed=seed)) for seed in (7, 7, 8))
    lives = [[draws.next() for _ in range(50)] for draws in (one, two, other)]
    assert lives[0] == lives[1]
    assert [life.start_ns for life in lives[0]] != [life.start_ns for life in lives[2]]


def test_failures_leave_latencies_alone() -> None:
    """Each kind of draw has a stream of its own."""
    plain = Draws(FakeModel(seed=1))
    failing = Draws(FakeModel(seed=1, hang_ratio=0.5))
    lives = [(plain.next(), failing.next()) for _ in range(50)]
    assert all(one.start_ns == two.start_ns for one, two in lives)
    assert {two.fate for _, two in lives} == {Fate.COMES_UP, Fate.HANGS}


@pytest.mark.parametrize(
    ("model", "outcome", "censored"),
    [
        (FakeModel(spawn_failure_ratio=1.0), Outcome.SPAWN_FAILED, False),
        (FakeModel(early_exit_ratio=1.0), Outcome.EXITED_EARLY, False),
        (FakeModel(hang_ratio=1.0), Outcome.TIMED_OUT, True),
        (FakeModel(start=Law(scale_ns=200 * MS)), Outcome.TIMED_OUT, True),
    ],
)
def test_fates(tmp_path: Path, model: FakeModel, outcome: Outcome, *, censored: bool) -> None:
    """Each failure has its own outcome; a deadline censors."""
    with open_fake(model, tmp_path) as session:
        (result,) = start(session).results
        assert (result.outcome, result.censored) == (outcome, censored)
        if censored:
            assert result.exit_seen_at_ns == result.due_at_ns + SPEC.deadline_ns
        assert session.processes(result.id) == {}


def test_stop_and_gone(tmp_path: Path) -> None:
    """Exit and the end of everything come when the script says."""
    model = FakeModel(stop=Law(scale_ns=3 * MS), gone=Law(scale_ns=4 * MS))
    with open_fake(model, tmp_path) as session:
        (result,) = start(session).results
        assert session.wait_gone(result.id, 0) is None
        (stop,) = session.launcher.stop()
        assert stop.stop_requested_at_ns is not None
        assert stop.exit_seen_at_ns == stop.stop_requested_at_ns + 3 * MS
        assert session.wait_gone(result.id, 0) == stop.exit_seen_at_ns + 4 * MS
        session.release(result.id)
        assert session.audit() == ()


def test_leaks_are_never_gone_and_stay_in_the_audit(tmp_path: Path) -> None:
    """A leak is what the audit is tested with."""
    with open_fake(FakeModel(leak_ratio=1.0), tmp_path) as session:
        (result,) = start(session, hold=False).results
        assert result.exit_code == 0
        assert session.wait_gone(result.id, 10**18) is None
        session.release(result.id)
        assert [leak.name for leak in session.audit()] == [result.id]


def test_books(tmp_path: Path) -> None:
    """CPU and memory as scripted, halves that add up, the limit as asked."""
    model = FakeModel(cpu=Law(scale_ns=3 * MS + 1), memory_bytes=1000)
    with open_fake(model, tmp_path) as session:
        plan = session.plan(SandboxSpec(role=("idle",), memory_limit_bytes=77), 0)
        session.launcher.start([plan], wait_for="ready", hold=True, timeout_ns=10**10)
        books = session.cgroups(plan.id)
        cpu = books.read_cpu()
        assert cpu.total_ns == (cpu.user_ns or 0) + (cpu.system_ns or 0) == 3 * MS + 1
        assert books.read_memory().usage_bytes == 1000
        assert books.memory_limit_bytes() == 77


def test_conversation(tmp_path: Path) -> None:
    """Behind the channel is a guest that answers as the real one does."""
    with open_fake(FakeModel(), tmp_path) as session:
        (result,) = start(session).results
        with Channel(session.launcher.channel(result.id)) as channel:
            assert channel.ping(b"abc") == b"abc"
            said = channel.run({"probe": "syscall", "iterations": 10, "batches": 4})
            assert said["operations_per_batch"] == 10
            assert len(said["batch_ns"]) == 4  # type: ignore[arg-type]  # decoded JSON
            channel.send(STOP)


def test_first_start_and_drift() -> None:
    """A cold first round and a drifting machine can be scripted."""
    draws = Draws(FakeModel(start=Law(scale_ns=1000), first_start_ratio=3.0, drift_ratio=0.1))
    assert [draws.next().start_ns for _ in range(3)] == [3000, 1100, 1200]


def test_what_was_never_planned(tmp_path: Path) -> None:
    """Unknown ids are errors here as everywhere."""
    with open_fake(FakeModel(), tmp_path) as session:
        with pytest.raises(DriverError, match="no sandbox"):
            session.processes("st-none")
        with pytest.raises(DriverError, match="not running"):
            session.launcher.stop(["st-none"])


@pytest.mark.parametrize("law", list(LawName))
def test_draws_follow_their_law(law: LawName) -> None:
    """The share of draws below the exact median is a half, within 4 standard errors."""
    import random

    source = random.Random(1)
    model = Law(name=law, scale_ns=1_000_000, sigma=0.5)
    values = [model.draw(source) for _ in range(4000)]
    below = sum(value <= model.quantile(0.5) for value in values) / len(values)
    assert law is LawName.CONSTANT or abs(below - 0.5) < 4 * 0.5 / 4000**0.5


class TestOptions:
    def test_laws_numbers_and_durations(self) -> None:
        """A ``[driver.fake]`` table changes the model field by field."""
        options = {
            "start": "lognormal:7ms:0.25",
            "seed": 3,
            "hang_ratio": 1,
            "ready_ns": "2ms",
            "server": "fake://",
        }
        model = model_from_options(FakeModel(), options)
        assert model.start == Law(name=LawName.LOGNORMAL, scale_ns=7 * MS, sigma=0.25)
        assert (model.seed, model.hang_ratio, model.ready_ns) == (3, 1.0, 2 * MS)
        assert model.server == "fake://"

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("speed", 1),
            ("probe_costs_ns", 1),
            ("start", "normal:5ms"),
            ("start", "lognormal:5ms"),
            ("start", "constant:5"),
            ("ready_ns", 5),
            ("hang_ratio", "often"),
            ("seed", True),
        ],
    )
    def test_mistakes_name_the_option(self, name: str, value: str | int) -> None:
        """What is unknown or has no unit is refused."""
        with pytest.raises(ConfigError):
            model_from_options(FakeModel(), {name: value})

    def test_constant_law(self) -> None:
        """The simplest law."""
        assert parse_law("constant:5us", where="x") == Law(scale_ns=5000)
