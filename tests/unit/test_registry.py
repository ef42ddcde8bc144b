"""Drivers by name, built in and brought by other packages."""

from __future__ import annotations

import pytest

from seatrial.drivers import registry
from seatrial.drivers.fake import FakeDriver
from seatrial.errors import ConfigError


def test_all_built_in_drivers_have_their_own_names() -> None:
    """The name under which a driver is found is the name it gives itself."""
    for name in registry.BUILT_IN:
        assert registry.get(name).name == name


def test_an_unknown_name_lists_the_known_ones() -> None:
    """A typing error is answered with what there is."""
    with pytest.raises(ConfigError, match=r"'rnc'.*runc"):
        registry.get("rnc")


class Point:
    """An entry point of another package."""

    name = "theirs"

    def load(self) -> type[FakeDriver]:
        return FakeDriver


def test_another_package_brings_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands behind the built-in ones and is made on demand."""
    monkeypatch.setattr(registry, "entry_points", lambda **_: [Point()])
    assert registry.names()[-1] == "theirs"
    assert isinstance(registry.get("theirs"), FakeDriver)
