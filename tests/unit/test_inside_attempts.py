"""Tries of work in a sandbox: commands as asked, outcomes told apart, first touch kept apart."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import polars as pl
import pytest

from seatrial.benches.attempts import Attempt, Outcome, Place, Said, Work, attempt, skipped
from seatrial.benches.base import TrialTables
from seatrial.benches.inside import derive_inside, judge_inside
from seatrial.benches.inside_files import dd_words, fio_words, short_size
from seatrial.benches.inside_fresh import guest_memory
from seatrial.benches.inside_functions import parse_function
from seatrial.benches.inside_metrics import MEASURED, METRICS, works_of
from seatrial.benches.inside_probes import METRIC_OF, probe_values
from seatrial.benches.tool_output import Moved, ToolFailed
from seatrial.config.expand import points_of
from seatrial.errors import DriverError
from seatrial.model.experiment import (
    INSIDE_PROBES,
    Experiment,
    FioVariant,
    InsideSettings,
    InsideTest,
)
from seatrial.model.plan import Point
from seatrial.probes.block_device import DeviceBytes
from seatrial.probes.cgroup_books import CpuReading

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SETTINGS = InsideSettings(
    probes=INSIDE_PROBES,
    batches=1,
    tests=tuple(InsideTest),
    fio_variants=tuple(FioVariant),
)
MS = 1_000_000
ENDED: dict[str, object] = {
    "exit_code": 0,
    "signal": None,
    "timed_out": False,
    "stdout": "out",
    "stderr": "",
    "batch_ns": [5 * MS],
    "user_ns": 1 * MS,
    "system_ns": 2 * MS,
}


class Guest:
    """A channel whose guest gives one prepared result."""

    def __init__(self, result: Mapping[str, object] | Exception) -> None:
        """Have the result ready."""
        self._result = result
        self.requests: list[Mapping[str, object]] = []

    def run(self, request: Mapping[str, object], *, timeout_ns: int) -> Mapping[str, object]:
        """Give it."""
        assert timeout_ns > 0
        self.requests.append(request)
        if isinstance(self._result, Exception):
            raise self._result
        return self._result


class Counter:
    """Books or a device whose numbers grow by one step at each reading."""

    name, filesystem = "vdx", "ext4"

    def __init__(self, *readings: object) -> None:
        """Have the readings ready."""
        self._readings: Iterator[object] = iter(readings)

    def read(self) -> object:
        """Give the next."""
        return next(self._readings)


def try_once(
    result: Mapping[str, object] | Exception, *, read: object = None, position: int = 1
) -> tuple[Attempt, Guest]:
    """Try one command on a prepared guest."""
    guest = Guest(result)
    books = Counter(
        CpuReading(total_ns=10, user_ns=None, system_ns=4),
        CpuReading(total_ns=17, user_ns=None, system_ns=9),
    )
    device = Counter(
        DeviceBytes(read_bytes=100, written_bytes=0), DeviceBytes(read_bytes=164, written_bytes=8)
    )
    place = Place(
        channel=guest,  # type: ignore[arg-type]  # the one method that is used
        environment={"HOME": "/"},
        read_cpu=books.read,  # type: ignore[arg-type]  # prepared readings
        device=device,  # type: ignore[arg-type]  # prepared readings
    )
    work = Work(
        name="read",
        argv=("tool", "a b"),
        read=read or (lambda _: Moved(readings={"syscall_ns": 1.5}, read_bytes=64)),  # type: ignore[arg-type]  # a test's own
        timeout_ns=1_000 * MS,
        is_direct=True,
        directory="/data",
    )
    return attempt(work, place, position=position), guest


class TestAttempt:
    def test_everything_is_kept(self) -> None:
        """Books of guest, group and device stand side by side, and the command as it was."""
        done, guest = try_once(ENDED)
        assert guest.requests[0] == {
            "probe": "exec",
            "argv": ["tool", "a b"],
            "env": {"HOME": "/"},
            "timeout_ns": 1_000 * MS,
            "cwd": "/data",
        }
        assert done.outcome is Outcome.OK
        assert done.command == "tool 'a b'"
        assert (done.elapsed_ns, done.user_ns, done.system_ns) == (5 * MS, 1 * MS, 2 * MS)
        assert (done.cgroup_cpu_ns, done.cgroup_user_ns, done.cgroup_system_ns) == (7, None, 5)
        assert (done.read_bytes, done.device_read_bytes, done.device_written_bytes) == (64, 64, 8)
        assert done.is_direct
        assert (done.device, done.filesystem) == ("vdx", "ext4")
        tables = TrialTables()
        done.store(tables)
        assert tables.rows["attempts"][0]["outcome"] == "ok"
        assert tables.rows["readings"] == [
            {"work": "read", "position": 1, "metric": "syscall_ns", "value": 1.5}
        ]

    @pytest.mark.parametrize(
        ("change", "outcome", "words"),
        [
            ({"timed_out": True}, Outcome.TIMED_OUT, "not done within 1 s"),
            ({"signal": 9, "exit_code": None}, Outcome.FAILED, "signal 9"),
            ({"exit_code": 3, "stderr": "no way"}, Outcome.FAILED, "exit code 3: no way"),
            (
                {"exit_code": 1, "stderr": "tool: Function not implemented"},
                Outcome.UNSUPPORTED,
                "not implemented",
            ),
        ],
    )
    def test_ends_that_give_no_number(
        self, change: Mapping[str, object], outcome: Outcome, words: str
    ) -> None:
        """Each is told apart, keeps its reason, and leaves no reading."""
        done, _ = try_once({**ENDED, **change})
        assert done.outcome is outcome
        assert words in str(done.reason)
        assert not done.readings

    @pytest.mark.parametrize("is_unsupported", [True, False])
    def test_output_that_is_no_result(self, *, is_unsupported: bool) -> None:
        """What the parser refuses is no number, even with exit code 0."""

        def read(said: Said) -> Moved:
            raise ToolFailed(f"bad {said.stdout}", is_unsupported=is_unsupported)

        done, _ = try_once(ENDED, read=read)
        assert done.outcome is (Outcome.UNSUPPORTED if is_unsupported else Outcome.FAILED)
        assert done.reason == "bad out"

    def test_a_program_that_cannot_be_started(self) -> None:
        """The sandbox's kernel refuses it, and the next command may still be tried."""
        refusal = DriverError("start tool: No such file", code="guest-probe-failed")
        done, _ = try_once(refusal)
        assert done.outcome is Outcome.UNSUPPORTED
        assert "No such file" in str(done.reason)

    def test_a_guest_that_is_gone_ends_the_trial(self) -> None:
        """Nothing more can be run in it."""
        with pytest.raises(DriverError, match="hung up"):
            try_once(DriverError("it hung up"))

    def test_what_is_skipped_says_why(self) -> None:
        """It is no failure."""
        row = skipped("wget", "wget is not installed")
        assert (row.outcome, row.reason, row.position) == (
            Outcome.SKIPPED,
            "wget is not installed",
            0,
        )


class TestCommands:
    def test_dd_is_the_seeds(self) -> None:
        """256 bytes, 2^20 times, to and from the swap file."""
        assert dd_words(SETTINGS, "write") == (
            "if=/dev/zero",
            "of=swapfile",
            "bs=256",
            "count=1048576",
        )
        assert dd_words(SETTINGS, "read") == (
            "if=swapfile",
            "of=/dev/null",
            "bs=256",
            "count=1048576",
        )
        assert dd_words(SETTINGS, "sync-write")[2:] == ("bs=1M", "count=256", "conv=fsync")

    @pytest.mark.parametrize("job", ["read", "randrw"])
    def test_fio_is_the_seeds(self, job: str) -> None:
        """Word by word, but for the form of the output."""
        settings = dataclasses.replace(SETTINGS, fio_duration_ns=60_000 * MS)
        mix = " -rwmixread=70" if job == "randrw" else ""
        assert " ".join(fio_words(settings, job, FioVariant.SEED)) == (
            f"-filename=swapfile -direct=1 -iodepth 1 -thread -rw={job}{mix} -ioengine=psync "
            "-bs=16k -size=256M -numjobs=8 -runtime=60 -group_reporting -name=mytest "
            "--output-format=json"
        )

    def test_other_variants_do_not_share_parts(self) -> None:
        """Threads that read what another has just read measure a cache (G5)."""
        direct = fio_words(SETTINGS, "read", FioVariant.DIRECT)
        assert "-size=32M" in direct
        assert "-offset_increment=32M" in direct
        assert "-time_based" in direct
        cached = fio_words(SETTINGS, "read", FioVariant.CACHED)
        assert "-direct=0" in cached
        assert "-invalidate=0" in cached

    def test_parts_are_whole_blocks(self) -> None:
        """Direct I/O wants them, and there is always one."""
        settings = dataclasses.replace(
            SETTINGS, fio_size_bytes=1 << 20, fio_threads=64, fio_block_bytes=1 << 16
        )
        assert "-size=64k" in fio_words(settings, "read", FioVariant.DIRECT)

    @pytest.mark.parametrize(
        ("size", "text"), [(1, "1"), (1000, "1000"), (1024, "1k"), (3 << 20, "3M")]
    )
    def test_sizes_are_short(self, size: int, text: str) -> None:
        """As fio and dd read them."""
        assert short_size(size) == text


class TestPoints:
    def test_each_test_is_a_point(self) -> None:
        """That of the probes keeps the name it always had; fio has one for each variant."""
        experiment = Experiment(
            name="x",
            seed=1,
            blocks=1,
            baseline="process",
            drivers=("process",),
            confidence=0.95,
            inside=SETTINGS,
        )
        assert [point.key for point in points_of(experiment)] == [
            "inside",
            "inside test=hello",
            "inside test=memory",
            "inside test=dd",
            "inside test=fio variant=seed",
            "inside test=fio variant=direct",
            "inside test=fio variant=cached",
            "inside test=network",
            "inside test=functions",
        ]

    def test_everything_measured_is_declared(self) -> None:
        """And everything declared is measured by something, once."""
        declared = [metric.name for metric in METRICS]
        measured = [
            name for works in MEASURED.values() for metrics in works.values() for name in metrics
        ]
        assert sorted([*measured, *METRIC_OF.values()]) == sorted(declared)

    def test_works_of_a_point(self) -> None:
        """Of fio those that were asked for."""
        point = Point(bench="inside", values={"test": "fio", "variant": "seed"})
        settings = dataclasses.replace(SETTINGS, fio_jobs=("randread",))
        assert works_of(point, settings) == ("randread",)
        assert works_of(Point(bench="inside"), settings) == ()


def frame(table: str, rows: list[dict[str, object]]) -> dict[str, pl.DataFrame]:
    """One table of a trial."""
    return {table: pl.DataFrame(rows)}


def test_first_touch_is_no_sample() -> None:
    """Position 0 is kept apart, whatever it says."""
    rows = [
        {"work": "read", "position": position, "metric": "dd_read_bytes_per_s", "value": value}
        for position, value in ((0, 1e9), (1, 10.0), (2, 12.0))
    ]
    point = Point(bench="inside", values={"test": "dd"})
    (samples,) = derive_inside(frame("readings", rows), point)
    assert (samples.metric, list(samples.values)) == ("dd_read_bytes_per_s", [10.0, 12.0])
    assert derive_inside({}, point) == ()


def test_first_batches_of_probes_are_no_samples() -> None:
    """And can be asked for by themselves; an older run has none."""
    rows: list[dict[str, object]] = [
        {
            "probe": "fork",
            "position": 0,
            "batch_ns": batch_ns,
            "operations_count": 20,
            "is_first": is_first,
        }
        for batch_ns, is_first in ((8000, True), (400, False), (600, None))
    ]
    tables = frame("probes", rows)
    assert probe_values(tables, is_first=False) == {"fork": [20.0, 30.0]}
    assert probe_values(tables, is_first=True) == {"fork": [400.0]}
    old = frame("probes", [{k: v for k, v in row.items() if k != "is_first"} for row in rows])
    assert probe_values(old, is_first=True) == {}
    assert len(probe_values(old, is_first=False)["fork"]) == 3


def test_a_clock_that_disagrees_is_told() -> None:
    """A virtual machine's clock may run at another speed than ours: clock-disagrees."""
    point = Point(bench="inside", values={"test": "dd"})

    def judge(*pairs: tuple[int | None, int]) -> list[str]:
        rows = [
            {"outcome": "ok", "elapsed_ns": guest, "host_elapsed_ns": host} for guest, host in pairs
        ]
        return [one.code for one in judge_inside(frame("attempts", rows), point)]

    assert judge((1_000 * MS, 1_000 * MS), (1_050 * MS, 1_000 * MS)) == []
    assert judge((1_000 * MS, 1_000 * MS), (500 * MS, 1_000 * MS)) == ["clock-disagrees"]
    assert judge((1 * MS, 100 * MS), (None, 1_000 * MS)) == []
    assert judge_inside({}, point) == ()


def test_memory_as_the_guest_sees_it() -> None:
    """Used is what `free` calls so: without buffers and caches."""
    text = "MemTotal: 1000 kB\nMemFree: 100 kB\nBuffers: 50 kB\nCached: 200 kB\nSReclaimable: 50 kB"
    assert guest_memory(text) == {"guest_total_bytes": 1000 * 1024, "guest_used_bytes": 600 * 1024}
    assert guest_memory("nothing") == {}


@pytest.mark.parametrize(
    ("stdout", "words"),
    [
        ('{"result": 5, "function_ns": 1}', "counted 5 primes; expected 4"),
        ("", "no result"),
        ('{"result": 4}', "no result"),
    ],
)
def test_a_function_must_count_rightly(stdout: str, words: str) -> None:
    """A wrong answer is no time."""
    with pytest.raises(ToolFailed, match=words):
        parse_function(Said.of({**ENDED, "stdout": stdout}), expected=4)
    good = Said.of({**ENDED, "stdout": '{"result": 4, "function_ns": 7}'})
    assert parse_function(good, expected=4).readings == {
        "function_python_ns": 5 * MS,
        "function_python_inner_ns": 7,
    }
