"""Style as a test: what reviewers would otherwise have to say again and again.

CONTRIBUTING.md gives the reason for each rule. What ruff, mypy, clippy and import-linter can check
is checked there. Exceptions are listed here by name with their reason, and the lists may only
shrink: an entry that is no longer needed fails too.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib

import pytest

import seatrial
from seatrial import errors
from seatrial.model.finding import FINDING_CODES
from tests.support.source import (
    ROOT,
    calls_of,
    files,
    files_with,
    functions,
    lines_of_one_concern,
    names_of,
    rust_functions,
    text_of,
)

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
POSITIONAL_MAX = 5

#: Functions over the limit: length that must not grow, reason.
LONG_FUNCTIONS: dict[str, tuple[int, str]] = {}
#: Files over the limit: length that must not grow, reason.
LONG_FILES: dict[str, tuple[int, str]] = {}

#: Calls that only the named files may make, and why.
BANNED_CALLS = {
    "print": (("python/seatrial/cli/output.py", "scripts/", "benchmarks/"), "one place talks"),
    "os.system": ((), "no shell: arguments are lists"),
    "os.popen": ((), "no shell: arguments are lists"),
    "os.fork": ((), "a threaded process must not fork"),
    "os._exit": ((), "nothing may skip clean-up"),
    "sys.exit": (
        ("python/seatrial/cli/main.py", "python/seatrial/__main__.py", "scripts/", "benchmarks/"),
        "library code raises",
    ),
}

#: Files that may sleep, because nothing tells when the thing they wait for happens.
SLEEPERS = {
    "python/seatrial/benches/density.py": "readings lie apart; an idle stretch is timed",
    "python/seatrial/benches/settling.py": "memory settles without a sign",
    "python/seatrial/benches/start.py": "an empty stretch is timed: what goes on by itself",
    "python/seatrial/doctor/gallery.py": "an idle stretch is timed",
    "python/seatrial/doctor/noise.py": "CPU use needs two readings; sleepers are timed",
    "python/seatrial/drivers/cri/calls.py": "that a shim has let go is told to nobody",
    "python/seatrial/drivers/cri/containerd.py": "that its CRI has come up is told to nobody",
    "python/seatrial/drivers/session.py": "that a runtime's state is gone has no event",
    "python/seatrial/probes/cgroup.py": "that a group is empty has no event on cgroup v1",
    "python/seatrial/probes/cgroup_hold.py": "that a lock is let go has no event",
    "python/seatrial/probes/killing.py": "a table forgets an ended process without a sign",
    "python/seatrial/probes/noise.py": "the quiet gate looks at slices of time",
    "tests/fault/test_daemon_storms.py": "a neighbour's shim clears away in its own time",
    "tests/integration/conformance/test_cycles.py": "a daemon clears away in its own time",
}

#: Unit endings that we do not use inside the program, and the one that we do.
BANNED_UNITS = {
    r"(ms|msec|millis|us|usec|micros|sec|secs|seconds)": "ns",
    r"(kb|kib|mb|mib|gb|gib)": "bytes",
    r"(percent|pct|percentage)": "ratio",
    r"(qps|tps)": "rps",
}
#: Names that others chose.
FOREIGN_NAMES = {
    "tv_sec": "a field of the kernel's timespec",
    "CPU_PERIOD_US": "the kernel's cpu.cfs_period_us is in microseconds",
    "cpu_period_us": "the field of CRI is in microseconds",
    "cpu_quota_us": "the field of CRI is in microseconds",
    "quota_us": "the kernel's cpu.cfs_quota_us is in microseconds",
}
#: Files that convert units for a person or for a foreign interface.
UNIT_CONVERTERS: dict[str, str] = {
    "python/seatrial/units.py": "the one place that scales a unit",
}

#: Files that hold raw system calls.
UNSAFE_FILES = {
    "crates/seatrial-core/src/launch/sys.rs": "clone with a shared address space, and what follows",
    "crates/seatrial-core/src/launch/sys/program.rs": "a child between clone and execve",
    "crates/seatrial-core/src/launch/sys/signal.rs": "signal masks and signalfd",
    "crates/seatrial-core/src/launch/sys/spawn.rs": "clone, and the stack and descriptor it needs",
    "crates/seatrial-core/src/launch/sys/step.rs": "mount_setattr",
    "crates/seatrial-core/src/launch/sys/wait.rs": "wait4 with rusage, waitid that looks only",
    "crates/seatrial-core/src/sys.rs": "what rustix does not offer",
    "crates/seatrial-core/src/sys/device.rs": "the list of addresses, stamps by a device",
    "crates/seatrial-core/src/sys/message.rs": "time stamps of packets, datagrams in batches",
    "crates/seatrial-guest/src/entry.rs": "the first instruction is ours",
    "crates/seatrial-guest/src/sys.rs": "the system calls that a probe is about",
}

#: A silenced check without its reason.
BARE_NOQA = re.compile(r"#\s*noqa(?!: [A-Z]+\d+(, ?[A-Z]+\d+)* - \S)")
BARE_IGNORE = re.compile(r"#\s*type:\s*ignore(?!\[[\w-]+(, ?[\w-]+)*\]\s*(#|-)\s*\S)")
#: Words that would be found here too, hence in pieces.
UNFINISHED = ("TO", "DO"), ("FIX", "ME"), ("X", "XX"), ("todo", "!"), ("unimplemented", "!")
ONE_MACHINE = (
    ("/ro", "ot/"), ("/ho", r"me/\w"), ("py", r"pi\.org"), ("python", "hosted"),
    ("proxy\\.go", "lang"), ("deb", r"ian\.org"), ("npm", "js"), ("static.cra", "tes"),
)  # fmt: skip
#: Libraries that only the command which needs them may load.
HEAVY = (
    "altair", "jinja2", "numpy", "polars", "pydantic", "pyroute2", "rich", "scipy",
)  # fmt: skip

SOURCES = files_with(".py", ".rs")


def test_functions_are_short() -> None:
    """No function has more lines than one reads at a glance, except those listed, which shrink."""
    found = {item.key: item.lines_count for item in functions()}
    long = {key: size for key, size in found.items() if size > FUNCTION_LINES_MAX}
    check_ratchet(long, LONG_FUNCTIONS, limit=FUNCTION_LINES_MAX)


def test_files_are_short() -> None:
    """No file has more lines than one concern needs, except those listed, which shrink."""
    sizes = {path: lines_of_one_concern(path) for path in SOURCES}
    long = {path: size for path, size in sizes.items() if size > FILE_LINES_MAX}
    check_ratchet(long, LONG_FILES, limit=FILE_LINES_MAX)


def check_ratchet(found: dict[str, int], listed: dict[str, tuple[int, str]], *, limit: int) -> None:
    """Compares what is over a limit with the list of what may be."""
    grown = {
        key: size for key, size in found.items() if size > listed.get(key, (limit, "not listed"))[0]
    }
    assert not grown, f"over the limit of {limit} lines, or grown: {grown}"
    stale = {
        key: (size, found.get(key)) for key, (size, _) in listed.items() if found.get(key, 0) < size
    }
    assert not stale, f"shrunk (listed, now): lower the list, or drop the entry: {stale}"


def test_few_positional_arguments() -> None:
    """Past a handful, arguments are named at the call."""
    many = [item for item in functions() if item.positional_count > POSITIONAL_MAX]
    assert not [f"{item.key}: {item.positional_count}" for item in many]


@pytest.mark.parametrize("call", sorted(BANNED_CALLS))
def test_banned_calls(call: str) -> None:
    """Some calls belong in one place only."""
    allowed, reason = BANNED_CALLS[call]
    offenders = [
        f"{path}:{line}"
        for path in files_with(".py")
        if not path.startswith(("tests/", *allowed))
        for name, line in calls_of(path)
        if name == call
    ]
    assert not offenders, f"{call}: {reason}"


def test_nobody_sleeps_for_luck() -> None:
    """Waiting is for an event; who has none to wait for is listed with the reason."""
    found = {
        path
        for path in files_with(".py")
        for name, _ in calls_of(path)
        if name in {"time.sleep", "sleep", "asyncio.sleep"}
    }
    assert found == set(SLEEPERS)


def test_only_loadgen_talks_to_the_core() -> None:
    """The boundary to Rust is crossed in one module, which documents and types it."""
    found = {
        path
        for path in files_with(".py", under="python/seatrial")
        if re.search(
            r"^\s*(from seatrial\._core|from seatrial import .*_core|import seatrial\._core)",
            text_of(path),
            re.MULTILINE,
        )
    }
    assert found == {"python/seatrial/loadgen.py"}


def test_units() -> None:
    """Names end in the units used inside the program: ns, bytes, ratio, rps."""
    offenders = [
        f"{path}: {name}: use _{unit}"
        for path in SOURCES
        if path not in UNIT_CONVERTERS and "tests/" not in path
        for name in sorted(names_of(path) - set(FOREIGN_NAMES))
        for pattern, unit in BANNED_UNITS.items()
        if re.search(rf"_{pattern}$", name.lower()) and "_PER_" not in name
    ]
    assert not offenders


def test_every_silenced_check_has_its_reason() -> None:
    """A line that silences a tool says why: `noqa: X - reason`, `type: ignore[x]  # reason`."""
    offenders = [
        f"{path}:{number}: {line.strip()}"
        for path in files_with(".py")
        if path != "tests/test_tidy.py"
        for number, line in enumerate(text_of(path).splitlines(), start=1)
        if BARE_NOQA.search(line) or BARE_IGNORE.search(line)
    ]
    for path in files_with(".rs"):
        lines = text_of(path).splitlines()
        for index, line in enumerate(lines):
            silenced = re.search(r"#!?\[(allow|expect|ignore)\b", line)
            above = lines[index - 1].strip() if index else ""
            if (
                silenced
                and "//" not in line
                and "reason" not in line
                and not above.startswith("//")
            ):
                offenders.append(f"{path}:{index + 1}: {line.strip()}")
    assert not offenders


def test_unsafe_rust_is_listed() -> None:
    """Raw system calls live in the modules named here and nowhere else."""
    found = {path for path in files_with(".rs") if re.search(r"\bunsafe\s*\{", text_of(path))}
    assert found == set(UNSAFE_FILES)


def test_nothing_is_left_for_later() -> None:
    """No mark of unfinished work is in the source."""
    mark = re.compile("|".join(rf"\b{one}{two}" for one, two in UNFINISHED))
    offenders = [path for path in SOURCES if mark.search(text_of(path))]
    assert not offenders


def test_every_method_reference_exists() -> None:
    """Code that cites a section of METHODOLOGY.md cites one that is there."""
    headings = re.findall(r"^#+ (\d+(?:\.\d+)*)\.? ", text_of("METHODOLOGY.md"), re.MULTILINE)
    offenders = [
        f"{path}: METHODOLOGY {section}"
        for path in files_with(".py", ".rs", ".html", ".md", ".toml", ".j2")
        for section in re.findall(r"METHODOLOGY(?:\.md)? (\d+(?:\.\d+)*)", text_of(path))
        if section not in headings
    ]
    assert not offenders


def test_versions_agree() -> None:
    """Crates, package and extension are one version, and the changelog knows it."""
    workspace = tomllib.loads(text_of("Cargo.toml"))["workspace"]["package"]["version"]
    assert seatrial.__version__ == workspace
    assert importlib.metadata.version("seatrial") == workspace
    assert re.search(
        rf"^## \[({re.escape(workspace)}|Unreleased)\]", text_of("CHANGELOG.md"), re.MULTILINE
    )


def test_locks_name_no_address() -> None:
    """Lock files hold versions and hashes; where to fetch from is each machine's matter."""
    assert not [
        path for path in files_with(".txt", under="requirements/") if "://" in text_of(path)
    ]


def test_no_trace_of_one_machine() -> None:
    """No file names a home directory or the host of a package registry."""
    pattern = re.compile("|".join(one + two for one, two in ONE_MACHINE))
    offenders = [path for path in files() if path != "Cargo.lock" and pattern.search(text_of(path))]
    assert not offenders


def test_every_finding_code_is_provoked() -> None:
    """Each judgement that Seatrial can pass is passed in some test."""
    assert not unprovoked(set(FINDING_CODES))


def test_every_error_code_is_provoked() -> None:
    """Each error of the tree, and each code given where it is raised, is met in some test."""
    tree: list[type[errors.SeatrialError]] = [errors.SeatrialError]
    codes: dict[str, str] = {}
    while tree:
        kind = tree.pop()
        tree += kind.__subclasses__()
        codes[kind.default_code] = kind.__name__
    for path in files_with(".py", under="python/seatrial"):
        codes |= dict.fromkeys(re.findall(r'\bcode="([a-z-]+)"', text_of(path)), "")
    codes = {code: name for code, name in codes.items() if code not in FINDING_CODES}
    met = text_of_tests()
    missing = unprovoked(set(codes))
    assert not {code for code in missing if not codes[code] or codes[code] not in met}


def unprovoked(codes: set[str]) -> set[str]:
    """The codes that no test names."""
    met = text_of_tests()
    return {code for code in codes if f'"{code}"' not in met}


def text_of_tests() -> str:
    """All tests but this one, as one text."""
    own = "tests/test_tidy.py"
    return "\n".join(text_of(path) for path in files_with(".py", under="tests/") if path != own)


@pytest.mark.parametrize("module", ["seatrial", "seatrial.cli.main"])
def test_importing_is_light(module: str) -> None:
    """`import seatrial` and `seatrial --help` load none of the heavy libraries."""
    program = f"import sys, {module}; print(*[n for n in {HEAVY!r} if n in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []


def test_rust_functions_are_found(tmp_path_factory: pytest.TempPathFactory) -> None:
    """The reader of Rust is not misled by braces in literals, comments and lifetimes."""
    folder = ROOT / "build" / tmp_path_factory.mktemp("tidy").name
    folder.mkdir(parents=True)
    source = folder / "sample.rs"
    source.write_text(
        "trait T { fn none(&self); }\n"
        "fn one<'a>(text: &'a str, more: Vec<(u8, std::io::Error)>) -> char {\n"
        '    let s = "}}"; // }\n'
        "    let r = r#\"}\"#; let c = '}';\n"
        "    c\n"
        "}\n"
    )
    try:
        (found,) = rust_functions(str(source.relative_to(ROOT)))
    finally:
        source.unlink()
        folder.rmdir()
    assert (found.name, found.line, found.lines_count, found.positional_count) == ("one", 2, 5, 2)
