"""Other load generators' outputs, as captured from the real tools, are read right or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from benchmarks.peers import common, fortio, ghz, h2load, hey, oha, sockperf, vegeta, wrk
from seatrial.errors import EnvironmentTrouble

DATA = Path(__file__).parent.parent / "data" / "peers"
Parser: TypeAlias = Callable[[str], dict[str, float]]

CAPTURED: dict[str, tuple[Parser, dict[str, float]]] = {
    "wrk.txt": (
        wrk.parse,
        {
            "rate_rps": 50425.46,
            "response_p50_ns": 122_000,
            "response_p90_ns": 3_700_000,
            "response_p99_ns": 9_610_000,
            "response_max_ns": 20_180_000,
        },
    ),
    "h2load-h1.txt": (
        h2load.parse,
        {"rate_rps": 39077, "response_mean_ns": 408_000, "response_max_ns": 12_290_000},
    ),
    "h2load-h2c.txt": (
        h2load.parse,
        {"rate_rps": 28674, "response_mean_ns": 546_000, "response_max_ns": 16_010_000},
    ),
    "h2load.log": (
        h2load.parse_log,
        {
            "response_p50_ns": 106_000,
            "response_p90_ns": 134_000,
            "response_p99_ns": 3_947_000,
            "response_p999_ns": 3_947_000,
            "response_max_ns": 3_947_000,
        },
    ),
    "hey.txt": (
        hey.parse,
        {
            "rate_rps": 12871.5836,
            "response_p50_ns": 900_000,
            "response_p90_ns": 2_500_000,
            "response_p99_ns": 5_600_000,
            "response_max_ns": 8_100_000,
        },
    ),
    "sockperf.txt": (
        sockperf.parse,
        {
            "rate_rps": 4444 / 0.549,
            "service_p50_ns": 54_591,
            "service_p90_ns": 75_710,
            "service_p99_ns": 2_935_040,
            "service_p999_ns": 4_025_008,
            "service_max_ns": 4_450_810,
        },
    ),
    "oha.json": (
        oha.parse,
        {
            "rate_rps": 997.5266620978214,
            "response_p50_ns": 127_989,
            "response_p90_ns": 157_174,
            "response_p99_ns": 2_549_222,
            "response_p999_ns": 4_172_763,
            "response_max_ns": 4_172_763,
        },
    ),
    "vegeta.json": (
        vegeta.parse,
        {
            "rate_rps": 1001.4574861743662,
            "response_p50_ns": 144_064,
            "response_p90_ns": 239_000,
            "response_p99_ns": 1_918_883,
            "response_max_ns": 4_134_792,
        },
    ),
    "fortio.json": (
        fortio.parse,
        {
            "rate_rps": 999.1641860644717,
            "response_p50_ns": 540_930.3073077,
            "response_p90_ns": 953_988.9333333,
            "response_p99_ns": 3_208_000,
            "response_p999_ns": 4_497_399.616,
            "response_max_ns": 4_986_904,
        },
    ),
    "ghz.json": (
        ghz.parse,
        {
            "rate_rps": 1911.6993355752982,
            "ok_count": 1911,
            "response_p50_ns": 411_799,
            "response_p90_ns": 464_117,
            "response_p99_ns": 616_792,
            "response_max_ns": 12_544_249,
        },
    ),
}


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_output_is_read(name: str) -> None:
    """Every number that is compared has its value and its unit."""
    parse, expected = CAPTURED[name]
    assert parse((DATA / name).read_text()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", CAPTURED)
@pytest.mark.parametrize("text", ["", "no such thing", '{"summary": 3}'])
def test_other_output_is_refused(name: str, text: str) -> None:
    """A tool that printed something else gives an error that names it, never a number."""
    with pytest.raises(EnvironmentTrouble, match=r"wrk|h2load|hey|sockperf|oha|vegeta|fortio|ghz"):
        CAPTURED[name][0](text)


def test_failed_requests_are_no_result() -> None:
    """A rate of failures is not compared with a rate of replies."""
    failed = (DATA / "h2load-h1.txt").read_text().replace(" 0 failed", " 7 failed")
    with pytest.raises(EnvironmentTrouble, match="7 failed"):
        h2load.parse(failed)
    refused = (DATA / "ghz.json").read_text().replace('"Canceled"', '"Unimplemented"')
    with pytest.raises(EnvironmentTrouble, match="Unimplemented"):
        ghz.parse(refused)
    lost = (DATA / "vegeta.json").read_text().replace('"success":1', '"success":0.5')
    with pytest.raises(EnvironmentTrouble, match=r"success 0\.5"):
        vegeta.parse(lost)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("36.5us", 36_500), ("1.20ms", 1_200_000), ("3s", 3e9), ("2m", 120e9), ("0.0056", 5_600_000)],
)
def test_durations(text: str, expected: float) -> None:
    """The units that the tools write."""
    assert common.duration_ns(text) == pytest.approx(expected)


def test_what_is_no_duration_is_refused() -> None:
    """A word is not taken for a number."""
    with pytest.raises(EnvironmentTrouble, match="'soon' is no duration"):
        common.duration_ns("soon")


def test_a_peer_that_could_not_be_built_gives_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What stopped the build is what the row says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    common.cache().mkdir(parents=True)
    (common.cache() / "oha.missing").write_text("the compiler is too old")
    with pytest.raises(EnvironmentTrouble, match="oha was not built: the compiler is too old"):
        common.built("oha")


def test_a_built_peer_has_the_version_that_was_pinned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads to a folder of one version."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    home = common.cache() / "oha-1.2.3"
    home.mkdir(parents=True)
    (home / "oha").touch()
    (common.cache() / "oha").symlink_to("oha-1.2.3/oha")
    assert common.built_version("oha") == "1.2.3"


def test_ghz_sends_a_message_of_the_asked_length() -> None:
    """h2load is given the same bytes, so both send the same frames."""
    message = ghz.message(64)
    assert len(message) == 64
    assert message[:3] == b"\x0a\x3e\x00"
