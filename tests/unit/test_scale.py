"""``--scale`` makes an experiment smaller, says what it changed, and keeps it with the run."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seatrial.analysis.method import method_notes
from seatrial.cli.main import main
from seatrial.config.expand import expand
from seatrial.config.fields import SANDBOXES_MAX
from seatrial.config.load import Source, parse_experiment, read_source
from seatrial.config.scale import FACTOR_MAX, FACTOR_MIN, read_factor, scaled
from seatrial.errors import ConfigError
from seatrial.model.codec import decode, encode
from seatrial.model.experiment import Experiment
from seatrial.units import GIB, MIB, NS_PER_S

if TYPE_CHECKING:
    from pathlib import Path

KNOWN = ("process", "lean")
HERE = {"processors_count": 2, "memory_bytes": 8 * GIB}


def preset(name: str) -> Experiment:
    """Returns a preset."""
    return parse_experiment(read_source(name), known_drivers=KNOWN)


def written(text: str) -> Experiment:
    """Returns an experiment from a text."""
    source = Source(name="x", text=f'name = "x"\n{text}', is_preset=False)
    return parse_experiment(source, known_drivers=KNOWN)


def test_the_presets_have_the_originals_sweeps() -> None:
    """RunD's three configurations, and the commands of the comparison of gVisor and Kata."""
    time, held, crowd, inside = (
        preset(name) for name in ("rund-time", "rund-mem", "rund-density", "gvisor-kata")
    )
    assert time.start is not None
    assert time.start.concurrency == (1, 10, 20, 50, 100, 200, 300, 400)
    assert held.density is not None
    assert held.density.count == (1, 10, 100, 500, 1000, 2000)
    assert held.density.memory_bytes == tuple(n * MIB for n in (128, 256, 512, 1024, 2048, 4096))
    assert crowd.start is not None
    assert crowd.start.background_counts == (100, 200, 500, 1000)
    assert crowd.start.concurrency == (1, 10, 100, 200)
    assert {time.start.rounds, crowd.start.rounds} == {10}
    assert inside.inside is not None
    assert inside.inside.dd_block_bytes * inside.inside.dd_count == 256 * MIB
    assert (inside.inside.fio_threads, inside.inside.fio_size_bytes) == (8, 256 * MIB)
    for one in (time, held, crowd):
        assert one.sized_for is not None
        assert (one.sized_for.processors_count, one.sized_for.memory_bytes) == (104, 384 * GIB)


def test_counts_become_round_and_stay_apart() -> None:
    """One stays one, values that meet are one point, and the change is told."""
    found = scaled(preset("rund-time"), 0.05)
    assert found.start is not None
    assert found.start.concurrency == (1, 3, 5, 10, 15, 20)
    assert found.start.rounds == 10
    assert found.scaling is not None
    assert found.scaling.changes == (
        "start.concurrency: 1 10 20 50 100 200 300 400 -> 1 3 5 10 15 20",
    )
    bigger = scaled(preset("rund-time"), 10)
    assert bigger.start is not None
    assert bigger.start.concurrency[-1] == 4000


def test_work_inside_has_a_least_amount() -> None:
    """Files and lengths shrink, but not to what measures nothing; limits of memory stay."""
    small = scaled(preset("gvisor-kata"), 0.001).inside
    assert small is not None
    assert (small.dd_count, small.fio_size_bytes, small.download_bytes) == (1 << 14, 16 * MIB, MIB)
    assert (small.fio_duration_ns, small.network_duration_ns) == (NS_PER_S, NS_PER_S)
    tenth = scaled(preset("gvisor-kata"), 0.1)
    assert tenth.inside is not None
    assert tenth.inside.fio_size_bytes == 32 * MIB
    assert tenth.inside.fio_duration_ns == 6 * NS_PER_S
    assert tenth.scaling is not None
    assert "inside.fio_size: 256 MiB -> 32.0 MiB" in tenth.scaling.changes
    held = scaled(preset("rund-mem"), 0.01).density
    assert held is not None
    assert held.memory_bytes[-1] == 4 * GIB
    assert held.count == (1, 5, 10, 20)
    fill = scaled(written("[density]\nlargest = true\nlargest_count = 500\n"), 0.1).density
    assert fill is not None
    assert fill.bound is not None
    assert fill.bound.count == 50


def test_auto_is_by_the_scarcer_of_processors_and_memory() -> None:
    """2 of 104 processors and 8 of 384 GiB: 0.019; a larger machine scales nothing up."""
    time = preset("rund-time")
    assert read_factor("auto", time, **HERE) == 0.019
    assert read_factor("auto", time, processors_count=104, memory_bytes=38 * GIB) == 0.098
    assert read_factor("auto", time, processors_count=208, memory_bytes=999 * GIB) == 1
    assert read_factor("auto", time, processors_count=104, memory_bytes=384 * GIB) == 1


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "x", "", "101", "0.0001"])
def test_what_is_no_factor_is_refused(text: str) -> None:
    """The message has the bounds."""
    with pytest.raises(ConfigError, match=r"0\.001 to 100") as refused:
        read_factor(text, preset("rund-time"), **HERE)
    assert refused.value.code == "scale"


def test_what_cannot_be_scaled_is_refused() -> None:
    """A load has no count that a factor would mean; auto needs a machine to compare with."""
    load = written("[load]\nconnections = [4]\n")
    with pytest.raises(ConfigError, match="nothing in x can be scaled"):
        scaled(load, 0.5)
    with pytest.raises(ConfigError, match="for what machine"):
        read_factor("auto", load, **HERE)
    assert read_factor("0.5", load, **HERE) == 0.5


@given(
    counts=st.lists(st.integers(1, 10_000), min_size=1, max_size=8, unique=True),
    factor=st.floats(FACTOR_MIN, FACTOR_MAX),
)
def test_any_sweep_scales(counts: list[int], factor: float) -> None:
    """Counts stay positive, near their share, in order and without repetition."""
    found = scaled(written(f"[start]\nconcurrency = {sorted(counts)}\n"), factor).start
    assert found is not None
    values = found.concurrency
    assert list(values) == sorted(set(values))
    assert values[0] >= 1
    assert values[-1] <= SANDBOXES_MAX
    wanted = min(max(counts) * factor, SANDBOXES_MAX)
    if max(counts) > 1 and wanted > 1:
        assert 0.7 <= values[-1] / wanted <= 1.5


def test_a_factor_of_one_changes_nothing() -> None:
    """But the run says that it was asked for."""
    plain = preset("rund-time")
    found = scaled(plain, 1.0)
    assert found.start == plain.start
    assert found.scaling is not None
    assert found.scaling.changes == ()


@pytest.mark.usefixtures("works_everywhere")
def test_plan_and_run_say_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The plan prints each change, its JSON has them, and the hash is another."""
    words = ["plan", "rund-time", "--drivers", "process"]
    assert main([*words, "--scale", "0.02"]) == 0
    text = capsys.readouterr().out
    assert "scaled by 0.02" in text
    assert "start.concurrency: 1 10 20 50 100 200 300 400 -> 1 2 4 6 8" in text
    assert main([*words, "--scale", "0.02", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["experiment"]["scaling"]["factor"] == 0.02
    small = expand(scaled(preset("rund-time"), 0.02), ("process",))
    assert small.plan_hash == plan["plan_hash"]
    assert decode(Experiment, encode(small.experiment), where="experiment") == small.experiment
    notes = method_notes(small, compared_count=1)
    assert any(note.title == "Scale" and "0.02" in note.text for note in notes)
    assert main([*words, "--scale", "huge"]) == 2
    assert main(["run", "--resume", str(tmp_path), "--scale", "0.5"]) == 2
