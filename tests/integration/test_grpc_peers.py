"""gRPC through a real nginx: over TLS, and on connections that it ends after some requests."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import polars as pl
import pytest

from seatrial.errors import TrialFailed
from seatrial.loadgen import LoadRequest, run_load
from tests.support import peers
from tests.support.served import Served, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from seatrial.loadgen import LoadResult

SECOND_NS = 1_000_000_000
GATE = """
daemon off;
master_process off;
pid nginx.pid;
error_log stderr notice;
events {{ worker_connections 256; }}
http {{
    access_log off;
    keepalive_requests {keepalive_requests};
    http2_max_concurrent_streams 64;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    upstream behind {{ server 127.0.0.1:{behind}; keepalive 4; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {chain}; ssl_certificate_key {key};
        location / {{ grpc_pass grpc://behind; }}
    }}
}}
"""


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> peers.Certificate:
    """A certificate for 127.0.0.1, signed by a CA that nobody knows."""
    return peers.make_certificate(tmp_path_factory.mktemp("certificate"))


@contextlib.contextmanager
def gate(
    folder: Path, certificate: peers.Certificate, *, keepalive_requests: int = 1_000_000
) -> Iterator[tuple[str, Served]]:
    """Runs our gRPC server behind an nginx that speaks TLS; yields the target and the server."""
    program = peers.needs_program("nginx")
    port = peers.free_port()
    with serving("--protocol", "grpc", "--listen", "tcp:127.0.0.1:0") as served:
        behind = int(served.endpoints[0].rpartition(":")[2])
        text = GATE.format(
            port=port,
            behind=behind,
            keepalive_requests=keepalive_requests,
            chain=certificate.chain,
            key=certificate.key,
        )
        (folder / "gate.conf").write_text(text)
        command = [program, "-p", str(folder), "-c", str(folder / "gate.conf"), "-e", "stderr"]
        with peers.running(command, ready="using the", folder=folder):
            yield f"tls://127.0.0.1:{port}", served


def load(target: str, certificate: peers.Certificate, **settings: Any) -> LoadResult:
    """Returns the result of 600 calls that no time limit ends."""
    values: dict[str, Any] = {
        "operation": "checksum",
        "payload_bytes": 300,
        "connections": 2,
        "requests_max": 600,
        "measure_ns": 60 * SECOND_NS,
        "request_timeout_ns": 30 * SECOND_NS,
        "options": {"tls_ca": str(certificate.ca)},
    }
    values |= settings
    return run_load(LoadRequest(targets=(target,), protocol="grpc", **values))


@pytest.mark.parametrize("depth", [1, 16])
def test_calls_over_tls_are_those_that_the_server_counts(
    tmp_path: Path, certificate: peers.Certificate, depth: int
) -> None:
    """Every payload is verified, and both ends count alike; without the CA there is no call."""
    with gate(tmp_path, certificate) as (target, served):
        result = load(target, certificate, depth=depth)
        assert (result.ok_count, result.resent_count) == (600, 0), result.failures
        stats = served.stats()
        assert stats.operations["checksum"] == stats.replies == 600
        with pytest.raises(TrialFailed, match=r"UnknownIssuer.*tls_ca"):
            load(target, certificate, options={})
        assert served.stats().requests == 600


@pytest.mark.parametrize(
    "settings",
    [
        {"depth": 1},
        {"depth": 16},
        {"depth": 8, "arrival": "poisson", "rate_rps": 2000.0, "threads": 2},
    ],
)
def test_connections_that_end_after_some_calls_lose_none(
    tmp_path: Path, certificate: peers.Certificate, settings: dict[str, Any]
) -> None:
    """Nginx ends a connection after ten calls by GOAWAY, in the midst of others on it."""
    with gate(tmp_path, certificate, keepalive_requests=10) as (target, served):
        result = load(target, certificate, **settings)
        assert (result.ok_count, result.intended_count) == (600, 600), result.failures
        assert result.sent_count == sum(each.sent_count for each in result.intervals) == 600
        # None was served twice: what is sent again was not served before.
        assert served.stats().operations["checksum"] == 600
    if settings["depth"] == 16:  # a closed loop always has others under way, an open one may not
        assert result.resent_count > 0
    frame = pl.DataFrame(result)
    assert (frame["done_at_ns"] >= frame["sent_at_ns"]).all()
    assert (frame["sent_at_ns"] >= frame["intended_at_ns"]).all()
