"""The directory of tools: what the linker says, which files it holds, and how tools are run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from seatrial import proc
from seatrial.errors import EnvironmentTrouble
from seatrial.guest import function
from seatrial.guest.binary import guest_binary
from seatrial.guest.toolbox import OLD_KEPT_COUNT, Toolbox, make_toolbox, parse_linked

GLIBC = """\
\tlinux-vdso.so.1 (0x00007ffd4b5f2000)
\tlibm.so.6 => /lib/x86_64-linux-gnu/libm.so.6 (0x00007f1c4c5d0000)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f1c4c3ef000)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f1c4c6c1000)
"""


def test_the_linker_names_libraries_and_itself() -> None:
    """The kernel's own library is no file, and is not copied."""
    found = parse_linked(GLIBC, program="/bin/x")
    assert found.loader == Path("/lib64/ld-linux-x86-64.so.2")
    assert dict(found.libraries) == {
        "libm.so.6": Path("/lib/x86_64-linux-gnu/libm.so.6"),
        "libc.so.6": Path("/lib/x86_64-linux-gnu/libc.so.6"),
        "ld-linux-x86-64.so.2": Path("/lib64/ld-linux-x86-64.so.2"),
    }


def test_a_static_program_has_no_linker() -> None:
    """It is told from a dynamic one, whose linker is needed to run it from elsewhere."""
    assert parse_linked("\tstatically linked\n", program="/bin/x").loader is None


def test_a_lacking_library_is_named() -> None:
    """A tool that cannot start here cannot start in a sandbox."""
    with pytest.raises(EnvironmentTrouble, match=r"/bin/x lacks its libraries libq\.so\.1"):
        parse_linked(f"\tlibq.so.1 => not found\n{GLIBC}", program="/bin/x")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Toolbox:
    """A toolbox with one program only."""
    dd = shutil.which("dd")
    assert dd is not None
    return make_toolbox(tmp_path_factory.mktemp("cache"), programs={"dd": Path(dd).resolve()})


def test_a_tool_runs_from_its_own_directory(small: Toolbox) -> None:
    """With its own copies of linker and libraries."""
    at = str(small.directory)
    words = small.argv("dd", "if=/dev/zero", "bs=3", "count=2", at=at)
    assert words[:3] == (f"{at}/lib/{small.loader}", "--library-path", f"{at}/lib")
    assert proc.run(words).stdout == bytes(6)
    assert small.versions["dd"].startswith("dd ")
    assert not small.missing


def test_it_is_made_once(small: Toolbox) -> None:
    """A second call finds what the first has made; another source makes another one."""
    root = small.directory.parent
    source = Path(shutil.which("dd") or "").resolve()
    again = make_toolbox(root, programs={"dd": source})
    assert again.directory == small.directory
    copy = root.parent / f"{root.name}-dd"
    shutil.copyfile(source, copy)
    copy.chmod(0o755)
    assert make_toolbox(root, programs={"dd": copy}).directory != small.directory


def test_old_ones_are_removed(tmp_path: Path) -> None:
    """So that a program that is updated again and again does not fill the cache."""
    source = Path(shutil.which("dd") or "").resolve()
    for number in range(OLD_KEPT_COUNT + 3):
        copy = tmp_path / f"dd{number}"
        shutil.copyfile(source, copy)
        copy.chmod(0o755)
        last = make_toolbox(tmp_path / "cache", programs={"dd": copy})
    left = list((tmp_path / "cache").iterdir())
    assert len(left) == OLD_KEPT_COUNT + 1
    assert last.directory in left


def test_without_any_tool_there_is_no_toolbox(tmp_path: Path) -> None:
    """A static program cannot be carried along this way, and the message says so."""
    with pytest.raises(EnvironmentTrouble, match="linked statically"):
        make_toolbox(tmp_path, programs={"guest": guest_binary()})


def test_the_tools_of_this_machine(tmp_path: Path) -> None:
    """Python brings the modules that the function needs; what is not installed is listed."""
    box = make_toolbox(tmp_path)
    assert {*box.versions, *box.missing} == {"dd", "fio", "iperf3", "wget", "curl", "python3"}
    at = str(box.directory)
    done = proc.run(box.function_argv("1000", at=at), env=box.environment(at))
    said = json.loads(done.text)
    assert said["result"] == 168
    assert said["function_ns"] > 0


@pytest.mark.parametrize(
    ("limit", "expected"), [(0, 0), (1, 0), (2, 0), (3, 1), (10, 4), (100, 25), (200_000, 17_984)]
)
def test_the_function_counts_primes(limit: int, expected: int) -> None:
    """As the guest's does, with which it is compared."""
    assert function.primes_below(limit) == expected
