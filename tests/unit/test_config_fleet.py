"""Service demands of many servers: every law of the engine, checked before anything runs."""

from __future__ import annotations

import pytest

from seatrial.benches.load_request import check_load
from seatrial.config.load import Source, parse_experiment
from seatrial.errors import ConfigError


def parse_demands(*laws: str) -> tuple[str, ...]:
    """The demands of a file with these laws."""
    text = f'name = "x"\n[fleet]\ndemands = {list(laws)!r}\n'
    source = Source(name="x.toml", text=text, is_preset=False)
    fleet = parse_experiment(source, known_drivers=("process",), check_load=check_load).fleet
    assert fleet is not None
    return fleet.demands


def test_every_law_is_taken() -> None:
    """Many servers work by the same laws as one."""
    laws = (
        "constant:100us",
        "exponential:1ms",
        "uniform:low=1ms,high=3ms",
        "lognormal:mean=1ms,cv=2",
        "gamma:mean=1ms,cv=2",
        "bimodal:low=1ms,high=9ms,share=0.1",
    )
    assert parse_demands(*laws) == laws


@pytest.mark.parametrize("law", ["gauss:1ms", "bimodal:low=2ms,high=1ms,share=0.5", "constant:1"])
def test_what_the_engine_refuses_is_named_with_its_place(law: str) -> None:
    """The second law of the file is the wrong one; the error says where, what, and what else."""
    with pytest.raises(ConfigError) as caught:
        parse_demands("constant:1ms", law)
    assert str(caught.value).startswith(f'x.toml:3: fleet.demands[1]: got "{law}"; expected ')
