"""How guests in pods call, as data: options, ways, and what handlers that are machines say."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import registry
from seatrial.drivers.base import DriverContext
from seatrial.drivers.cri import channel, config, driver, programs, traits
from seatrial.drivers.cri.channel import ChannelChoice
from seatrial.drivers.cri.handlers import HANDLERS, OTHER_KATA, ChannelKind, known_handler
from seatrial.drivers.instance import Command
from seatrial.drivers.local import LocalDriver, OneStart
from seatrial.errors import ConfigError, DriverUnavailable
from seatrial.launch import StartPlan
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

KATA = ("kata-qemu", "kata-clh", "kata-fc")


def choice(name: str = "runc", *, has_own_server: bool = True, **options: object) -> ChannelChoice:
    """What the options of a driver come to."""
    return ChannelChoice.parse(
        f"cri/{name}", known_handler(name), options, has_own_server=has_own_server
    )


class TestChoice:
    """The options channel and channel_address."""

    def test_the_handler_decides_unless_the_option_does(self) -> None:
        """Kata by TCP, others on a socket; what nobody knows on a socket too."""
        assert choice().kind is ChannelKind.UNIX
        assert choice(channel="tcp").kind is ChannelKind.TCP
        assert {choice(name).kind for name in KATA} == {ChannelKind.TCP}
        assert choice("moon", has_own_server=False).kind is ChannelKind.UNIX

    @pytest.mark.parametrize(
        ("name", "options", "text"),
        [
            ("runc", {"channel": "vsock"}, "'vsock': expected unix or tcp"),
            ("runc", {"channel": True}, "True: expected unix or tcp"),
            ("kata-clh", {"channel": "unix"}, "a virtual machine shares no sockets"),
            ("runc", {"channel_address": "10.88.0.1"}, "only with endpoint"),
            ("kata-qemu", {"channel_address": "10.88.0.1"}, "only with endpoint"),
        ],
    )
    def test_what_contradicts_itself(
        self, name: str, options: Mapping[str, object], text: str
    ) -> None:
        """The option, its value and what was expected."""
        with pytest.raises(ConfigError, match=re.escape(text)) as caught:
            choice(name, **options)
        assert caught.value.message.startswith(f'driver."cri/{name}".{next(iter(options))}')

    def test_somebody_elses_server_needs_an_address(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """From the option or the environment; a name is none."""
        monkeypatch.delenv(channel.ADDRESS_VARIABLE, raising=False)
        everywhere = ("0.0.0.0", "::", "224.0.0.1")  # noqa: S104 - refused, not bound
        for wrong in (None, "localhost", "10.0.0.0/8", *everywhere):
            with pytest.raises(ConfigError, match="an address of this host") as caught:
                choice("kata-qemu", has_own_server=False, channel_address=wrong)
            assert caught.value.hint == channel.EXAMPLE
        given = {"channel_address": "10.88.0.1"}
        assert choice("kata-qemu", has_own_server=False, **given).address == "10.88.0.1"
        monkeypatch.setenv(channel.ADDRESS_VARIABLE, "fd00::1")
        assert choice("kata", has_own_server=False).address == "fd00::1"
        # It is about those that call by TCP only.
        assert choice("runc", has_own_server=False).address == ""

    def test_a_pod_without_a_network_gets_what_it_calls_over(self) -> None:
        """And the flags do not hide it."""
        by_socket, by_tcp = choice(), choice(channel="tcp")
        for mode in NetworkMode:
            assert by_socket.network_of_pod(mode) is mode
        assert by_tcp.network_of_pod(NetworkMode.NONE) is NetworkMode.VETH
        assert by_tcp.network_of_pod(NetworkMode.HOST) is NetworkMode.HOST
        assert by_socket.flags(has_own_server=True)["network none"] == "empty namespace by CNI"
        assert by_tcp.flags(has_own_server=True)["network none"].startswith("not empty")
        theirs = choice(has_own_server=False).flags(has_own_server=False)
        assert theirs["network none"] == theirs["veth"] == "the server's own pod network"


class TestWay:
    """How one guest reaches its host."""

    def test_by_socket(self) -> None:
        """The directory is bound into the pod, and the launcher listens in it."""
        way = channel.by_socket(Path("/run/x/c"))
        assert way.words == ("--channel-path", "/channel/s")
        assert (way.path, way.token, way.environment) == ("/run/x/c/s", None, {})
        assert [outside for outside, _ in way.mounts] == ["/run/x/c"]

    def test_by_tcp(self) -> None:
        """The token is new each time, in the environment only, and in no text."""
        one, two = channel.by_tcp("10.78.0.1", 4000), channel.by_tcp("fd00::1", 4000)
        assert one.words == ("--channel-tcp", "10.78.0.1:4000")
        assert two.words == ("--channel-tcp", "[fd00::1]:4000")
        assert one.mounts == ()
        assert one.token != two.token
        assert one.token is not None
        assert re.fullmatch("[0-9a-f]{64}", one.token)
        assert one.environment == {channel.TOKEN_VARIABLE: one.token}
        assert one.token not in repr(one.words) + repr(replace(one, environment={}))
        command = Command(argv=("x",), channel_token=one.token)
        plan = StartPlan(id="a", argv=("x",), deadline_ns=1, channel_token=one.token)
        assert one.token not in repr(command) + repr(plan)
        assert plan.to_json()["channel_token"] == one.token

    def test_who_calls_inherits_nothing(self) -> None:
        """A descriptor, a path or a token: one of them."""
        assert Command(argv=("x",)).channel_fd == 3
        assert Command(argv=("x",), channel_path="/s").channel_fd is None
        assert Command(argv=("x",), channel_token="0" * 64).channel_fd is None


class TestMachines:
    """What the data say of Kata."""

    def test_traits(self) -> None:
        """Own clock, never the host's network, room for the monitor beside a limit."""
        for name in KATA:
            handler = HANDLERS[name]
            capabilities = traits.handler_capabilities(handler)
            assert NetworkMode.HOST not in capabilities.network_modes
            assert not capabilities.shares_host_clock
            assert capabilities.limit_overhead_bytes == handler.overhead_bytes >= 130 << 20
            assert traits.machine_flags(handler)["guest clock"] == "its own"
            assert "for the control channel" in traits.network_gaps(handler)[0]
        runc = HANDLERS["runc"]
        assert NetworkMode.HOST in traits.handler_capabilities(runc).network_modes
        assert traits.handler_capabilities(runc).limit_overhead_bytes == 0
        assert (traits.machine_flags(runc), traits.network_gaps(runc)) == ({}, ())
        assert not traits.handler_capabilities(None).shares_host_clock

    def test_other_handlers_of_kata_are_known_by_their_name(self) -> None:
        """On somebody's server."""
        for name in ("kata", "kata-dragonball", "kata-qemu-snp"):
            assert known_handler(name) is OTHER_KATA
        for name in ("katana", "my-kata", "youki"):
            assert known_handler(name) is None
        assert known_handler("kata-fc") is HANDLERS["kata-fc"]

    def test_a_configuration_that_books_outside(self, tmp_path: Path) -> None:
        """Only one that sets sandbox_cgroup_only books everything in the pod's group."""
        path = tmp_path / "configuration-qemu.toml"
        for text, count in (
            ("[runtime]\nsandbox_cgroup_only = true\n", 0),
            ("[runtime]\nsandbox_cgroup_only = false\n", 1),
            ("[hypervisor.qemu]\n", 1),
            ("runtime = 1\n", 1),
            ("not toml", 1),
        ):
            path.write_text(text)
            assert len(config.kata_gaps(path)) == count, text
        assert "cannot be read" in config.kata_gaps(tmp_path / "none")[0]

    def test_roles(self) -> None:
        """Monitors, whatever they are called."""
        session = SimpleNamespace(_handler="kata-qemu")
        for word, role in {
            "/opt/kata/bin/qemu-system-x86_64": "vmm",
            "/opt/kata/bin/cloud-hypervisor": "vmm",
            "/opt/kata/libexec/virtiofsd": "virtiofsd",
            "/opt/kata/bin/containerd-shim-kata-v2": "shim",
        }.items():
            seen = SimpleNamespace(pid=1, name="x", first_word=word, group="box")
            assert driver.CriSession.role_of(session, seen) == role  # type: ignore[arg-type]  # all that it looks at

    def test_a_machine_has_time_to_boot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """In the probe; a container has what all have."""
        asked: list[object] = []

        def note(_self: object, _session: object, *, deadline_ns: int | None = None) -> OneStart:
            asked.append(deadline_ns)
            return OneStart(trouble=None, relics=())

        monkeypatch.setattr(LocalDriver, "start_one", note)
        for name in ("kata-qemu", "kata", "runc"):
            driver.CriDriver(name).start_one(None)  # type: ignore[arg-type]  # it is not looked at
        assert asked == [driver.MACHINE_DEADLINE_NS, driver.MACHINE_DEADLINE_NS, None]


class TestPrograms:
    """What a private containerd with a handler of Kata lacks, one after the other."""

    @pytest.fixture(autouse=True)
    def _all_there(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setattr(programs.os, "geteuid", lambda: 0)
        monkeypatch.setattr(programs, "find_program", lambda name, **_: Path("/bin") / name)
        monkeypatch.setattr(programs, "Path", lambda _: SimpleNamespace(exists=lambda: True))
        monkeypatch.setattr(programs.config, "kata_configuration", lambda name: tmp_path / name)
        monkeypatch.setattr(programs.config, "cni_directory", lambda: tmp_path)

    def test_it_is_usable_with_everything_there(self) -> None:
        """Its shim is among the programs."""
        handler, found = programs.find_programs("kata-qemu", elsewhere="elsewhere")
        assert handler is HANDLERS["kata-qemu"]
        assert found["containerd-shim-kata-v2"] == Path("/bin/containerd-shim-kata-v2")

    @pytest.mark.parametrize(
        ("name", "attribute", "text", "hint"),
        [
            ("kata-qemu", "cni_directory", "CNI plugins ptp", "containernetworking-plugins"),
            # The shim would silently take another hypervisor.
            ("kata-clh", "kata_configuration", "configuration-clh.toml", "link yours"),
            ("kata-fc", "", "block devices only", "elsewhere, with the snapshotter devmapper"),
        ],
    )
    def test_what_is_missing(
        self, monkeypatch: pytest.MonkeyPatch, name: str, attribute: str, text: str, hint: str
    ) -> None:
        """Said before anything is started, with what to do."""
        if attribute:
            monkeypatch.setattr(programs.config, attribute, lambda *_: None)
        with pytest.raises(DriverUnavailable, match=re.escape(text)) as caught:
            programs.find_programs(name, elsewhere="elsewhere")
        assert caught.value.message.startswith(f"cri/{name} ")
        assert hint in (caught.value.hint or "")

    def test_no_kvm(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As before."""
        monkeypatch.setattr(programs, "Path", lambda _: SimpleNamespace(exists=lambda: False))
        with pytest.raises(DriverUnavailable, match="needs /dev/kvm"):
            programs.find_programs("kata-qemu", elsewhere="elsewhere")

    def test_the_option_needs_the_plugins_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Any handler that is to call by TCP."""
        monkeypatch.delenv(driver.ENDPOINT_VARIABLE, raising=False)
        monkeypatch.setattr(programs.config, "cni_directory", lambda: None)
        context = DriverContext.for_run("cri-tcp", options={"channel": "tcp"})
        with pytest.raises(DriverUnavailable, match=r"cri/runc calls by TCP.*CNI plugins"):
            driver.CriDriver("runc").open(context)


def test_the_environment_names_what_no_experiment_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option wins over a variable."""
    for variable in traits.VARIABLES.values():
        monkeypatch.delenv(variable, raising=False)
    assert traits.with_environment({"image": "a"}) == {"image": "a"}
    monkeypatch.setenv("SEATRIAL_CRI_ENDPOINT", "/s")
    monkeypatch.setenv("SEATRIAL_CRI_IMAGE", "b")
    assert traits.with_environment({}) == {"endpoint": "/s", "image": "b"}
    assert traits.with_environment({"image": "a"})["image"] == "a"


def test_a_probe_of_kata_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it is not installed."""
    monkeypatch.delenv(driver.ENDPOINT_VARIABLE, raising=False)
    monkeypatch.setenv("PATH", "/nonexistent")
    for name in KATA:
        result = registry.get(f"cri/{name}").probe()
        assert not result.status.is_usable
        assert result.hint


def test_the_gateway_is_the_first_address() -> None:
    """Ours to say, so that it is known before there is a pod."""
    assert config.gateway_of("10.78.16.0/20") == "10.78.16.1"
    text = config.veth_network("10.78.16.0/20", Path("/a"))
    assert '"gateway": "10.78.16.1"' in text
