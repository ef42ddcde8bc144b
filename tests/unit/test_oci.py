"""OCI drivers as data: bundles, command lines, roles, and where runsc is looked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from seatrial.drivers import bundle, bwrap, oci, tools
from seatrial.drivers.base import SandboxSpec
from seatrial.drivers.instance import SeenProcess, files_of
from seatrial.drivers.local import describe_failure, find_program, parse_version
from seatrial.errors import DriverUnavailable, EnvironmentTrouble
from seatrial.guest.rootfs import GUEST_PATH
from seatrial.launch import Outcome, StartResult
from seatrial.model.experiment import NetworkMode

ROOT = Path("/run/x/rootfs")


def config(spec: SandboxSpec, **changes: object) -> dict[str, object]:
    """The configuration of a sandbox as a reader of the file sees it."""
    arguments = {
        "root": ROOT,
        "cgroups_path": "/seatrial/r/1/box",
        "network_namespace": None,
        **changes,
    }
    built = bundle.build_config(spec, **arguments)  # type: ignore[arg-type]  # a test's shorthand
    again: dict[str, object] = json.loads(json.dumps(built))
    return again


def namespaces(built: dict[str, object]) -> dict[str, str | None]:
    """Map the kinds of namespaces to their paths."""
    return {one["type"]: one.get("path") for one in built["linux"]["namespaces"]}  # type: ignore[index]  # decoded JSON


class TestBundle:
    def test_what_the_specification_requires(self) -> None:
        """Version, root, process with cwd and args, and an absolute cgroup path."""
        built = config(SandboxSpec(role=("idle",)))
        assert built["ociVersion"] == "1.0.2"
        assert built["root"] == {"path": "/run/x/rootfs", "readonly": True}
        process = built["process"]
        assert process["cwd"] == "/"
        assert process["args"] == [GUEST_PATH, "--channel-fd", "3", "idle"]
        assert process["terminal"] is False
        assert built["linux"]["cgroupsPath"] == "/seatrial/r/1/box"

    def test_nothing_that_needs_more_rights_than_a_host_may_have(self) -> None:
        """No process limits (CAP_SYS_RESOURCE), no seccomp profile, no capability at all."""
        built = config(SandboxSpec(role=("idle",)))
        assert "rlimits" not in built["process"]
        assert "seccomp" not in built["linux"]
        assert set(map(tuple, built["process"]["capabilities"].values())) == {()}
        assert len(built["process"]["capabilities"]) == 5
        assert bundle.FLAGS["seccomp"] == "none"

    @pytest.mark.parametrize(
        ("mode", "path", "expected"),
        [
            (NetworkMode.NONE, None, {"network": None}),
            (NetworkMode.VETH, "/run/netns/st-1", {"network": "/run/netns/st-1"}),
            (NetworkMode.HOST, None, {}),
        ],
    )
    def test_networks(
        self, mode: NetworkMode, path: str | None, expected: dict[str, str | None]
    ) -> None:
        """A new empty one, a prepared one, or the host's, which is none to be named."""
        spec = SandboxSpec(role=("idle",), network=mode)
        found = namespaces(config(spec, network_namespace=path))
        base = {"pid": None, "ipc": None, "uts": None, "mount": None}
        assert found == {**base, **expected}

    def test_limits_and_data(self, tmp_path: Path) -> None:
        """Limits become resources, the data directory a writable bind."""
        spec = SandboxSpec(
            role=("idle",),
            memory_limit_bytes=1 << 20,
            cpu_limit=0.5,
            data_dir=tmp_path,
            tools_dir=tmp_path / "box",
        )
        built = config(spec)
        assert built["linux"]["resources"] == {
            "memory": {"limit": 1 << 20},
            "cpu": {"quota": 50_000, "period": 100_000},
        }
        mounts = {one["destination"]: one for one in built["mounts"]}
        assert mounts["/data"]["source"] == str(tmp_path)
        assert "rw" in mounts["/data"]["options"]
        assert mounts["/tools"]["source"] == str(tmp_path / "box")
        assert mounts["/tools"]["options"] == ["bind", "ro"]
        assert mounts["/tmp"]["type"] == "tmpfs"

    def test_rootless(self) -> None:
        """Without root there is a user namespace, and neither groups nor limits."""
        mapping = bundle.IdMapping(uid=1000, gid=1001)
        built = config(SandboxSpec(role=("idle",)), rootless=mapping)
        assert "user" in namespaces(built)
        assert "cgroupsPath" not in built["linux"]
        assert "resources" not in built["linux"]
        assert built["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
        assert built["linux"]["gidMappings"][0]["hostID"] == 1001


def argv(flavour: oci.Flavour, arguments: tuple[str, ...], *, is_root: bool = True) -> list[str]:
    """A flavour's command line for a sandbox on a veth."""
    return list(
        oci.build_argv(
            flavour,
            binary="/bin/tool",
            state_dir=Path("/s"),
            arguments=arguments,
            values={oci.ID: "st-1", oci.BUNDLE: "/b", oci.NETWORK: "sandbox"},
            is_root=is_root,
        )
    )


class TestCommandLines:
    def test_runc(self) -> None:
        """The channel is descriptor 3, preserved; the state is ours."""
        assert argv(oci.RUNC, oci.RUNC.run_arguments) == [
            *("/bin/tool", "--root", "/s", "run", "--preserve-fds", "1"),
            *("--bundle", "/b", "st-1"),
        ]
        assert argv(oci.RUNC, oci.RUNC.delete_arguments)[3:] == ["delete", "--force", "st-1"]

    def test_runsc(self) -> None:
        """The platform and the network are global; the channel is passed by number."""
        assert argv(oci.RUNSC, oci.RUNSC.run_arguments) == [
            *("/bin/tool", "--root", "/s", "--platform=systrap", "--network=sandbox"),
            *("run", "-pass-fd", "3:3", "-bundle", "/b", "st-1"),
        ]

    def test_runsc_without_root(self) -> None:
        """It needs to be told, and can set no groups."""
        words = argv(oci.RUNSC, oci.RUNSC.run_arguments, is_root=False)
        assert words[5:7] == ["--rootless", "--ignore-cgroups"]

    def test_platforms_are_all_that_differs(self) -> None:
        """Three platforms, one runtime."""
        platforms = [
            flavour.global_arguments[0] for flavour in (oci.RUNSC, oci.RUNSC_PTRACE, oci.RUNSC_KVM)
        ]
        assert platforms == ["--platform=systrap", "--platform=ptrace", "--platform=kvm"]

    @pytest.mark.parametrize(
        ("mode", "is_root", "present", "absent"),
        [
            (NetworkMode.NONE, True, "--unshare-net", "--unshare-user"),
            (NetworkMode.VETH, True, "--unshare-pid", "--unshare-net"),
            (NetworkMode.HOST, False, "--unshare-user", "--unshare-net"),
        ],
    )
    def test_bwrap(self, mode: NetworkMode, *, is_root: bool, present: str, absent: str) -> None:
        """A network of its own only when no other was prepared; a user namespace without root."""
        spec = SandboxSpec(role=("idle",), network=mode)
        words = bwrap.build_argv(Path("/usr/bin/bwrap"), root=ROOT, spec=spec, is_root=is_root)
        assert present in words
        assert absent not in words
        assert words[-4:] == (GUEST_PATH, "--channel-fd", "3", "idle")


@pytest.mark.parametrize(
    ("flavour", "name", "first_word", "group", "expected"),
    [
        (oci.RUNC, "runc", "/usr/sbin/runc", "", "runtime"),
        (oci.RUNC, "runc:[2:INIT]", "runc", "box", "runtime"),
        (oci.RUNC, "seatrial-guest", "/seatrial-guest", "box", "payload"),
        (oci.CRUN, "crun", "/usr/bin/crun", "", "runtime"),
        (oci.RUNSC, "runsc", "/tools/runsc", "", "runtime"),
        (oci.RUNSC, "runsc-2026", "/tools/runsc-2026", "", "runtime"),
        (oci.RUNSC, "exe", "runsc-gofer", "box", "gofer"),
        (oci.RUNSC, "exe", "runsc-sandbox", "box", "sentry"),
        (oci.RUNSC, "exe", "[exe]", "box", "payload"),
    ],
)
def test_roles(flavour: oci.Flavour, name: str, first_word: str, group: str, expected: str) -> None:
    """Roles as seen on real process lists of each runtime; without cgroups there is no group."""
    for place in {group, ""}:
        process = SeenProcess(pid=1, name=name, first_word=first_word, group=place)
        assert oci.role_of(flavour, process, binary="/tools/runsc-2026") == expected


@pytest.mark.parametrize(
    ("text", "marker", "expected"),
    [
        ("runc version 1.1.5+ds1\ncommit: 1.1\nspec: 1.0.2-dev\n", "runc version ", "1.1.5+ds1"),
        ("crun version 1.8.1\ncommit: f8a\n", "crun version ", "1.8.1"),
        ("bubblewrap 0.8.0\n", "bubblewrap ", "0.8.0"),
        ("runsc version go-20260905\nspec: 1.2.1\n", "runsc version ", "go-20260905"),
        ("runsc version release-20240729.0\n", "runsc version ", "release-20240729.0"),
        ("something else\n", "runc version ", None),
        ("runc version", "runc version ", None),
    ],
)
def test_versions(text: str, marker: str, expected: str | None) -> None:
    """What each program printed when it was asked."""
    assert parse_version(text, marker=marker) == expected


def test_runsc_is_looked_for_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the user names, then what set-up fetched, then PATH."""
    monkeypatch.setenv(tools.RUNSC_VARIABLE, "/opt/runsc")
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert tools.runsc_candidates() == (Path("/opt/runsc"), Path("/cache/seatrial/tools/runsc"))


def test_a_missing_program_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hint is a command that a person can type."""
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DriverUnavailable, match="no-such-program is not installed") as caught:
        find_program("no-such-program", package="apt-get install it")
    assert caught.value.hint == "apt-get install it"


def test_a_failed_start_is_told_in_one_line() -> None:
    """Outcome, exit code, error and the runtime's last words, without line breaks."""
    result = StartResult(
        id="st-1",
        outcome=Outcome.EXITED_EARLY,
        due_at_ns=0,
        exit_code=1,
        error="ended before READY",
        stderr_tail="container_linux.go:380:\n  permission denied\n",
    )
    assert describe_failure(result) == (
        "start exited-early (exit code 1): ended before READY: "
        "container_linux.go:380: permission denied"
    )


def test_files_of_a_sandbox_that_cannot_be_made(tmp_path: Path) -> None:
    """The system's refusal names driver and place, has its own code, and says what to do."""
    with (
        pytest.raises(EnvironmentTrouble, match=r"runc: cannot make.*No space left") as caught,
        files_of("runc", tmp_path),
    ):
        raise OSError(28, "No space left on device")
    assert caught.value.code == "sandbox-enospc"
    assert str(tmp_path) in caught.value.message
    assert "XDG_RUNTIME_DIR" in (caught.value.hint or "")
