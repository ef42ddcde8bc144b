"""Drivers by name, built in and brought by other packages."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext
from seatrial.drivers.fake import FakeDriver
from seatrial.errors import ConfigError
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Callable

    from seatrial.model.scalar import Scalar

ALL = (*registry.BUILT_IN, "cri/kata-qemu")
WITH_OPTIONS = {
    "podman": ("runtime",),
    "docker": ("runtime",),
    "nerdctl": ("runtime",),
    "qemu": ("memory", "accel"),
    "qemu-template": ("memory", "accel"),
    "firecracker": ("memory", "jailer"),
    "firecracker-snapshot": ("memory", "jailer"),
    "cri/runc": ("endpoint", "snapshotter"),
    "cri/runsc": ("endpoint", "snapshotter"),
    "cri/kata-qemu": ("endpoint", "snapshotter"),
    "fake": ("start", "hang_ratio"),
}


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

    def load(self) -> Callable[[], object]:
        return FakeDriver


def test_another_package_brings_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    """It stands behind the built-in ones and is made on demand."""
    monkeypatch.setattr(registry, "entry_points", lambda **_: [Point()])
    assert registry.names()[-1] == "theirs"
    assert isinstance(registry.get("theirs"), FakeDriver)


class TestOptions:
    """What ``[driver.NAME]`` says is judged without the runtime."""

    @pytest.mark.parametrize("name", ALL)
    def test_no_driver_takes_what_it_does_not_know(self, name: str) -> None:
        """Each unknown option is told, with those that there are."""
        found = registry.option_problems(name, {"frobnicate": 1, "colour": "red"})
        assert [key for key, _ in found] == [f"driver.{name}.frobnicate", f"driver.{name}.colour"]
        for _, message in found:
            known = WITH_OPTIONS.get(name)
            if known is None:
                assert message == f"{name} takes no options"
            else:
                assert message.startswith("unknown option; known: ")
                assert set(known) <= set(message.partition("known: ")[2].split(", "))

    @pytest.mark.parametrize("name", ALL)
    def test_nor_does_it_open_with_that(self, name: str) -> None:
        """The same is refused where a session begins, whoever asks for it."""
        context = DriverContext.for_run("r-1", network=NetworkMode.NONE, options={"frobnicate": 1})
        with pytest.raises(ConfigError, match=r"frobnicate: .*(unknown|takes no) option"):
            registry.get(name).open(context)

    @pytest.mark.parametrize(
        ("name", "options", "expected"),
        [
            ("crun", {}, {}),
            ("podman", {"runtime": "crun"}, {}),
            ("podman", {"runtime": 3}, {"runtime": "got 3; expected the name or the path"}),
            ("qemu", {"memory": "1GiB", "vcpus": 2, "accel": "tcg"}, {}),
            (
                "qemu",
                {"vcpus": 65, "memory": "none", "accel": "hax", "x": 1},
                {"vcpus": "got 65", "memory": "got 'none'", "accel": "got 'hax'", "x": "unknown"},
            ),
            ("firecracker", {"uid": 7}, {"uid": "got 7; means nothing without jailer = true"}),
            # Whether the number is of use hangs on what is wrong itself.
            ("firecracker", {"jailer": 1, "uid": 7}, {"jailer": "got 1; expected true or false"}),
            ("cri/runc", {"endpoint": "x"}, {"endpoint": "got 'x'; expected unix:///PATH"}),
            ("cri/runc", {"channel": "udp", "channel_address": "::1"}, {"channel": "got 'udp'"}),
            (
                "cri/runc",
                {"image": 5, "snapshotter": ""},
                {"image": "got 5; expected the name", "snapshotter": "got ''; expected the name"},
            ),
            ("cri/runc", {"image": "a"}, {"image": "got 'a'; means nothing without endpoint"}),
            (
                "cri/runc",
                {"endpoint": "/s", "image": "a", "snapshotter": "native"},
                {"snapshotter": "got 'native'; means nothing with a server of yours"},
            ),
            (
                "cri/runc",
                {"endpoint": "/s"},
                {"image": "expected the name of an image that the server has"},
            ),
            # It is of use once the endpoint is right.
            ("cri/runc", {"endpoint": "x", "image": "a"}, {"endpoint": "got 'x'"}),
            ("cri/kata-qemu", {"channel": "unix"}, {"channel": "got 'unix'; expected tcp"}),
            (
                "cri/runc",
                {"endpoint": "/run/x.sock", "channel": "tcp"},
                {"channel_address": "expected an address of this host"},
            ),
            ("fake", {"start": "constant:5ms", "hang_ratio": 0.5}, {}),
            (
                "fake",
                {"start": "soon", "hang_ratio": True},
                {"start": "got 'soon'", "hang_ratio": "got True"},
            ),
        ],
    )
    def test_all_that_is_wrong(
        self,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
        options: dict[str, Scalar],
        expected: dict[str, str],
    ) -> None:
        """Every option by its key, what was given and what was expected."""
        for variable in ("SEATRIAL_CRI_ENDPOINT", "SEATRIAL_CRI_CHANNEL_ADDRESS"):
            monkeypatch.delenv(variable, raising=False)
        found = dict(registry.option_problems(name, options))
        assert set(found) == {f"driver.{name}.{option}" for option in expected}
        for option, start in expected.items():
            assert found[f"driver.{name}.{option}"].startswith(start)

    def test_trouble_that_is_no_option(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A variable of the environment that the options are read with is named by itself."""
        monkeypatch.setenv("SEATRIAL_CRI_ENDPOINT", "here")
        ((key, message),) = registry.option_problems("cri/runc", {"snapshotter": "native"})
        assert key == "SEATRIAL_CRI_ENDPOINT"
        assert message.startswith("got 'here'; expected unix:///PATH")

    def test_a_driver_that_cannot_judge(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """One from another package may lack the method: it is trusted."""
        theirs = SimpleNamespace(name="theirs", load=lambda: lambda: SimpleNamespace(name="theirs"))
        monkeypatch.setattr(registry, "entry_points", lambda **_: [theirs])
        assert registry.option_problems("theirs", {"frobnicate": 1}) == []
