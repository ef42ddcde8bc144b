"""`[load]` over each protocol of the guest, through a veth pair, stamped by the kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl
import pytest

from tests.support.fake_run import run_text
from tests.support.needs import needs_root

if TYPE_CHECKING:
    from pathlib import Path

EXPERIMENT = """
name = "protocols"
seed = 3
blocks = 1
baseline = "process"
drivers = ["process"]
[load]
protocol = "{protocol}"
connections = [2]
rates = ["300/s"]
duration = "1s"
warm_up = "200ms"
timestamps = "kernel"
{more}
"""


@pytest.mark.parametrize("protocol", ["rpc", "echo", "http", "grpc"])
def test_every_protocol_has_its_numbers(tmp_path: Path, protocol: str) -> None:
    """Nothing fails, all that was due is answered, and the kernel stamped both ends of the way."""
    needs_root("make network namespaces")
    more = 'payload = "64B"' if protocol == "echo" else ""
    summary, path = run_text(EXPERIMENT.format(protocol=protocol, more=more), tmp_path)
    assert summary.trials_finished == summary.trials_planned == 2
    assert not [one for one in summary.findings if one.code == "request-failures"]
    loads = pl.concat(
        [pl.read_parquet(file) for file in path.rglob("loads.parquet")], how="diagonal_relaxed"
    )
    assert loads.height == 2
    assert (loads["ok_count"] == loads["intended_count"]).all()
    assert (loads["timestamps"] == "kernel").all()
    assert (loads["counted_until_ns"] == loads["measure_end_ns"]).all()
    files = list(path.rglob("requests.parquet"))
    assert len(files) == 2
    for file in files:
        requests = pl.read_parquet(file).drop_nulls("kernel_sent_at_ns")
        stamped = requests.drop_nulls("kernel_received_at_ns")
        assert stamped.height > 0.9 * pl.read_parquet(file).height
        wire = stamped["kernel_received_at_ns"] - stamped["kernel_sent_at_ns"]
        service = stamped["done_at_ns"] - stamped["sent_at_ns"]
        assert (wire > 0).all()
        # Inside of our own stamps, as the way through a device and back is.
        assert (wire <= service).all()
