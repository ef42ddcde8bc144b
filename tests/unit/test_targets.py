"""--ci and --slo: what is read, and what is refused with which words."""

from __future__ import annotations

import pytest

from seatrial.errors import ConfigError
from seatrial.stats.target import Objective, WidthTarget, parse_objectives, parse_width_targets


def test_width_targets() -> None:
    """Shares and durations, several at once, with spaces."""
    assert parse_width_targets("p99=2%, p99.9 = 10us") == (
        WidthTarget(name="p99", q=0.99, width_ratio=0.02),
        WidthTarget(name="p99.9", q=0.999, width_ns=10_000),
    )
    ratio, absolute = parse_width_targets("p50=0.2%,p99.99=1.5ms")
    assert ratio.allowed_ns(1000.0) == pytest.approx(2.0)
    assert absolute.allowed_ns(1000.0) == 1_500_000
    assert (str(ratio), str(absolute)) == ("p50=0.2%", "p99.99=1.50 ms")


def test_objectives() -> None:
    """Percentiles in time, failures as a share."""
    latency, failures = parse_objectives("p99<5ms,failed<0.1%")
    assert latency == Objective(name="p99", q=0.99, limit=5_000_000.0)
    assert failures.q is None
    assert failures.limit == pytest.approx(0.001)
    assert (str(latency), str(failures)) == ("p99<5.00 ms", "failed<0.1%")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "nothing between two commas"),
        ("p99=2%,", "nothing between two commas"),
        ("p99", '"p99" has no "="'),
        ("p99=2", "has no unit"),
        ("p99=0us", "0 is no limit"),
        ("p99=0.1%", "out of range, 0.2% (what histograms can tell) to 100%"),
        ("p99=150%", "out of range"),
        ("p100=2%", '"p100" is not a percentile from p1 to p99.999'),
        ("p0=2%", '"p0" is not a percentile'),
        ("mean=2%", '"mean" is not a percentile'),
        ("p99=2%,p99=1ms", "p99 is there twice"),
        ("p99=2parsec", 'unknown unit "parsec"'),
    ],
)
def test_bad_width_targets(text: str, problem: str) -> None:
    """The message names the flag, the text and the trouble; the hint shows how it is written."""
    with pytest.raises(ConfigError) as caught:
        parse_width_targets(text)
    assert caught.value.code == "bad-ci"
    assert caught.value.message.startswith(f'--ci "{text}": ')
    assert problem in caught.value.message
    assert caught.value.hint == "write targets such as p99=2% or p99=10us, separated by commas"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("p99=5ms", 'has no "<"'),
        ("p99<5", "has no unit"),
        ("p99<5%", 'unknown unit "%"'),
        ("failed<1ms", "no share above 0% and up to 100%"),
        ("failed<0%", "no share above 0%"),
        ("failed<101%", "no share above 0%"),
        ("max<5ms", '"max" is not a percentile from p1 to p99.999 or failed'),
        ("p99<5ms,p99<6ms", "p99 is there twice"),
    ],
)
def test_bad_objectives(text: str, problem: str) -> None:
    """As above, for --slo."""
    with pytest.raises(ConfigError) as caught:
        parse_objectives(text)
    assert caught.value.code == "bad-slo"
    assert caught.value.message.startswith(f'--slo "{text}": ')
    assert problem in caught.value.message
