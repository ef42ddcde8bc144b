"""h2load: HTTP/1.1 and HTTP/2 (h2c), closed loop or with a rate for each client.

Its version 1.52 prints no percentiles; where they are wanted, they come from its log of single
requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchmarks.peers.common import duration_ns, found, run_pinned, whole_seconds
from seatrial import proc
from seatrial.errors import EnvironmentTrouble
from seatrial.units import NS_PER_US

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.series import Figures
    from benchmarks.settings import Settings

WARM_UP = 1
LOG_COLUMNS = 3


def measure(
    settings: Settings,
    url: str,
    *,
    connections: int,
    seconds: float,
    streams: int = 1,
    is_http1: bool = False,
    body: Path | None = None,
    headers: tuple[str, ...] = (),
) -> Figures:
    """Returns rate and mean of a closed loop; with a body each request is a POST of it."""
    length = whole_seconds(seconds)
    argv = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{length}"]
    argv += [f"--warm-up-time={WARM_UP}", *(["--h1"] if is_http1 else [])]
    argv += ["-d", str(body)] if body is not None else []
    for header in headers:
        argv += ["-H", header]
    return parse(run_pinned(settings, [*argv, url], seconds=length + WARM_UP))


def paced(
    settings: Settings, url: str, *, connections: int, seconds: float, rate_rps: float
) -> Figures:
    """Returns rate and quantiles with a rate for each client, from the log of single requests."""
    length = whole_seconds(seconds)
    log = settings.build / "h2load.log"
    log.unlink(missing_ok=True)
    each = max(1, round(rate_rps / connections))
    argv = ["h2load", "--h1", "-t1", f"-c{connections}", f"-D{length}", f"--rps={each}"]
    text = run_pinned(settings, [*argv, f"--log-file={log}", url], seconds=length)
    return parse(text) | parse_log(log.read_text())


def parse(text: str) -> dict[str, float]:
    """Reads the summary; the rate is that of the main part, without the warm-up."""
    failed = int(found(r"^requests: .*?(\d+) failed", text, tool="h2load"))
    done = int(found(r"^requests: .*?(\d+) succeeded", text, tool="h2load"))
    if failed or not done:
        raise EnvironmentTrouble(f"h2load: {done} requests succeeded, {failed} failed")
    row = found(r"^time for request:\s+(.*)$", text, tool="h2load").split()
    return {
        "rate_rps": float(found(r"^finished in .*?, ([\d.]+) req/s", text, tool="h2load")),
        "response_mean_ns": duration_ns(row[2]),
        "response_max_ns": duration_ns(row[1]),
    }


def parse_log(text: str) -> dict[str, float]:
    """Reads the log: start (us since 1970), status and length (us) of each request, by tabs."""
    lengths_ns = []
    for line in text.splitlines():
        words = line.split("\t")
        if len(words) != LOG_COLUMNS or not words[2].isdigit():
            raise EnvironmentTrouble(f"h2load's log has the line {line[:80]!r}; expected 3 columns")
        lengths_ns.append(int(words[2]) * NS_PER_US)
    if not lengths_ns:
        raise EnvironmentTrouble("h2load's log is empty")
    quantiles = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1.0}
    return {
        f"response_{word}_ns": float(np.quantile(lengths_ns, q, method="inverted_cdf"))
        for word, q in quantiles.items()
    }


def version() -> str:
    """Returns h2load's version."""
    return found(r"nghttp2/(\S+)", proc.run(["h2load", "--version"]).text, tool="h2load")
