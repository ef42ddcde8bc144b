"""CRI as data: messages, images, configuration files, and the errors of a server."""

from __future__ import annotations

import json
import os
import tarfile
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from seatrial.drivers import image, registry, shared, state
from seatrial.drivers.base import DriverContext
from seatrial.drivers.cri import calls, config, containerd, driver, messages, removal
from seatrial.drivers.cri.handlers import HANDLERS, configured_name
from seatrial.drivers.instance import SeenProcess
from seatrial.errors import ConfigError, DriverError, DriverUnavailable
from seatrial.model.experiment import NetworkMode

if TYPE_CHECKING:
    from collections.abc import Mapping

POD = messages.Pod(
    name="st-1",
    namespace="seatrial",
    handler="runc.host",
    labels={"a": "b"},
    image="seatrial.invalid/guest:1",
    command=("/seatrial-guest", "idle"),
    environment={"KEY": "value"},
    mounts=(("/host", "/inside"),),
    read_only_mounts=(("/there", "/tools"),),
    uses_host_network=True,
    cgroup_parent="/seatrial/r/1/box",
    memory_limit_bytes=1 << 29,
)


class TestMessages:
    """The encoding, and the fields of the requests."""

    def test_the_examples_of_the_encoding(self) -> None:
        """Those that its own description gives, and a negative number."""
        assert messages.encode({1: 150}) == b"\x08\x96\x01"
        assert messages.encode({2: "testing"}) == b"\x12\x07testing"
        assert messages.encode({1: -1}) == b"\x08" + b"\xff" * 9 + b"\x01"
        assert messages.encode({1: 0, 2: "", 3: None, 4: False, 5: []}) == b""
        assert messages.encode({1: ["a", "b"]}) == b"\x0a\x01a\x0a\x01b"

    def test_what_was_written_is_read(self) -> None:
        """Fields, texts, maps; and bytes that are no message."""
        data = messages.encode({1: "x", 5: messages.text_map({"k": "v", "l": "w"}), 300: 7})
        assert messages.text_of(data, 1) == "x"
        assert messages.map_of(data, 5) == {"k": "v", "l": "w"}
        assert (300, 7) in list(messages.fields(data))
        assert messages.bytes_of(data, 9) == b""
        for broken in (b"\x0a\x05abc", b"\x0b", b"\xff\xff"):
            with pytest.raises(ValueError, match="no message"):
                list(messages.fields(broken))

    def test_a_pod_of_the_hosts_network(self) -> None:
        """The numbers of runtime.v1: RunPodSandboxRequest down to the namespaces."""
        request = messages.run_pod_request(POD)
        assert messages.text_of(request, 2) == "runc.host"
        sandbox = messages.bytes_of(request, 1)
        assert messages.text_of(messages.bytes_of(sandbox, 1), 1) == "st-1"
        assert messages.map_of(sandbox, 6) == {"a": "b"}
        linux = messages.bytes_of(sandbox, 8)
        assert messages.text_of(linux, 1) == "/seatrial/r/1/box"
        options = messages.bytes_of(messages.bytes_of(linux, 2), 1)
        # network NODE, pid CONTAINER, ipc POD (which is zero).
        assert list(messages.fields(options)) == [(1, 2), (2, 1)]

    def test_the_container_of_a_pod(self) -> None:
        """Command, mounts, limits and no capabilities; the pod's id is left to the client."""
        request = messages.create_container_request(POD)
        assert messages.bytes_of(request, 1) == b""
        container = messages.bytes_of(request, 2)
        words = [value for number, value in messages.fields(container) if number == 3]
        assert words == [b"/seatrial-guest", b"idle"]
        mounts = [dict(messages.fields(one)) for n, one in messages.fields(container) if n == 7]  # type: ignore[arg-type]  # messages
        assert mounts == [{1: b"/inside", 2: b"/host"}, {1: b"/tools", 2: b"/there", 3: 1}]
        linux = messages.bytes_of(container, 15)
        assert dict(messages.fields(messages.bytes_of(linux, 1))) == {4: 1 << 29}
        capabilities = messages.bytes_of(messages.bytes_of(linux, 2), 1)
        assert messages.text_of(capabilities, 2) == "ALL"


class TestImage:
    """The guest as an image."""

    def test_both_forms_name_both_images(self, tmp_path: Path) -> None:
        """An OCI layout, and what docker and podman read; the same guest gives the same bytes."""
        guest = tmp_path / "guest"
        guest.write_bytes(b"program")
        first = image.build_images(tmp_path / "1.tar", guest=guest, architecture="amd64")
        image.build_images(tmp_path / "2.tar", guest=guest, architecture="amd64")
        assert first.archive.read_bytes() == (tmp_path / "2.tar").read_bytes()
        with tarfile.open(first.archive) as tar:
            files = {one.name: tar.extractfile(one).read() for one in tar}  # type: ignore[union-attr]  # files only
        index = json.loads(files["index.json"])
        names = [one["annotations"]["io.containerd.image.name"] for one in index["manifests"]]
        assert names == [first.guest, first.pause]
        saved = json.loads(files["manifest.json"])
        assert [one["RepoTags"] for one in saved] == [[first.guest], [first.pause]]
        assert {one["Layers"][0] for one in saved} <= files.keys()
        pause = json.loads(files[saved[1]["Config"]])
        assert pause["config"]["Entrypoint"] == ["/pause", "--channel-fd", "none", "idle"]


class TestConfiguration:
    """The files of a private containerd."""

    def test_every_handler_has_a_name_for_each_network(self) -> None:
        """And what the shims are told is where the programs are."""
        layout = config.Layout(base=Path("/run/seatrial/r/containerd"))
        programs = {"runc": Path("/usr/sbin/runc"), "runsc": Path('/tools/run"sc')}
        handlers = {name: HANDLERS[name] for name in ("runc", "runsc")}
        text = config.daemon_config(
            layout,
            handlers,
            programs=programs,
            pause_image="seatrial.invalid/pause:1",
            snapshotter="overlayfs",
            may_lower_oom_score=False,
        )
        read = tomllib.loads(text)
        assert read["root"] == "/run/seatrial/r/containerd/root"
        cri = read["plugins"]["io.containerd.grpc.v1.cri"]
        assert cri["restrict_oom_score_adj"] is True
        runtimes = cri["containerd"]["runtimes"]
        assert set(runtimes) == {
            configured_name(name, mode) for name in handlers for mode in NetworkMode
        }
        assert runtimes["runc.none"]["options"]["BinaryName"] == "/usr/sbin/runc"
        assert runtimes["runsc.veth"]["cni_conf_dir"].endswith("/cni-veth")
        shim = config.runsc_config(
            layout, HANDLERS["runsc"], mode=NetworkMode.HOST, program=programs["runsc"]
        )
        read = tomllib.loads(shim)
        assert read["binary_name"] == '/tools/run"sc'
        assert read["runsc_config"] == {
            "platform": "systrap",
            "network": "host",
            "host-uds": "open",
        }

    def test_networks(self) -> None:
        """None is a plugin of ours; a veth has its addresses from the subnet."""
        assert json.loads(config.no_network())["plugins"] == [{"type": "seatrial-none"}]
        (plugin,) = json.loads(config.veth_network("10.78.0.0/20", Path("/a")))["plugins"]
        (one,) = plugin["ipam"]["ranges"]
        assert one == [{"subnet": "10.78.0.0/20", "gateway": "10.78.0.1"}]

    def test_a_capability_is_a_bit(self) -> None:
        """As /proc/self/status has it."""
        assert config.has_capability("Name:\tx\nCapEff:\t0000000001000000\n", 24)
        assert not config.has_capability("CapEff:\t000001fffeffffff\n", 24)
        assert not config.has_capability("", 24)


class TestDriver:
    """Names, options and errors."""

    def test_any_handler_is_a_driver(self) -> None:
        """Listed or not; what is no handler is not."""
        assert "cri/kata-qemu" in registry.names()
        assert registry.get("cri/my-own.v2").name == "cri/my-own.v2"
        for wrong in ("cri/", "cri/Kata", "cri/a/b", "cri/-a"):
            assert wrong not in registry.names()

    def test_an_unknown_handler_says_which_there_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A private daemon has those of the table only."""
        monkeypatch.delenv(driver.ENDPOINT_VARIABLE, raising=False)
        result = registry.get("cri/moon").probe()
        assert not result.status.is_usable
        assert "'moon'" in result.detail
        assert "runsc" in result.detail

    def test_options_are_checked(self) -> None:
        """An unknown one, an endpoint that is no path, and one without an image."""
        context = DriverContext.for_run("cri-options", options={"endpont": "x"})
        with pytest.raises(ConfigError, match=r"endpont.*known: endpoint, image, snapshotter, ch"):
            driver.CriDriver("runc").open(context)
        with pytest.raises(ConfigError, match="expected unix:///PATH"):
            calls.parse_endpoint("tcp://1.2.3.4:5")
        assert calls.parse_endpoint("unix:///a/b") == calls.parse_endpoint("/a/b")

    def test_nobody_at_the_endpoint(self, tmp_path: Path) -> None:
        """A call says whom it wanted to reach; the driver says that it is not available."""
        with pytest.raises(DriverError, match=r"Version at .*cannot connect") as caught:
            calls.version(tmp_path / "s")
        assert caught.value.code == "cri-call"
        context = DriverContext.for_run(
            "cri-nobody", options={"endpoint": f"unix://{tmp_path}/s", "image": "a"}
        )
        with pytest.raises(DriverUnavailable, match="cannot connect"):
            driver.CriDriver("runc").open(context)

    def test_milestones_are_of_the_clients_report(self, tmp_path: Path) -> None:
        """Also of one that is done; what was not reached is not there."""
        session = SimpleNamespace(_instance=lambda _: SimpleNamespace(directory=tmp_path))

        def found() -> Mapping[str, int]:
            return driver.CriSession.milestones(session, "st-1")  # type: ignore[arg-type]  # all that it looks at

        assert found() == {}
        report = {"pod_id": "p", "begun_at_ns": 5, "pod_at_ns": 7, "created_at_ns": 9}
        (tmp_path / "report.json").write_text(json.dumps({**report, "started_at_ns": 0}))
        assert found() == {"pod_at_ns": 7, "container_created_at_ns": 9}
        (tmp_path / "report.json").unlink()
        (tmp_path / "report.done").write_text(json.dumps({**report, "started_at_ns": 11}))
        assert found()["container_started_at_ns"] == 11
        (tmp_path / "report.done").write_text(json.dumps(report))
        with pytest.raises(DriverError, match="report of a pod"):
            found()

    def test_roles(self) -> None:
        """By the first word of the command line; the client is told from the payload."""
        roles = {
            "/usr/bin/containerd-shim-runc-v2": "shim",
            "/pause": "pause",
            "/seatrial-guest": "payload",
            "runsc-sandbox": "sentry",
            "runsc": "runtime",
            "/x/_bin/seatrial-launch": "client",
        }
        session = SimpleNamespace(_handler="runsc")
        for word, role in roles.items():
            seen = SeenProcess(pid=1, name="x", first_word=word, group="box")
            assert driver.CriSession.role_of(session, seen) == role  # type: ignore[arg-type]  # all that it looks at


class FakeDaemon:
    """Something to be shared."""

    def __init__(self) -> None:
        """Live."""
        self.is_alive = True
        self.closed_count = 0

    def close(self) -> None:
        """Count."""
        self.closed_count += 1


class TestShared:
    """Daemons between the sessions of a run."""

    def test_the_last_one_ends_it(self) -> None:
        """Two users, one daemon."""
        made = shared.acquire("run-1", "x", FakeDaemon)
        assert shared.acquire("run-1", "x", FakeDaemon) is made
        shared.release("run-1", "x")
        assert made.closed_count == 0
        shared.release("run-1", "x")
        shared.release("run-1", "x")
        assert made.closed_count == 1

    def test_a_run_keeps_it_until_its_end(self) -> None:
        """Another session meets the same one; a dead one is replaced."""
        with shared.keep("run-2"):
            made = shared.acquire("run-2", "x", FakeDaemon)
            shared.release("run-2", "x")
            assert shared.acquire("run-2", "x", FakeDaemon) is made
            shared.release("run-2", "x")
            made.is_alive = False
            other = shared.acquire("run-2", "x", FakeDaemon)
            assert other is not made
            assert made.closed_count == 1
            shared.release("run-2", "x")
            assert other.closed_count == 0
        assert other.closed_count == 1


def test_copies_of_the_guest_are_found_while_snapshots_vanish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No directory of a snapshot is read, which may be removed at any time."""
    snapshots = tmp_path / "root/io.containerd.snapshotter.v1.overlayfs/snapshots"
    plain = tmp_path / "root/io.containerd.snapshotter.v1.native/snapshots/1/guest"
    for path in (snapshots / "1/fs/guest", plain):
        path.parent.mkdir(parents=True)
        path.touch()
    (snapshots / "2/fs/etc").mkdir(parents=True)
    (snapshots / "3/work").mkdir(parents=True)
    read = os.scandir

    def vanishing(path: str) -> object:
        if Path(path).parent.name == "snapshots" or "fs" in Path(path).parts:
            raise FileNotFoundError(path)
        return read(path)

    monkeypatch.setattr(containerd, "GUEST_PATH", "/guest")
    monkeypatch.setattr(os, "scandir", vanishing)
    found = containerd.guest_copies(config.Layout(base=tmp_path))
    assert found == [plain, snapshots / "1/fs/guest"]


def test_sockets_of_shims_are_removed_by_their_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only those in the one place where containerd puts them."""
    import socket

    place = tmp_path / "s"
    place.mkdir()
    monkeypatch.setattr(state, "SHIM_SOCKETS", place)
    task = tmp_path / "run/containerd/state/io.containerd.runtime.v2.task/k8s.io/abc"
    other = task.with_name("def")
    with socket.socket(socket.AF_UNIX) as ours, socket.socket(socket.AF_UNIX) as theirs:
        ours.bind(str(place / "1"))
        theirs.bind(str(tmp_path / "2"))
        for directory, path in ((task, place / "1"), (other, tmp_path / "2")):
            directory.mkdir(parents=True)
            (directory / "address").write_text(f"unix://{path}")
        (task / "bootstrap.json").write_text(f'{{"version":3,"address":"unix://{place}/3"}}')
        with socket.socket(socket.AF_UNIX) as newer:
            newer.bind(str(place / "3"))
        removed = state.remove_shim_sockets(tmp_path / "run")
        assert removed == (place / "1", place / "3")
    assert (tmp_path / "2").exists()
    assert not place.exists()


def test_sockets_of_shims_that_are_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told by what a process holds; those of others, and elsewhere, are left alone."""
    import os
    import socket

    place = tmp_path / "s"
    place.mkdir()
    monkeypatch.setattr(state, "SHIM_SOCKETS", place)
    with socket.socket(socket.AF_UNIX) as ours, socket.socket(socket.AF_UNIX) as elsewhere:
        ours.bind(str(place / "1"))
        elsewhere.bind(str(tmp_path / "2"))
        assert state.held_shim_sockets([os.getpid()]) == (place / "1",)
        assert state.held_shim_sockets([os.getppid(), 1 << 30]) == ()
        held = state.held_shim_sockets([os.getpid()])
    assert state.remove_shim_sockets(tmp_path / "run", held) == (place / "1",)
    assert (tmp_path / "2").exists()


class TestRemoval:
    """Pods are removed as far as the server does it."""

    def test_a_refusal_is_asked_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As long as a server cleans up after a shim, which takes seconds on a busy machine."""
        asked: list[str] = []
        pauses: list[float] = []

        def refuse_at_first(_endpoint: Path, method: str, _request: bytes = b"") -> bytes:
            asked.append(method.rpartition("/")[2])
            if len(asked) <= 6:
                raise DriverError("ttrpc: closed")
            return b""

        monkeypatch.setattr(calls, "call", refuse_at_first)
        monkeypatch.setattr(calls.time, "sleep", pauses.append)
        calls.remove_pod(Path("/s"), "pod")
        assert asked == ["StopPodSandbox"] * 7 + ["RemovePodSandbox"]
        assert pauses == [0.05, 0.1, 0.2, 0.4, 0.4, 0.4]

    def test_patience_ends(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """A server that always refuses is given up."""

        def refuse(_endpoint: Path, _method: str, _request: bytes = b"") -> bytes:
            raise DriverError("still there")

        monkeypatch.setattr(calls, "call", refuse)
        monkeypatch.setattr(calls, "REMOVAL_PATIENCE_NS", 20_000_000)
        with pytest.raises(DriverError, match="still there"):
            calls.remove_pod(Path("/s"), "pod")

    def test_one_that_stays_does_not_keep_the_others(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What stays is told."""
        removed: list[str] = []

        def remove(_endpoint: Path, pod_id: str) -> None:
            if pod_id == "stays":
                raise DriverError("no")
            removed.append(pod_id)

        books = {"one": {}, "stays": {}, "two": {}}
        monkeypatch.setattr(calls, "pods", lambda *_: books)
        monkeypatch.setattr(calls, "remove_pod", remove)
        found = removal.PodRemoval().remove(Path("/s"), {"a": "b"})
        assert removed == ["one", "two"]
        assert (found.removed_count, found.is_complete) == (2, False)

    def test_a_server_that_hangs_is_asked_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """And not once more for each of hundreds of sandboxes; later it is."""
        asked: list[object] = []

        def hang(*_: object) -> dict[str, dict[str, str]]:
            asked.append(_)
            raise DriverError("no reply within 10s", code="cri-call")

        monkeypatch.setattr(calls, "pods", hang)
        books = removal.PodRemoval()
        found = [books.remove(Path("/s"), {"a": str(number)}) for number in range(100)]
        assert not any(one.is_complete for one in found)
        assert len(asked) == 1
        monkeypatch.setattr(removal, "DEAF_NS", 0)
        patient = removal.PodRemoval()
        patient.remove(Path("/s"), {})
        patient.remove(Path("/s"), {})
        assert len(asked) == 3

    def test_shims_are_told_by_what_they_serve(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither the server's call that cleans up after one, nor a process of somebody else."""
        lines = {
            1: "/usr/bin/containerd-shim-runsc-v1 -namespace k8s.io -address /s -id abc ",
            2: "/usr/bin/containerd-shim-runsc-v1 -namespace k8s.io -id abc -bundle /b delete",
            3: "/usr/bin/containerd --config -id abc x",
            4: "",
            5: "containerd-shim-runc-v2 -id",
        }
        monkeypatch.setattr(removal.leaks, "command_line", lines.__getitem__)
        assert [removal._served_by(pid) for pid in lines] == ["abc", "", "", "", ""]
