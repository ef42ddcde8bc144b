"""Tools' own words, captured from real runs, and what must never pass for a result."""

from __future__ import annotations

import json

import pytest

from seatrial.benches.tool_output import (
    ToolFailed,
    fio_metric,
    parse_curl,
    parse_dd,
    parse_fio,
    parse_iperf3,
    parse_wget,
    sides_of,
)
from seatrial.model.experiment import FIO_JOBS

DD = """\
1048576+0 records in
1048576+0 records out
268435456 bytes (268 MB, 256 MiB) copied, 0.545592 s, 492 MB/s
"""
FIO_SIDES = {
    "read": {"io_bytes": 1_507_328, "bw_bytes": 301_465_600, "iops": 18400.0, "runtime": 5},
    "write": {"io_bytes": 589_824, "bw_bytes": 117_964_800, "iops": 7200.0, "runtime": 5},
}
IPERF_END = {
    "sum_sent": {"bytes": 545_013_760, "bits_per_second": 4_343_314_482.9},
    "sum_received": {"seconds": 1.005558, "bytes": 543_465_472, "bits_per_second": 4_323_692_692.0},
}
WGET = """\
Length: 8388608 (8.0M) [application/octet-stream]
Saving to: '/dev/null'

     0K ........ ........ ........ ........                   100%  590M=0.08s

2026-11-22 11:37:25 (106 MB/s) - '/dev/null' saved [8388608/8388608]
"""


def fio(*, error: int = 0, **sides: object) -> str:
    """What fio prints, with some of its numbers replaced."""
    job = {"jobname": "mytest", "error": error, **FIO_SIDES, **sides}
    return "fio: a note before the JSON\n" + json.dumps({"jobs": [job]})


class TestDd:
    def test_bytes_and_calls(self) -> None:
        """With blocks of 256 bytes the calls are what is measured, so they are given too (G4)."""
        moved = parse_dd(DD, kind="dd_write", is_write=True, counts_operations=True)
        assert moved.written_bytes == 256 << 20
        assert moved.read_bytes == 0
        assert moved.readings["dd_write_bytes_per_s"] == pytest.approx(268_435_456 / 0.545592)
        assert moved.readings["dd_write_ops_per_s"] == pytest.approx(1_048_576 / 0.545592)

    def test_large_blocks_have_no_calls(self) -> None:
        """Reading in blocks of 1 MiB is about bytes."""
        moved = parse_dd(DD, kind="dd_cold_read", is_write=False, counts_operations=False)
        assert set(moved.readings) == {"dd_cold_read_bytes_per_s"}
        assert moved.read_bytes == 256 << 20

    @pytest.mark.parametrize(
        ("text", "is_unsupported"),
        [
            ("dd: failed to open 'swapfile': Read-only file system", False),
            ("dd: error writing 'swapfile': No space left on device", False),
            ("dd: failed to open 'swapfile': Invalid argument", True),
            ("0+0 records in\n0+0 records out\n0 bytes copied, 0.0001 s, 0.0 kB/s", False),
            ("", False),
        ],
    )
    def test_what_is_no_result(self, text: str, *, is_unsupported: bool) -> None:
        """Nothing copied is a failure, and a missing operation is told from others."""
        with pytest.raises(ToolFailed) as failed:
            parse_dd(text, kind="dd_write", is_write=True, counts_operations=True)
        assert failed.value.is_unsupported is is_unsupported


class TestFio:
    def test_both_directions_of_the_mixed_job(self) -> None:
        """Its two numbers stay two numbers."""
        moved = parse_fio(fio(), "", job="randrw")
        assert moved.readings == {
            "fio_randrw_read_bytes_per_s": 301_465_600,
            "fio_randrw_write_bytes_per_s": 117_964_800,
        }
        assert (moved.read_bytes, moved.written_bytes) == (1_507_328, 589_824)

    @pytest.mark.parametrize(
        ("job", "sides"),
        [
            ("read", ("read",)),
            ("write", ("write",)),
            ("randread", ("read",)),
            ("randwrite", ("write",)),
            ("randrw", ("read", "write")),
        ],
    )
    def test_directions(self, job: str, sides: tuple[str, ...]) -> None:
        """Each job has its own metrics."""
        assert sides_of(job) == sides
        assert set(parse_fio(fio(), "", job=job).readings) == {fio_metric(job, s) for s in sides}

    @pytest.mark.parametrize("job", FIO_JOBS)
    def test_no_byte_is_no_result(self, job: str) -> None:
        """One runtime gave 0 operations and exit code 0 for an engine that it did not have."""
        nothing = {"io_bytes": 0, "bw_bytes": 0, "iops": 0.0, "runtime": 0}
        with pytest.raises(ToolFailed, match="0 bytes"):
            parse_fio(fio(read=nothing, write=nothing), "", job=job)

    @pytest.mark.parametrize(
        ("stdout", "stderr", "is_unsupported", "words"),
        [
            (fio(error=22), "fio: file: Invalid argument", True, "error 22"),
            (fio(error=95), "", True, "error 95"),
            (fio(error=28), "fio: No space left on device", False, "error 28"),
            ("", "fio: engine nosuch not loadable", True, "not loadable"),
            ("", "Segmentation fault", False, "Segmentation"),
            ('{"jobs": []}', "", False, "fio"),
            ("{half", "", False, "half"),
        ],
    )
    def test_errors(self, stdout: str, stderr: str, *, is_unsupported: bool, words: str) -> None:
        """An error counts whatever numbers stand beside it."""
        with pytest.raises(ToolFailed, match=words) as failed:
            parse_fio(stdout, stderr, job="read")
        assert failed.value.is_unsupported is is_unsupported


class TestNetwork:
    def test_iperf3_says_bits(self) -> None:
        """The key names the unit; 93.9 Mbit/s never becomes 93.9 MB/s (G6)."""
        moved = parse_iperf3(json.dumps({"end": IPERF_END}), metric="network_to_bytes_per_s")
        assert moved.readings == {"network_to_bytes_per_s": 4_323_692_692.0 / 8}

    @pytest.mark.parametrize(
        ("said", "words"),
        [
            ({"end": {}, "error": "unable to connect to server"}, "unable to connect"),
            ({"end": {}}, "no result"),
            ({"end": {"sum_received": {"bytes": 0, "bits_per_second": 0}}}, "0 bytes"),
        ],
    )
    def test_iperf3_without_a_result(self, said: object, words: str) -> None:
        """An error in its JSON comes with exit code 1, but also with 0."""
        with pytest.raises(ToolFailed, match=words):
            parse_iperf3(json.dumps(said), metric="network_to_bytes_per_s")
        with pytest.raises(ToolFailed, match="no result"):
            parse_iperf3("", metric="network_to_bytes_per_s")

    @pytest.mark.parametrize(
        ("unit", "factor"), [("B/s", 1), ("KB/s", 1 << 10), ("MB/s", 1 << 20), ("GB/s", 1 << 30)]
    )
    def test_wget_says_its_unit(self, unit: str, factor: int) -> None:
        """The number is read with the unit beside it."""
        moved = parse_wget(WGET.replace("MB/s", unit), expected_bytes=8_388_608)
        assert moved.readings == {"download_wget_bytes_per_s": 106.0 * factor}

    @pytest.mark.parametrize(
        ("text", "expected_bytes"),
        [(WGET, 8_388_609), (WGET.replace("106", "0"), 8_388_608), ("wget: refused", 1), ("", 1)],
    )
    def test_wget_without_the_whole_file(self, text: str, expected_bytes: int) -> None:
        """A part of the file, or none, is no download."""
        with pytest.raises(ToolFailed, match="wget"):
            parse_wget(text, expected_bytes=expected_bytes)

    def test_curl_moves_both_ways(self) -> None:
        """Its own words are bytes a second."""
        said = {"http_code": 200, "size_download": 9, "speed_download": 441_087_811}
        down = parse_curl(json.dumps(said), "", upload=False, expected_bytes=9)
        assert down.readings == {"download_curl_bytes_per_s": 441_087_811}
        said = {"http_code": 200, "size_upload": 9, "speed_upload": 5}
        up = parse_curl(json.dumps(said), "", upload=True, expected_bytes=9)
        assert up.readings == {"upload_curl_bytes_per_s": 5}

    @pytest.mark.parametrize(
        "changes",
        [{"http_code": 404}, {"size_download": 8}, {"speed_download": 0}, {"http_code": None}],
    )
    def test_curl_without_the_whole_file(self, changes: dict[str, object]) -> None:
        """Another status or another size is a failure."""
        said = {"http_code": 200, "size_download": 9, "speed_download": 7, **changes}
        with pytest.raises(ToolFailed, match="curl"):
            parse_curl(json.dumps(said), "curl: (22)", upload=False, expected_bytes=9)
