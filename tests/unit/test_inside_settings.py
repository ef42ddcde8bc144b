"""The keys of ``[inside]``: bounds, words, and what does not fit together."""

from __future__ import annotations

import pytest

from seatrial.config.load import Source, parse_experiment
from seatrial.errors import ConfigError
from seatrial.model.experiment import FioVariant, InsideSettings, InsideTest


def parse(keys: str) -> InsideSettings:
    """The settings of a file that asks for nothing else."""
    text = f'name = "x"\n[inside]\n{keys}\n'
    experiment = parse_experiment(
        Source(text=text, name="x.toml", is_preset=False), known_drivers=("process",)
    )
    assert experiment.inside is not None
    return experiment.inside


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ('fio_duration = "120s"', "fio_duration: got 2.00 min, but each command is killed after"),
        (
            'deadline = "1s"\nnetwork_duration = "1s"\nfio_duration = "900ms"',
            "network_duration: got 1.00 s, but each command is killed after 1.00 s",
        ),
        ('fio_size = "1KiB"', 'fio_size: got "1KiB"; expected 1.00 MiB to 4.00 GiB'),
        ('dd_block = "0B"', 'dd_block: got "0B"; expected 1 B to 16.0 MiB'),
        ("download = 5", "download: got 5; expected"),
        ('tests = ["fio", "disk"]', 'tests[1]: got "disk"; expected one of probes, hello'),
        ('fio_jobs = ["trim"]', 'fio_jobs[0]: got "trim"; expected one of read, write'),
        ("repeats = 0", "repeats: got 0; expected at least 1"),
        ("function_limit = 1", "function_limit: got 1; expected at least 2"),
    ],
)
def test_mistakes(keys: str, message: str) -> None:
    """Each is told with its key, its value and what was expected."""
    with pytest.raises(ConfigError) as refused:
        parse(keys)
    assert f"inside.{message}" in str(refused.value)


def test_the_seeds_own_settings_are_the_defaults() -> None:
    """But for its lengths of a minute."""
    usual = parse("")
    assert usual.tests == (InsideTest.PROBES,)
    assert (usual.dd_block_bytes, usual.dd_count) == (256, 1 << 20)
    assert (usual.fio_size_bytes, usual.fio_block_bytes, usual.fio_threads) == (
        256 << 20,
        16 << 10,
        8,
    )
    assert usual.fio_variants == tuple(FioVariant)
    assert usual.network_block_bytes == 8 << 10
    assert usual.repeats >= 5
