"""Control groups on made-up machines: detection, names, reading, limits and removal."""

from __future__ import annotations

import errno
import os
import time
from pathlib import Path

import pytest

from seatrial import proc
from seatrial.probes import leaks
from seatrial.probes.cgroup import (
    Cgroup,
    CgroupError,
    CgroupHost,
    CgroupMode,
    Hierarchy,
    Limits,
    parse_hierarchies,
)

HYBRID_MOUNTS = """\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 29 0:26 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
31 29 0:27 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
33 29 0:29 / /sys/fs/cgroup/memory rw,relatime shared:3 - cgroup cgroup rw,memory
34 29 0:30 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
35 29 0:31 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
HYBRID_OWN = "4:memory:/jobs/a\n2:cpuacct:/\n1:cpu:/\n0::/\n"
V2_MOUNTS = "35 29 0:31 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V2_OWN = "0::/user.slice/user-1000.slice/session-3.scope\n"
JOINT_MOUNTS = (
    "30 29 0:26 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
)


def v2_host(root: Path, *, controllers: str = "cpu memory pids") -> CgroupHost:
    """A made-up v2 tree; its files are plain files, so only reading and writing are real."""
    (root / "cgroup.controllers").write_text(controllers)
    (root / "cgroup.subtree_control").write_text("")
    one = Hierarchy(version=2, controllers=frozenset(), mount=root, base=root)
    return CgroupHost((one,))


def v1_host(root: Path, *names: str) -> CgroupHost:
    """A made-up v1 tree with a directory for each controller."""
    for name in names:
        (root / name).mkdir()
    return CgroupHost(
        tuple(
            Hierarchy(version=1, controllers=frozenset({name}), mount=root / name, base=root / name)
            for name in names
        )
    )


def fill(directory: Path, **files: str) -> None:
    """Write control files; "__" in a name stands for "."."""
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)


class TestDetection:
    def test_hybrid_keeps_its_books_on_v1(self) -> None:
        """A v2 mount beside v1 hierarchies is seen, but v1 has the controllers."""
        host = CgroupHost(parse_hierarchies(HYBRID_MOUNTS, HYBRID_OWN, is_root=True))
        assert host.mode is CgroupMode.HYBRID
        assert [next(iter(one.controllers)) for one in host.joined] == ["cpu", "cpuacct", "memory"]
        assert host.v2 is not None
        assert host.v2.mount == Path("/sys/fs/cgroup/unified")

    def test_root_works_at_the_top(self) -> None:
        """Root's groups stand at the top, so that names do not depend on where it was started."""
        hierarchies = parse_hierarchies(HYBRID_MOUNTS, HYBRID_OWN, is_root=True)
        assert all(one.base == one.mount for one in hierarchies)

    def test_a_user_works_below_the_own_group(self) -> None:
        """Only the own group can have been delegated."""
        (only,) = parse_hierarchies(V2_MOUNTS, V2_OWN, is_root=False)
        assert only.base == Path("/sys/fs/cgroup/user.slice/user-1000.slice/session-3.scope")
        assert CgroupHost((only,)).mode is CgroupMode.V2

    def test_controllers_mounted_together(self) -> None:
        """One v1 hierarchy may carry several controllers."""
        (only,) = parse_hierarchies(JOINT_MOUNTS, "1:cpu,cpuacct:/\n", is_root=True)
        assert only.controllers == {"cpu", "cpuacct"}

    def test_a_named_hierarchy_is_not_joined(self) -> None:
        """The hierarchy of systemd has no controller; processes stay where systemd put them."""
        host = CgroupHost(parse_hierarchies(HYBRID_MOUNTS, HYBRID_OWN, is_root=True))
        assert all("name=systemd" not in one.controllers for one in host.joined)

    def test_a_machine_without_cgroups(self, tmp_path: Path) -> None:
        """No /proc files: no cgroups, said in words."""
        host = CgroupHost.detect(proc=tmp_path)
        assert host.mode is CgroupMode.NONE
        assert host.problems() == ("no cgroup hierarchy is mounted",)
        with pytest.raises(CgroupError, match="no cgroup hierarchy"):
            host.create("run/1")

    def test_missing_controllers_are_named(self, tmp_path: Path) -> None:
        """A hybrid machine's v2 part alone books CPU time but no memory."""
        host = v2_host(tmp_path, controllers="hugetlb")
        assert host.problems() == ("controllers not available: cpu, memory",)
        assert host.is_writable

    def test_what_can_be_handed_down_is_no_problem(self, tmp_path: Path) -> None:
        """A controller that is on, or goes on when asked, is there."""
        host = v2_host(tmp_path)
        fill(tmp_path, cgroup__subtree_control="cpu")
        assert host.problems() == ()

    def test_a_busy_root_hands_no_controller_down(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A v2 group that holds processes itself lists controllers and yet hands none down."""
        host = v2_host(tmp_path)
        fill(tmp_path, cgroup__subtree_control="pids")
        write_text = Path.write_text

        def refuse(path: Path, text: str) -> int:
            if path.name == "cgroup.subtree_control":
                raise OSError(errno.EBUSY, "Device or resource busy")
            return write_text(path, text)

        monkeypatch.setattr(Path, "write_text", refuse)
        (problem,) = host.problems()
        assert "cpu, memory" in problem
        assert str(tmp_path) in problem
        assert "Device or resource busy" in problem
        assert "holds processes itself" in problem


class TestNames:
    @pytest.mark.parametrize("path", ["..", "run/..", "../..", "/", "run//1", ".", "run/."])
    def test_a_name_never_leads_out(self, tmp_path: Path, path: str) -> None:
        """A group is killed and removed by its name, so it must be ours."""
        host = v2_host(tmp_path)
        with pytest.raises(ValueError, match="no group below"):
            host.group(path)
        with pytest.raises(ValueError, match="no group below"):
            host.create(path)
        assert not (tmp_path / "seatrial").exists()

    def test_all_runs_are_never_killed_at_once(self, tmp_path: Path) -> None:
        """The top group holds live runs of other processes."""
        with pytest.raises(ValueError, match="every run"):
            v2_host(tmp_path).group("").kill()


class TestKill:
    def test_a_number_that_left_the_group_is_not_killed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Between the look and the signal a number may pass to somebody else's process."""
        group = v2_host(tmp_path).create("run/0001")
        with proc.spawn(["sleep", "60"]) as stranger:
            looks = iter([{stranger.pid: ""}])
            monkeypatch.setattr(Cgroup, "members", lambda _: next(looks, {}))
            assert group.kill() == ()
            assert leaks.is_alive(stranger.pid)
            stranger.kill()

    def test_members_are_killed(self, tmp_path: Path) -> None:
        """A process that is still a member goes; one that stays listed is given back."""
        group = v2_host(tmp_path).create("run/0001")
        with proc.spawn(["sleep", "60"]) as member:
            fill(tmp_path / "seatrial/run/0001/runtime", cgroup__procs=f"{member.pid}\n")
            assert group.kill(timeout_ns=1_000_000) == (member.pid,)
            assert leaks.wait_process_end(
                member.pid, deadline_ns=time.monotonic_ns() + 10_000_000_000
            )

    def test_members_of_other_pid_namespaces_have_no_number(self, tmp_path: Path) -> None:
        """The kernel lists them as 0, which as a target would mean our own process group."""
        group = v2_host(tmp_path).create("run/0001")
        fill(tmp_path / "seatrial/run/0001/runtime", cgroup__procs="0\n11\n")
        assert group.members() == {11: ""}


class TestRemains:
    def test_a_process_in_any_hierarchy_remains(self, tmp_path: Path) -> None:
        """One that left the memory hierarchy is seen in another."""
        group = v1_host(tmp_path, "memory", "cpuacct").create("run/0001")
        assert not group.has_remains()
        fill(tmp_path / "cpuacct/seatrial/run/0001", cgroup__procs="7\n")
        assert group.has_remains()


class TestV2:
    def test_create_hands_controllers_down_and_joins_a_leaf(self, tmp_path: Path) -> None:
        """A group with controllers for its children may hold no process, so a leaf is joined."""
        group = v2_host(tmp_path).create("run/0001")
        outer = tmp_path / "seatrial/run/0001"
        assert group.join_files == (outer / "runtime/cgroup.procs",)
        assert (outer / "runtime").is_dir()
        assert group.box_path == "/seatrial/run/0001/box"
        # The made-up file keeps the last word written to it.
        assert (tmp_path / "cgroup.subtree_control").read_text() == "+pids"

    def test_box_path_of_a_delegated_user_is_absolute(self, tmp_path: Path) -> None:
        """A runtime reads ``cgroupsPath`` from the hierarchy's top."""
        base = tmp_path / "user.slice/me"
        base.mkdir(parents=True)
        one = Hierarchy(version=2, controllers=frozenset(), mount=tmp_path, base=base)
        assert CgroupHost((one,)).group("r/1").box_path == "/user.slice/me/seatrial/r/1/box"

    def test_limits(self, tmp_path: Path) -> None:
        """Memory and CPU limits go to the outer group."""
        outer = tmp_path / "seatrial/run/0001"
        outer.mkdir(parents=True)
        fill(outer, memory__max="max", cpu__max="max 100000")
        limits = Limits(memory_bytes=1 << 20, cpu_count=1.5)
        group = v2_host(tmp_path).create("run/0001", limits=limits)
        assert (outer / "memory.max").read_text() == "1048576"
        assert (outer / "cpu.max").read_text() == "150000 100000"
        assert group.memory_limit_bytes() == 1 << 20

    def test_a_limit_without_its_controller_is_an_error(self, tmp_path: Path) -> None:
        """A limit that cannot be set must not be forgotten; nothing is left behind."""
        host = v2_host(tmp_path, controllers="")
        with pytest.raises(CgroupError, match=r"memory\.max"):
            host.create("run/0001", limits=Limits(memory_bytes=1))
        assert not (tmp_path / "seatrial/run/0001").exists()

    def test_reading(self, tmp_path: Path) -> None:
        """CPU in ns, memory in bytes, the kernel's share summed where it is not given."""
        host = v2_host(tmp_path)
        group = host.create("run/0001")
        outer = tmp_path / "seatrial/run/0001"
        fill(
            outer,
            cpu__stat="usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 0\n",
            memory__current="4096\n",
            memory__peak="8192\n",
            memory__stat="anon 100\nfile 200\nshmem 50\nslab 30\npagetables 4\n",
        )
        cpu = group.read_cpu()
        memory = group.read_memory()
        assert cpu is not None
        assert (cpu.total_ns, cpu.user_ns, cpu.system_ns) == (1_500_000, 1_000_000, 500_000)
        assert memory is not None
        assert (memory.usage_bytes, memory.peak_bytes, memory.kernel_bytes) == (4096, 8192, 34)
        assert (memory.anon_bytes, memory.file_bytes, memory.shmem_bytes) == (100, 200, 50)

    def test_unlimited_is_no_limit(self, tmp_path: Path) -> None:
        """The word "max" is no number."""
        group = v2_host(tmp_path).create("run/0001")
        fill(tmp_path / "seatrial/run/0001", memory__max="max\n")
        assert group.memory_limit_bytes() is None

    def test_a_vanished_group_reads_as_unknown(self, tmp_path: Path) -> None:
        """Unknown is None, never zero."""
        group = v2_host(tmp_path).group("run/none")
        assert group.read_cpu() is None
        assert group.read_memory() is None
        assert group.members() == {}
        assert group.remove() == ()

    def test_members_know_their_group(self, tmp_path: Path) -> None:
        """The leaf counts as the outer group; a runtime's box is named."""
        group = v2_host(tmp_path).create("run/0001")
        outer = tmp_path / "seatrial/run/0001"
        (outer / "box/deep").mkdir(parents=True)
        fill(outer / "runtime", cgroup__procs="10\n11\n")
        fill(outer / "box", cgroup__procs="12\n")
        fill(outer / "box/deep", cgroup__procs="13\n")
        assert group.members() == {10: "", 11: "", 12: "box", 13: "box/deep"}
        assert group.box_directories() == (outer / "box",)


class TestV1:
    def test_create_joins_what_matters_and_makes_the_rest(self, tmp_path: Path) -> None:
        """A runtime finds the outer group everywhere and only has to make its own."""
        host = v1_host(tmp_path, "memory", "cpuacct", "devices")
        group = host.create("run/0001")
        assert [path.parent for path in group.join_files] == [
            tmp_path / "memory/seatrial/run/0001",
            tmp_path / "cpuacct/seatrial/run/0001",
        ]
        assert (tmp_path / "devices/seatrial/run/0001").is_dir()
        assert len(group.directories()) == 3

    def test_remove_takes_nested_groups_everywhere(self, tmp_path: Path) -> None:
        """What a killed runtime left below goes too, in hierarchies that we never joined."""
        host = v1_host(tmp_path, "memory", "devices")
        group = host.create("run/0001")
        (tmp_path / "devices/seatrial/run/0001/box/deep").mkdir(parents=True)
        assert group.remove() == ()
        assert group.directories() == ()
        assert (tmp_path / "memory/seatrial/run").is_dir()

    def test_remove_names_what_stayed(self, tmp_path: Path) -> None:
        """A directory that the kernel keeps is reported, not waited for without end."""
        host = v1_host(tmp_path, "memory")
        group = host.create("run/0001")
        stuck = tmp_path / "memory/seatrial/run/0001"
        (stuck / "file").write_text("in the way")
        assert group.remove(timeout_ns=1) == (stuck,)

    def test_reading(self, tmp_path: Path) -> None:
        """Hierarchical lines, exact total, split in ticks."""
        host = v1_host(tmp_path, "memory", "cpuacct")
        group = host.create("run/0001")
        fill(
            tmp_path / "cpuacct/seatrial/run/0001",
            cpuacct__usage="123456789\n",
            cpuacct__stat="user 3\nsystem 2\n",
        )
        fill(
            tmp_path / "memory/seatrial/run/0001",
            memory__usage_in_bytes="5000",
            memory__max_usage_in_bytes="6000",
            memory__stat="rss 1\ntotal_rss 100\ntotal_cache 200\ntotal_shmem 20\n",
        )
        tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        cpu = group.read_cpu()
        memory = group.read_memory()
        assert cpu is not None
        assert (cpu.total_ns, cpu.user_ns, cpu.system_ns) == (123456789, 3 * tick_ns, 2 * tick_ns)
        assert memory is not None
        assert (memory.usage_bytes, memory.anon_bytes, memory.kernel_bytes) == (5000, 100, None)

    def test_the_tighter_limit_counts(self, tmp_path: Path) -> None:
        """A runtime sets its limit on its own box; v1 says "unlimited" by a huge number."""
        host = v1_host(tmp_path, "memory")
        group = host.create("run/0001")
        outer = tmp_path / "memory/seatrial/run/0001"
        (outer / "box").mkdir()
        fill(outer, memory__limit_in_bytes="9223372036854771712\n")
        assert group.memory_limit_bytes() is None
        fill(outer / "box", memory__limit_in_bytes="1048576\n")
        assert group.memory_limit_bytes() == 1048576

    def test_a_refused_hierarchy_undoes_the_others(self, tmp_path: Path) -> None:
        """A group is made in all hierarchies that matter or in none."""
        host = v1_host(tmp_path, "memory", "cpuacct")
        (tmp_path / "cpuacct/seatrial").write_text("a file where a directory should be")
        with pytest.raises(CgroupError, match="cpuacct"):
            host.create("run/0001")
        assert not (tmp_path / "memory/seatrial/run/0001").exists()

    def test_members_are_the_union(self, tmp_path: Path) -> None:
        """A process that left one hierarchy is found in another; the nested name wins."""
        host = v1_host(tmp_path, "memory", "cpuacct")
        group: Cgroup = host.create("run/0001")
        (tmp_path / "cpuacct/seatrial/run/0001/box").mkdir()
        fill(tmp_path / "memory/seatrial/run/0001", cgroup__procs="7\n8\n")
        fill(tmp_path / "cpuacct/seatrial/run/0001/box", cgroup__procs="8\n")
        assert group.members() == {7: "", 8: "box"}
