"""ghz: gRPC unary, closed loop."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.peers.common import built, built_version, run_pinned
from benchmarks.tools import read_json
from seatrial.errors import EnvironmentTrouble

if TYPE_CHECKING:
    from benchmarks.series import Figures
    from benchmarks.servers import Address
    from benchmarks.settings import Settings

PROTO = Path(__file__).parent / "load.proto"
METHOD = "seatrial.bench.Echo.Call"
QUANTILES = {50: "p50", 90: "p90", 99: "p99"}
#: Field 1, of a length.
FIELD_TAG = 0x0A
TAG_BYTES = 2
ONE_BYTE_LENGTH_MAX = 127
#: When its time is over ghz closes the connections under the requests in flight.
CUT_OFF = {"Canceled", "Unavailable"}


def measure(
    settings: Settings, server: Address, *, connections: int, message_bytes: int, seconds: float
) -> Figures:
    """Returns rate and quantiles, one call at a time on each connection."""
    data = json.dumps({"data": base64.b64encode(content(message_bytes)).decode()})
    argv = [str(built("ghz")), "--insecure", "--proto", str(PROTO), "--call", METHOD]
    argv += ["-d", data, "-c", str(connections), "--connections", str(connections)]
    argv += ["-z", f"{seconds:g}s", "--cpus", "1", "-O", "json"]
    return parse(run_pinned(settings, [*argv, f"{server.host}:{server.port}"], seconds=seconds))


def content(message_bytes: int) -> bytes:
    """Returns the field that makes a message so long: its tag and its length take two bytes."""
    if not TAG_BYTES <= message_bytes <= ONE_BYTE_LENGTH_MAX + TAG_BYTES:
        raise ValueError(f"{message_bytes} bytes; expected 2 to 129, which one byte can tell")
    return bytes(index % 256 for index in range(message_bytes - TAG_BYTES))


def message(message_bytes: int) -> bytes:
    """Returns the message as it is on the wire, by the encoding of protocol buffers."""
    field = content(message_bytes)
    return bytes((FIELD_TAG, len(field))) + field


def parse(text: str) -> dict[str, float]:
    """Reads ghz's JSON, whose lengths are whole ns."""
    read = read_json(text, source="ghz")
    codes, quantiles = read.get("statusCodeDistribution"), read.get("latencyDistribution")
    if not isinstance(codes, dict) or not isinstance(quantiles, list):
        raise EnvironmentTrouble(f"ghz: no status codes or no percentiles in {text[:200]!r}")
    if set(codes) - CUT_OFF != {"OK"}:
        raise EnvironmentTrouble(f"ghz: calls ended as {codes}; expected OK")
    figures = {"rate_rps": float(str(read["rps"])), "ok_count": float(codes["OK"])}
    figures["response_max_ns"] = float(str(read["slowest"]))
    for entry in quantiles:
        if entry["percentage"] in QUANTILES:
            word = QUANTILES[entry["percentage"]]
            figures[f"response_{word}_ns"] = float(entry["latency"])
    return figures


def version() -> str:
    """Returns ghz's pinned version."""
    return built_version("ghz")
