"""The doctor's checks that read the kernel's files, on machines that are made up."""

from __future__ import annotations

import gzip
import resource
from typing import TYPE_CHECKING

import pytest

from seatrial.doctor import cgroups, clocks, host, kernel, kvm, limits, networks
from seatrial.doctor.check import Check, Level
from seatrial.doctor.tree import Tree, chosen
from seatrial.probes.cgroup import CgroupHost

if TYPE_CHECKING:
    from pathlib import Path

MEMINFO = "MemTotal:       16000000 kB\nMemAvailable:   {available} kB\nSwapTotal: {swap} kB\n"
QUIET = "some avg10=0.10 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 total=1\n"
LOUD = QUIET.replace("avg10=0.10", "avg10=45.50")
MINIMAL = {
    "proc/meminfo": MEMINFO.format(available=8000000, swap=0),
    "proc/cpuinfo": "processor : 0\nmodel name : Model X\nflags : fpu vmx\n",
    "proc/pressure/cpu": QUIET,
    "proc/pressure/memory": QUIET,
    "proc/pressure/io": QUIET,
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/devices/system/cpu/smt/active": "0\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "performance\n",
    "sys/kernel/mm/transparent_hugepage/enabled": "always [madvise] never\n",
    "sys/kernel/mm/ksm/run": "0\n",
}


def made_up(root: Path, **changes: str) -> Tree:
    """A machine with these files; a change names a file with two underscores for each slash."""
    files = {**MINIMAL, **{name.replace("__", "/"): text for name, text in changes.items()}}
    for name, text in files.items():
        place = root / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    return Tree(root)


def by_name(checks: list[Check]) -> dict[str, Check]:
    """Checks by their names, each of which is there once."""
    found = {check.name: check for check in checks}
    assert len(found) == len(checks)
    return found


def test_a_quiet_machine_has_nothing_to_be_mended(tmp_path: Path) -> None:
    """No check cries wolf."""
    checks = list(host.check_host(made_up(tmp_path), usable_count=4))
    assert {check.level for check in checks} == {Level.OK}, checks


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("cpu pressure", {"proc__pressure__cpu": LOUD}),
        ("memory pressure", {"proc__pressure__memory": LOUD}),
        ("io pressure", {"proc__pressure__io": LOUD}),
        ("swap", {"proc__meminfo": MEMINFO.format(available=8000000, swap=1024)}),
        ("memory", {"proc__meminfo": MEMINFO.format(available=500000, swap=0)}),
        ("transparent huge pages", {"sys__kernel__mm__transparent_hugepage__enabled": "[always]"}),
        ("page merging (KSM)", {"sys__kernel__mm__ksm__run": "1"}),
        ("hardware threads", {"sys__devices__system__cpu__smt__active": "1"}),
        (
            "frequency governor",
            {"sys__devices__system__cpu__cpu1__cpufreq__scaling_governor": "powersave"},
        ),
        ("turbo", {"sys__devices__system__cpu__intel_pstate__no_turbo": "0"}),
        ("turbo", {"sys__devices__system__cpu__cpufreq__boost": "1"}),
        ("access monitor (DAMON)", {"proc__76__comm": "kdamond.0"}),
    ],
)
def test_each_trouble_of_the_host_is_a_warning(
    tmp_path: Path, name: str, changes: dict[str, str]
) -> None:
    """One change, one warning, with what follows and what to do."""
    checks = by_name(list(host.check_host(made_up(tmp_path, **changes), usable_count=4)))
    bad = {one.name: one for one in checks.values() if one.level is not Level.OK}
    assert list(bad) == [name]
    assert bad[name].level is Level.WARN
    assert bad[name].consequence
    assert bad[name].fix


def test_too_little_memory_is_worse_than_a_warning(tmp_path: Path) -> None:
    """With 100 MiB nothing can be measured."""
    tree = made_up(tmp_path, proc__meminfo=MEMINFO.format(available=102400, swap=0))
    checks = by_name(list(host.check_host(tree, usable_count=4)))
    assert checks["memory"].level is Level.BROKEN
    assert checks["memory"].values["available_bytes"] == 102400 * 1024


def test_a_kernel_without_pressure_says_so(tmp_path: Path) -> None:
    """Missing is not quiet."""
    tree = made_up(tmp_path)
    (tmp_path / "proc/pressure/cpu").unlink()
    checks = by_name(list(host.check_host(tree, usable_count=4)))
    assert checks["pressure"].level is Level.MISSING
    assert "CONFIG_PSI" in checks["pressure"].fix


@pytest.mark.parametrize(("usable", "level"), [(4, Level.OK), (2, Level.WARN)])
def test_processors_kept_from_us_are_told(tmp_path: Path, usable: int, level: Level) -> None:
    """A cpuset makes others on the rest look like noise."""
    checks = by_name(list(host.check_host(made_up(tmp_path), usable_count=usable)))
    assert checks["processors"].level is level
    assert checks["processors"].values == {"online_count": 4, "usable_count": usable}


@pytest.mark.parametrize(
    ("text", "count"), [("0", 1), ("0-3", 4), ("0-1,4,6-7", 5), ("", 0), ("none", 0)]
)
def test_lists_of_the_kernel_are_counted(text: str, count: int) -> None:
    """Documentation/admin-guide/cputopology.rst."""
    assert host.count_listed(text) == count


def test_a_tree_never_guesses(tmp_path: Path) -> None:
    """What is not there is None, and not zero."""
    tree = Tree(tmp_path)
    (tmp_path / "words").write_text("always [madvise] never\n")
    assert tree.text("absent") is None
    assert tree.number("absent") is None
    assert tree.number("words") is None
    assert tree.names("absent") == ()
    assert chosen(tree.text("words")) == "madvise"


# --- clocks, limits, kernel ----------------------------------------------------------------------


def test_the_interface_that_leads_out_is_read_from_the_routes() -> None:
    """proc(5): destination and mask of all zeroes."""
    head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\n"
    inner = "eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\n"
    outer = "eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\n"
    assert clocks.default_interface(head + inner + outer) == "eth0"
    assert clocks.default_interface(head + inner) is None


@pytest.mark.parametrize(("source", "level"), [("tsc", Level.OK), ("hpet", Level.WARN)])
def test_a_clock_that_enters_the_kernel_is_a_warning(
    tmp_path: Path, source: str, level: Level
) -> None:
    """Reading the HPET takes a microsecond or more."""
    folder = "sys__devices__system__clocksource__clocksource0"
    tree = made_up(tmp_path, **{f"{folder}__current_clocksource": source})
    assert by_name(list(clocks.check_clocks(tree)))["clock source"].level is level


@pytest.mark.parametrize(("slack", "level"), [("50000", Level.OK), ("5000000", Level.WARN)])
def test_slack_over_the_default_is_a_warning(tmp_path: Path, slack: str, level: Level) -> None:
    """Background services inherit some."""
    tree = made_up(tmp_path, proc__self__timerslack_ns=slack)
    assert by_name(list(clocks.check_clocks(tree)))["timer slack"].level is level


def test_an_unknown_interface_is_an_error_of_the_kernel() -> None:
    """The question is really asked."""
    with pytest.raises(OSError, match="No such device"):
        clocks.stamping_flags("nosuch0")
    assert clocks.stamping_flags("lo") & 0b1010, "loopback stamps in software"


@pytest.mark.parametrize(
    ("bits", "lacking"),
    [
        (0x1FFFFFFFFFF, None),
        (0x1FFFFFFFFFF & ~(1 << 24), ["CAP_SYS_RESOURCE"]),
        (0, list(limits.CAPABILITIES)),
    ],
)
def test_capabilities_that_lack_are_named(
    tmp_path: Path, bits: int, lacking: list[str] | None
) -> None:
    """CAP_SYS_RESOURCE is what machines in containers lack most often."""
    tree = made_up(tmp_path, proc__self__status=f"Name: x\nCapEff:\t{bits:016x}\n")
    check = by_name(list(limits.check_limits(tree)))["capabilities"]
    assert check.values.get("lacking") == lacking
    assert check.level is (Level.OK if lacking is None else Level.WARN)


def test_a_hard_limit_is_judged_and_not_the_soft_one() -> None:
    """Seatrial raises its own soft limit."""
    judged = limits.judge_limit("x", (64, 8192), at_least=4096, flag="-Hn", so="y")
    assert judged.level is Level.OK
    low = limits.judge_limit("x", (64, 1024), at_least=4096, flag="-Hn", so="y")
    assert (low.level, "ulimit -Hn" in low.fix) == (Level.WARN, True)
    endless = (64, resource.RLIM_INFINITY)
    assert limits.judge_limit("x", endless, at_least=4096, flag="-Hn", so="y").level is Level.OK


@pytest.mark.parametrize(
    ("changes", "name", "fix"),
    [
        ({"proc__sys__kernel__pid_max": "4096"}, "process ids", "kernel.pid_max=32768"),
        (
            {"proc__sys__fs__inotify__max_user_instances": "16"},
            "inotify instances of a user",
            "fs.inotify.max_user_instances=128",
        ),
        (
            {"proc__sys__user__max_user_namespaces": "0"},
            "user namespaces allowed",
            "user.max_user_namespaces=10000",
        ),
        (
            {"proc__sys__kernel__apparmor_restrict_unprivileged_userns": "1"},
            "user namespaces allowed",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        ({"proc__sys__kernel__yama__ptrace_scope": "3"}, "tracing", "kernel.yama.ptrace_scope=1"),
    ],
)
def test_settings_that_are_too_low_come_with_the_command(
    tmp_path: Path, changes: dict[str, str], name: str, fix: str
) -> None:
    """The fix can be typed as it stands."""
    check = by_name(list(limits.check_limits(made_up(tmp_path, **changes))))[name]
    assert check.level is Level.WARN
    assert fix in check.fix


def test_kernel_options_are_read_packed_and_plain(tmp_path: Path) -> None:
    """/proc/config.gz wins over /boot; a module counts, a commented line does not."""
    text = "CONFIG_VETH=m\nCONFIG_NAMESPACES=y\n# CONFIG_TUN is not set\n"
    boot = tmp_path / "boot/config-6.1-x"
    boot.parent.mkdir()
    boot.write_text("CONFIG_NAMESPACES=y\n")
    tree = Tree(tmp_path)
    plain = by_name(list(kernel.check_kernel(tree, release="6.1-x")))
    assert plain["configuration"].evidence == "/boot/config-6.1-x, kernel 6.1-x"
    assert plain["VETH"].level is Level.MISSING
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/config.gz").write_bytes(gzip.compress(text.encode()))
    packed = by_name(list(kernel.check_kernel(tree, release="6.1-x")))
    assert packed["VETH"].level is Level.OK
    assert "module" in packed["VETH"].evidence
    assert packed["TUN"].level is Level.MISSING
    assert packed["TUN"].fix == "boot a kernel with CONFIG_TUN"
    assert packed["VHOST_NET"].level is Level.WARN, "some runtimes want it, none needs it"


def test_one_of_several_options_is_enough() -> None:
    """KVM_PVM serves as well as KVM_INTEL."""
    option = next(one for one in kernel.OPTIONS if "KVM_PVM" in one.name)
    assert kernel.judge(option, {"KVM_PVM": "y"}).name == "KVM_PVM"
    none = kernel.judge(option, {})
    assert none.fix == "boot a kernel with " + " or ".join(
        f"CONFIG_{name}" for name in option.name.split("|")
    )


def test_a_kernel_without_its_configuration_is_not_judged(tmp_path: Path) -> None:
    """Nothing is said of options that nobody knows."""
    (check,) = kernel.check_kernel(Tree(tmp_path), release="1.0")
    assert check.level is Level.UNTRIED
    damaged = tmp_path / "proc/config.gz"
    damaged.parent.mkdir()
    damaged.write_bytes(b"no gzip")
    (check,) = kernel.check_kernel(Tree(tmp_path), release="1.0")
    assert check.level is Level.UNTRIED


# --- control groups, networks, virtualisation ----------------------------------------------------


def mount_line(point: Path, kind: str, options: str = "rw") -> str:
    """One line of mountinfo."""
    return f"30 20 0:26 / {point} rw,relatime - {kind} none {options}\n"


def cgroup_tree(root: Path, *, v1: bool, v2: bool, attached: str = "") -> Tree:
    """A machine with these hierarchies mounted."""
    lines = ""
    if v1:
        for name in ("memory", "cpu", "cpuacct"):
            place = root / "cg" / name
            place.mkdir(parents=True)
            lines += mount_line(place, "cgroup", f"rw,{name}")
    if v2:
        place = root / "cg/unified"
        place.mkdir(parents=True)
        (place / "cgroup.controllers").write_text(attached)
        (place / "cgroup.subtree_control").write_text(attached)
        (place / "cgroup.stat").write_text("nr_descendants 4\nnr_dying_descendants 1500\n")
        lines += mount_line(place, "cgroup2")
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/mountinfo").write_text(lines)
    (root / "proc/self/cgroup").write_text("0::/\n")
    (root / "proc/cgroups").write_text("#subsys hierarchy num enabled\nmemory 4 2918 1\n")
    return Tree(root)


def test_a_hybrid_machine_says_what_is_attached_where(tmp_path: Path) -> None:
    """The v2 controller that makes old crun refuse is named; dying groups are counted."""
    tree = cgroup_tree(tmp_path, v1=True, v2=True, attached="hugetlb")
    checks = by_name(list(cgroups.check_cgroups(tree)))
    assert checks["mode"].level is Level.WARN
    assert checks["mode"].evidence.startswith("hybrid")
    assert "hugetlb" in checks["controllers of v2"].evidence
    assert "crun" in checks["controllers of v2"].consequence
    dying = checks["groups that never went away"]
    assert (dying.level, dying.values) == (Level.WARN, {"dying_count": 2918 - 1})


def test_v2_counts_its_own_dying_groups(tmp_path: Path) -> None:
    """cgroup.stat says it."""
    tree = cgroup_tree(tmp_path, v1=False, v2=True, attached="cpu memory pids")
    checks = by_name(list(cgroups.check_cgroups(tree)))
    assert checks["mode"].level is Level.OK
    assert checks["groups that never went away"].values == {"dying_count": 1500}


def test_a_machine_without_groups_says_how_to_get_them(tmp_path: Path) -> None:
    """Nothing crashes on the way."""
    checks = by_name(list(cgroups.check_cgroups(cgroup_tree(tmp_path, v1=False, v2=False))))
    assert checks["mode"].level is Level.MISSING
    assert checks["groups of our own"].level is Level.WARN


def test_groups_that_may_not_be_made_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A refusal of the kernel is told with its reason."""

    def refuse(_: CgroupHost, path: str) -> None:
        raise OSError(28, "No space left on device", path)

    monkeypatch.setattr(CgroupHost, "create", refuse)
    tree = cgroup_tree(tmp_path, v1=True, v2=False)
    check = by_name(list(cgroups.check_cgroups(tree)))["groups of our own"]
    assert check.level is Level.BROKEN
    assert "No space left" in check.evidence


@pytest.mark.parametrize(
    ("found", "levels"),
    [
        ({"veth": "", "bridge": "", "tap": ""}, [Level.OK, Level.OK, Level.OK]),
        ({"veth": "no", "bridge": "no", "tap": "no"}, [Level.BROKEN, Level.WARN, Level.WARN]),
    ],
)
def test_interfaces_are_judged_by_what_needs_them(
    found: dict[str, str], levels: list[Level]
) -> None:
    """Only the veth is what our own benches need."""
    assert [check.level for check in networks.judge_links(found)] == levels


@pytest.mark.parametrize(
    ("used", "limit", "level"), [(10, 262144, Level.OK), (250000, 262144, Level.WARN)]
)
def test_a_table_of_connections_that_is_nearly_full_is_a_warning(
    tmp_path: Path, used: int, limit: int, level: Level
) -> None:
    """What counts is the room that is left."""
    tree = made_up(
        tmp_path,
        proc__sys__net__netfilter__nf_conntrack_max=str(limit),
        proc__sys__net__netfilter__nf_conntrack_count=str(used),
    )
    assert networks._conntrack(tree).level is level


@pytest.mark.parametrize(
    ("flags", "modules", "level", "word"),
    [
        ("fpu vmx", ["kvm_intel"], Level.OK, "vmx"),
        ("fpu svm", ["kvm_amd"], Level.OK, "svm"),
        ("fpu", ["kvm_pvm"], Level.WARN, "kvm_pvm"),
        ("fpu", [], Level.WARN, "neither"),
    ],
)
def test_the_processor_is_judged_by_its_flags(
    tmp_path: Path, flags: str, modules: list[str], level: Level, word: str
) -> None:
    """Evidence only; the proof is a guest that boots."""
    tree = made_up(tmp_path, proc__cpuinfo=f"processor : 0\nflags : {flags}\n")
    for name in modules:
        (tmp_path / "sys/module" / name).mkdir(parents=True)
    hardware = kvm.read_hardware(tree)
    assert hardware.modules == tuple(modules)
    check = kvm.judge_processor(hardware, machine="x86_64")
    assert (check.level, word in check.evidence) == (level, True)
    assert kvm.judge_device(tree, hardware).level is Level.MISSING
