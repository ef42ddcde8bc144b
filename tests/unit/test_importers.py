"""Importers: other tools' logs become numbers with units, and what is odd is said."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seatrial.cli.main import main
from seatrial.errors import ConfigError, StoreError
from seatrial.importers.lancet import read_lancet
from seatrial.importers.mitosis import read_mitosis
from seatrial.importers.tables import lancet_rows, write_parquet

LOGS = Path(__file__).parent.parent / "data" / "imports"
LANCET = LOGS / "lancet-kata.log"
RPC = LOGS / "mitosis-rpc.log"


def test_lancet_tables_of_the_published_run() -> None:
    """Both measurements, with units; the bound that was printed as 0 is unknown."""
    first, second = read_lancet(LANCET).blocks
    assert (first.request_count, first.achieved_rps) == (60016, 12002.451047054663)
    assert first.mean_ns == pytest.approx(484_469)
    assert [quantile.percentile for quantile in first.quantiles] == [50, 90, 95, 99]
    p99 = first.quantiles[-1]
    assert (p99.low_ns, p99.point_ns, p99.high_ns) == pytest.approx((867_431, 881_358, 902_256))
    last = second.quantiles[-1]
    assert last.low_ns == pytest.approx(856_115_894)
    assert last.high_ns is None


def test_lancet_says_what_the_tool_did_not() -> None:
    """The second measurement was saturated, its last bound unknown, and no arrivals checked."""
    notices = read_lancet(LANCET).notices
    codes = [notice.code for notice in notices]
    assert codes.count("saturated") == 1
    assert codes.count("too-few-samples") == 1
    assert codes.count("arrivals-unchecked") == 2
    saturated = next(notice for notice in notices if notice.code == "saturated")
    assert "measurement 2" in saturated.message
    assert "78.7%" in saturated.message


def test_mitosis_rpc_rates_are_summed_over_machines() -> None:
    """Ten machines; the mean line is the published 130922, the total ten machines' worth."""
    log = read_mitosis(RPC)
    rates = [interval.rate_per_s for interval in log.intervals]
    assert int(sum(rates) / len(rates)) == 130_922
    assert len(log.sources) == 10
    assert log.unit == "requests"
    assert log.total_rate_per_s == pytest.approx(10 * 130_922, rel=2e-4)
    assert log.notices == ()


def test_mitosis_fork_lines_have_a_source_a_process() -> None:
    """The fork bench names its process; latency is in milliseconds."""
    log = read_mitosis(LOGS / "mitosis-fork.log")
    (source,) = log.sources
    assert source.source == "val07/660K5BZDgBs"
    assert log.intervals[0].rate_per_s == pytest.approx(120.045924)
    assert log.intervals[0].latency_ns == pytest.approx(8_330_145)
    assert source.rate_per_s == pytest.approx(120.692, abs=0.01)
    assert len(read_mitosis(LOGS / "mitosis-functions.log").sources) == 4


def test_mitosis_stall_is_named() -> None:
    """The published picture of a failed run: a rate near 0 and a word instead of a latency."""
    log = read_mitosis(LOGS / "mitosis-fork-broken.log")
    assert [notice.code for notice in log.notices] == ["stalled", "stalled"]
    assert log.sources[0].latency_ns is None


def test_mitosis_user_level_lines_and_error_lines(tmp_path: Path) -> None:
    """The user-level form is read; a line with ERROR is told."""
    path = tmp_path / "log"
    path.write_text(
        "epoch @ 0: thpt: 1000 reqs/sec.1000 msec passed since last epoch. 4.16 us\r\n"
        "@val03 [ERROR] - checksum mismatch\n"
    )
    log = read_mitosis(path)
    assert log.intervals[0].length_ns == 1_000_000_000
    assert log.sources[0].latency_ns == pytest.approx(4_160)
    assert [(notice.code, notice.line_number) for notice in log.notices] == [("error-line", 2)]


def test_skipped_intervals_stay_in_the_rows() -> None:
    """Warm-up and tail are left out of the rates only; too short a log is an error, not NaN."""
    log = read_mitosis(LOGS / "mitosis-fork.log", skip_first=1, skip_last=1)
    assert (log.sources[0].intervals_count, log.sources[0].counted_count) == (4, 2)
    assert log.total_rate_per_s == pytest.approx((121.862228 + 120.813350) / 2)
    with pytest.raises(ConfigError, match="has 1 intervals; expected more than 1") as caught:
        read_mitosis(RPC, skip_first=1)
    assert caught.value.code == "import-short"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("nothing here\n", "import-empty"),
        ("#ReqCount QPS RxBw TxBw\n1 2 x 4\n", "import-broken"),
        ("#ReqCount QPS\n1 2\n", "import-broken"),
        ("#ReqCount QPS RxBw TxBw\n", "import-broken"),
        ("#Avg Lat 50th\n1 2(1, 3)\n", "import-broken"),
        ("#ReqCount QPS RxBw TxBw\n1 2 3 4\n#Avg Lat 50th 90th\n1 2(1, 3)\n", "import-broken"),
    ],
)
def test_broken_lancet_logs_are_refused(tmp_path: Path, text: str, code: str) -> None:
    """A cut or mixed log names the place; nothing is guessed."""
    path = tmp_path / "log"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_lancet(path)
    assert caught.value.code == code


def test_mixed_mitosis_log_is_refused(tmp_path: Path) -> None:
    """Requests and containers cannot be added up."""
    path = tmp_path / "log"
    path.write_text(RPC.read_text() + (LOGS / "mitosis-fork.log").read_text())
    with pytest.raises(ConfigError) as caught:
        read_mitosis(path)
    assert caught.value.code == "import-mixed"


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 2000), junk=st.binary(max_size=12), cut=st.integers(0, 2000))
def test_damaged_logs_give_numbers_or_an_error(
    tmp_path_factory: pytest.TempPathFactory, position: int, junk: bytes, cut: int
) -> None:
    """Whatever happens to a log, the reader ends with rows or with a ConfigError."""
    for path, read in ((LANCET, read_lancet), (RPC, read_mitosis)):
        data = path.read_bytes()
        damaged = tmp_path_factory.getbasetemp() / "damaged.log"
        damaged.write_bytes((data[:position] + junk + data[position:])[: len(data) - cut])
        log = None
        with contextlib.suppress(ConfigError):
            log = read(damaged)
        assert log is None or log.notices is not None


def test_command_prints_tables_json_and_parquet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command tells the same in three forms, and exits with 1 when there is a caveat."""
    parquet = tmp_path / "rows.parquet"
    assert main(["import", "lancet", str(LANCET), "--parquet", str(parquet)]) == 1
    text = capsys.readouterr().out
    assert "p99" in text
    assert "unknown" in text
    assert pl.read_parquet(parquet).height == 8
    assert main(["import", "lancet", str(LANCET), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["blocks"][1]["quantiles"][3]["high_ns"] is None
    assert main(["import", "mitosis", str(RPC)]) == 0
    assert "total of 10" in capsys.readouterr().out
    assert main(["import", "lancet", str(LANCET), "--parquet", str(parquet)]) == 3
    assert "exists" in capsys.readouterr().err


def test_a_table_is_never_overwritten(tmp_path: Path) -> None:
    """An existing file is refused before anything is written."""
    frame = lancet_rows(read_lancet(LANCET))
    write_parquet(frame, tmp_path / "rows.parquet")
    with pytest.raises(StoreError) as caught:
        write_parquet(frame, tmp_path / "rows.parquet")
    assert caught.value.code == "store-exists"
