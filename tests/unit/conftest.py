"""Fixtures of the unit tests, which start no sandbox."""

from __future__ import annotations

import pytest

from seatrial.drivers.base import ProbeResult, ProbeStatus
from seatrial.drivers.local import LocalDriver


@pytest.fixture
def works_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every driver of this machine is said to work, without a try; runc takes two seconds."""

    def probe(self: LocalDriver) -> ProbeResult:
        return ProbeResult(
            name=self.name,
            status=ProbeStatus.MISSING if self.name == "crun" else ProbeStatus.WORKS,
            version="1",
            detail="so it is said",
            life_ns=2_000_000_000 if self.name == "runc" else 10_000_000,
        )

    monkeypatch.setattr(LocalDriver, "probe", probe)
