"""The doctor's deadlines and lanes, its exit code, and what a person reads."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NoReturn

import pytest

from seatrial.cli import doctor as command
from seatrial.cli.doctor_text import bar_lines, show, summary
from seatrial.doctor import examine as examination
from seatrial.doctor import (
    launcher,
)
from seatrial.doctor.check import About, Check, Group, Level
from seatrial.doctor.examine import Examination, Wanted, examine
from seatrial.doctor.runtimes import Ability
from seatrial.doctor.step import Performer, Step
from seatrial.drivers import registry
from seatrial.drivers.base import ProbeResult, ProbeStatus
from seatrial.errors import ConfigError, DriverUnavailable
from seatrial.model.codec import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from seatrial.drivers.base import DriverContext

SAY = About(Group.HOST)


def probed(status: ProbeStatus, **changes: object) -> ProbeResult:
    """What a probe of a driver gave."""
    result = ProbeResult(
        name="process", status=status, version="1.2", detail="said so", hint="do this"
    )
    return replace(result, **changes)  # type: ignore[arg-type]  # fields of the caller's choice


# --- steps ---------------------------------------------------------------------------------------


def steps_that(*works: object) -> list[Step]:
    """Steps with a short deadline."""
    return [
        Step(group=Group.HOST, name=f"step {number}", look=work, deadline_ns=200_000_000)  # type: ignore[arg-type]  # made by the test
        for number, work in enumerate(works)
    ]


def test_a_step_that_hangs_is_given_up_and_the_rest_goes_on() -> None:
    """What it had found before stays."""
    release = threading.Event()

    def hangs() -> Iterator[Check]:
        yield SAY.ok("first", "found")
        release.wait(30)

    checks = Performer().perform(steps_that(hangs, lambda: [SAY.ok("next", "fine")]))
    release.set()
    assert [(check.name, check.level) for check in checks] == [
        ("first", Level.OK),
        ("step 0", Level.BROKEN),
        ("next", Level.OK),
    ]
    assert "no answer within 200 ms" in checks[1].evidence
    assert checks[1].elapsed_ns >= 200_000_000


def test_a_step_that_fails_hides_no_other() -> None:
    """Its error is the evidence, its hint the fix."""

    def fails() -> Iterator[Check]:
        raise ConfigError("wrong", hint="right it")
        yield

    checks = Performer().perform(steps_that(fails, lambda: [SAY.ok("next", "fine")]))
    assert [check.level for check in checks] == [Level.BROKEN, Level.OK]
    assert (checks[0].evidence, checks[0].fix) == ("ConfigError: wrong", "right it")


def test_what_does_not_fit_the_budget_is_not_tried() -> None:
    """And it is said."""
    checks = Performer(budget_ns=0).perform(steps_that(lambda: [SAY.ok("x", "y")]))
    assert [check.level for check in checks] == [Level.UNTRIED]


def test_lanes_run_beside_each_other() -> None:
    """Each waits for the other, which steps in one row could not."""
    one, other = threading.Event(), threading.Event()

    def meet(mine: threading.Event, yours: threading.Event) -> Iterator[Check]:
        mine.set()
        yield SAY.ok("met", str(yours.wait(10)))

    lanes = [
        [Step(group=Group.HOST, name="a", look=lambda: meet(one, other))],
        [Step(group=Group.HOST, name="b", look=lambda: meet(other, one))],
    ]
    assert [check.evidence for check in Performer().perform_lanes(lanes)] == ["True", "True"]


def test_an_interrupt_lets_what_is_under_way_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that it removes what it made; what has not begun is left."""
    begun, ended = threading.Event(), threading.Event()

    def slow() -> Iterator[Check]:
        begun.set()
        threading.Event().wait(0.2)
        ended.set()
        yield SAY.ok("slow", "done")

    original = threading.Thread.join
    first = iter([True])

    def join(thread: threading.Thread, timeout: float | None = None) -> None:
        if thread.name.startswith("seatrial-doctor") and next(first, False):
            begun.wait(10)
            raise KeyboardInterrupt
        original(thread, timeout)

    monkeypatch.setattr(threading.Thread, "join", join)
    later = threading.Event()

    def never() -> Iterator[Check]:
        later.set()
        yield SAY.ok("never", "done")

    lane = [
        Step(group=Group.HOST, name="slow", look=slow),
        Step(group=Group.HOST, name="never", look=never),
    ]
    with pytest.raises(KeyboardInterrupt):
        Performer().perform_lanes([lane])
    assert ended.is_set()
    assert not later.is_set()


# --- the whole -----------------------------------------------------------------------------------


class FakeDriver:
    """A driver whose probe ends as told."""

    def __init__(self, name: str, status: ProbeStatus) -> None:
        self.name = name
        self.status = status

    def probe(self) -> ProbeResult:
        return probed(self.status, name=self.name)

    def open(self, context: DriverContext) -> NoReturn:
        """It was there a moment ago."""
        raise DriverUnavailable(f"{self.name} went away with {context.run_id}")


@pytest.mark.parametrize(
    ("drivers", "status", "code"),
    [
        (None, ProbeStatus.WORKS, 0),
        (None, ProbeStatus.BROKEN, 3),
        (("runc",), ProbeStatus.MISSING, 3),
        (("runc",), ProbeStatus.DEGRADED, 0),
    ],
)
def test_the_exit_code_is_of_what_was_chosen(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    drivers: tuple[str, ...] | None,
    status: ProbeStatus,
    code: int,
) -> None:
    """Without a choice only the baseline counts."""
    monkeypatch.setattr(registry, "get", lambda name: FakeDriver(name, status))
    words = ["doctor", "--only", "runtimes"]
    if drivers:
        words += ["--drivers", ",".join(drivers)]
    from seatrial.cli.main import main

    assert main(words) == code
    said = capsys.readouterr().out
    assert f"Exit code {code}" in said


def test_only_the_groups_asked_for_are_looked_at() -> None:
    """The audit of the examination itself is always made."""
    found = examine(Wanted(groups=frozenset({Group.LIMITS}), starts=False))
    assert {check.group for check in found.checks} == {Group.LIMITS, Group.LEFTOVERS}
    assert found.checks[-1].name == "this examination"


def test_containers_of_others_are_those_of_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shims of servers that the examination itself started end a moment after them."""
    seen = iter([{1: "init"}, {1: "init", 2: "containerd-shim"}])
    monkeypatch.setattr(examination.leftovers, "read_commands", lambda _tree: next(seen))
    found = examine(Wanted(groups=frozenset({Group.LEFTOVERS}), starts=False))
    checks = {check.name: check for check in found.checks}
    assert checks["containers of others"].evidence == "none"


def test_fast_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a sandbox nor a null process nor a guest."""

    def forbidden(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(registry, "get", forbidden)
    monkeypatch.setattr(launcher, "check_launcher", forbidden)
    monkeypatch.setattr(examination.kvm, "check_boot", forbidden)
    groups = frozenset({Group.RUNTIMES, Group.LAUNCHER, Group.KVM})
    found = examine(Wanted(groups=groups, starts=False))
    assert not [check for check in found.checks if "AssertionError" in check.evidence]
    untried = {check.name for check in found.checks if check.level is Level.UNTRIED}
    assert {"process", "runc", "launcher", "kvm"} <= untried
    assert found.abilities == ()


def test_an_unknown_group_is_named() -> None:
    """With what is close."""
    with pytest.raises(ConfigError, match="kernel") as caught:
        command.parse_groups("kernl")
    assert caught.value.code == "group-unknown"
    assert command.parse_groups("kernel, kvm") == {Group.KERNEL, Group.KVM}


def made(*checks: Check, abilities: tuple[Ability, ...] = ()) -> Examination:
    """An examination with these checks."""
    return Examination(checks=checks, abilities=abilities, elapsed_ns=1_500_000_000)


def test_problems_come_first_and_each_with_its_fix(capsys: pytest.CaptureFixture[str]) -> None:
    """Broken, missing, warnings, then what is fine, then the sentence."""
    checks = (
        SAY.ok("alpha", "fine [text]"),
        SAY.warn("beta", "hot", so="slow", fix="cool it"),
        SAY.broken("gamma", "dead", so="nothing runs", fix="mend it"),
        SAY.missing("delta", "gone", so="less", fix="fetch it"),
    )
    grades = Ability(driver="runc", start="yes", density="partly", inside="yes", load="no")
    show(made(*checks, abilities=(grades,)), only_problems=False)
    out = capsys.readouterr().out
    places = [out.index(word) for word in ("gamma", "delta", "beta", "alpha", "partly", "4 checks")]
    assert places == sorted(places)
    for words in ("so:  nothing runs", "fix: mend it", "fix: fetch it", "fine [text]"):
        assert words in out
    show(made(*checks), only_problems=True)
    assert "alpha" not in capsys.readouterr().out


def test_the_sentence_at_the_end_counts_and_judges() -> None:
    """It says what is usable and which exit code follows."""
    grades = Ability(driver="runc", start="yes", density="yes", inside="yes", load="yes")
    text = summary(made(SAY.ok("a", "b"), abilities=(grades,)))
    assert text.splitlines() == [
        "1 checks in 1.50 s: 0 broken, 0 missing, 0 warn, 0 untried, 1 ok.",
        "Usable runtimes: runc.",
        "Exit code 0: nothing that was chosen stands in the way.",
    ]
    needed = replace(SAY.missing("runsc", "gone", so="x", fix="y"), is_needed=True)
    assert "Exit code 3: what was chosen needs runsc." in summary(made(needed))


def test_bars_are_as_long_as_their_counts() -> None:
    """Buckets without anything are left out; the smallest is still seen."""
    lines = bar_lines([("a", 300), ("b", 0), ("c", 1)])
    assert [line.count("█") for line in lines] == [30, 1]
    assert lines[0].endswith(" 300")
    assert bar_lines([]) == []


def test_an_examination_has_a_json_form() -> None:
    """Everything in it is data."""
    text = json.dumps(encode(examine(Wanted(groups=frozenset({Group.HOST}), starts=False))))
    checks = json.loads(text)["checks"]
    assert {"group", "name", "level", "evidence", "consequence", "fix", "values"} <= set(checks[0])
