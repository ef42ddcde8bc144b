"""What `seatrial load` writes for the tools of others holds what it prints."""

from __future__ import annotations

import base64
import json
import zlib
from typing import TYPE_CHECKING

from seatrial.cli.main import main

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pytest

#: Bytes of HdrHistogram's compressed form before the stream, and of its plain form before counts.
COMPRESSED_HEAD, PLAIN_HEAD = 8, 40
#: Of a count: all but the ninth byte have seven bits and say whether another one follows.
SHIFT_LAST = 56


def _zigzags(data: bytes) -> Iterator[int]:
    """The signed numbers of HdrHistogram's second version: LEB128 of at most nine bytes."""
    number = shift = 0
    for byte in data:
        is_last = byte < 0x80 or shift == SHIFT_LAST
        number |= (byte if shift == SHIFT_LAST else byte & 0x7F) << shift
        shift += 7
        if is_last:
            yield (number >> 1) ^ -(number & 1)
            number = shift = 0


def logged_counts(path: Path) -> list[int]:
    """How many values each line of an HDR histogram log has, by its own bytes."""
    lines = [line for line in path.read_text().splitlines() if line[0].isdigit()]
    compressed = [base64.b64decode(line.split(",")[3])[COMPRESSED_HEAD:] for line in lines]
    # What is negative tells how many buckets are empty.
    return [
        sum(max(0, one) for one in _zigzags(zlib.decompress(data)[PLAIN_HEAD:]))
        for data in compressed
    ]


def test_the_log_holds_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Neither the backlog of a warm-up nor the replies of a cool-down are in it."""
    words = ["--rate", "500/s", "--warm-up", "500ms", "--duration", "1s", "--cool-down", "1s"]
    # What was due in the last 200 ms of the warm-up ends in the measured time.
    url = "fake://?service=constant:400us&workers=4&stall_at=300ms&stall=400ms"
    path = tmp_path / "r.hlog"
    assert main(["load", url, *words, "-c", "300", "--hdr", str(path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    printed = result["times"][0]["count"]
    later = [point for point in result["series"] if point["end_ns"] > result["measure_start_ns"]]
    assert sum(point["ok_count"] for point in later) > 1.5 * printed
    assert sum(logged_counts(path)) == printed == result["measured"]["ok_count"]
