"""Programs of this machine with everything they need, in one directory that sandboxes can see.

There are no images: what runs in a sandbox is what is installed here, with the shared libraries
that the dynamic linker names and, for Python, the modules that our one function imports. Programs
are started through their own copy of the linker, so that the very same bytes run in every runtime
and on the host, wherever the directory is. It is made once and kept in the user's cache, under a
name that changes when one of its sources does.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from seatrial import proc
from seatrial.errors import EnvironmentTrouble, SeatrialError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: What is asked for, each with the arguments that make it say its version.
VERSION_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "dd": ("--version",),
    "fio": ("--version",),
    "iperf3": ("--version",),
    "wget": ("--version",),
    "curl": ("--version",),
    "python3": ("--version",),
}
PYTHON: Final = "python3"
FUNCTION: Final = "function.py"
CACHE_SUBDIRECTORY: Final = "seatrial/toolbox"
#: Of older toolboxes so many stay: another run may be at work with one.
OLD_KEPT_COUNT: Final = 2
#: Changes when the layout of the directory does.
LAYOUT: Final = "1"
ASK_TIMEOUT_S: Final = 20.0
_LIBRARY: Final = re.compile(r"^\s*(?:(\S+) => )?(/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
_LACKING: Final = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Toolbox:
    """A finished directory of tools."""

    directory: Path
    loader: str
    """File name of the dynamic linker among the libraries."""
    versions: Mapping[str, str]
    """The first line that each tool says about itself."""
    missing: Mapping[str, str]
    """Tools that cannot be had here, and why."""

    def argv(self, name: str, *arguments: str, at: str) -> tuple[str, ...]:
        """Give the command line of a tool where the directory is seen ``at`` a path."""
        libraries = f"{at}/lib"
        program = f"{at}/bin/{name}"
        return (f"{libraries}/{self.loader}", "--library-path", libraries, program, *arguments)

    def function_argv(self, *arguments: str, at: str) -> tuple[str, ...]:
        """Give the command line of our function in Python; it wants ``environment`` too."""
        return self.argv(PYTHON, "-S", "-s", f"{at}/{FUNCTION}", *arguments, at=at)

    @staticmethod
    def environment(at: str) -> dict[str, str]:
        """Give what tools need to know: no settings of a user, and where Python's modules are."""
        return {
            "HOME": "/",
            "LC_ALL": "C",
            "PYTHONHOME": f"{at}/python",
            "PYTHONDONTWRITEBYTECODE": "1",
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """What the dynamic linker says about a program."""

    libraries: Mapping[str, Path]
    loader: Path | None
    """None: it is linked statically, or it is a library that needs no other."""


def cache_directory() -> Path:
    """Give where toolboxes are kept."""
    cache = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(cache) / CACHE_SUBDIRECTORY


def make_toolbox(
    root: Path | None = None, *, programs: Mapping[str, Path] | None = None
) -> Toolbox:
    """Make the directory below ``root``, or find it made already.

    ``programs`` names the tools and where they are; by default those of this machine. A tool that
    is not installed, or not linked dynamically, is listed as missing.

    Raises:
        EnvironmentTrouble: no tool at all can be had, or the directory cannot be written.
    """
    sources, missing = _find(programs)
    linked: dict[str, Linked] = {}
    for name, path in list(sources.items()):
        try:
            found = link_of(path)
            if found.loader is None:
                raise EnvironmentTrouble(f"{path} is linked statically; expected dynamically")
            linked[name] = found
        except SeatrialError as error:
            missing[name] = error.message
            del sources[name]
    loaders = {one.loader.name for one in linked.values() if one.loader is not None}
    if len(loaders) != 1:
        message = f"no tools with one dynamic linker here (found: {sorted(loaders)}): {missing}"
        raise EnvironmentTrouble(message, hint="apt-get install fio iperf3 wget curl")
    modules = _python_modules(sources.get(PYTHON), missing)
    key = _key(sources, linked, modules)
    place = (root or cache_directory()) / key
    if not (place / "toolbox.json").is_file():
        _build(place, sources, linked, modules, loader=loaders.pop())
    else:
        place.touch()  # the oldest by use are removed
    _prune(place)
    return _read(place, missing)


def parse_linked(text: str, *, program: str) -> Linked:
    """Read what ``ldd`` prints; pure.

    Raises:
        EnvironmentTrouble: a library is not found.
    """
    lacking = _LACKING.findall(text)
    if lacking:
        raise EnvironmentTrouble(f"{program} lacks its libraries {', '.join(lacking)}")
    libraries: dict[str, Path] = {}
    loader: Path | None = None
    for name, path in _LIBRARY.findall(text):
        if name and not name.startswith("/"):
            libraries[name] = Path(path)
        else:
            loader = Path(name or path)
            libraries[loader.name] = Path(path)
    return Linked(libraries=libraries, loader=loader)


def link_of(path: Path) -> Linked:
    """Ask the dynamic linker what a program or library needs.

    Raises:
        EnvironmentTrouble: a library is not found, or there is no ``ldd``.
    """
    done = proc.run(["ldd", str(path)], timeout_s=ASK_TIMEOUT_S, check=False)
    return parse_linked(done.text, program=str(path))


def _find(programs: Mapping[str, Path] | None) -> tuple[dict[str, Path], dict[str, str]]:
    if programs is not None:
        return dict(programs), {}
    sources: dict[str, Path] = {}
    missing: dict[str, str] = {}
    for name in VERSION_WORDS:
        # The interpreter that runs us is always there; one in a virtual environment is a link.
        found = _own_python() if name == PYTHON else shutil.which(name)
        if found is None:
            missing[name] = f"{name} is not installed: apt-get install {_package(name)}"
        else:
            sources[name] = Path(found).resolve()
    return sources, missing


def _own_python() -> str | None:
    version = sys.version_info
    own = Path(sys.base_prefix) / "bin" / f"python{version.major}.{version.minor}"
    return str(own) if own.is_file() else shutil.which(PYTHON)


def _package(name: str) -> str:
    return {"dd": "coreutils"}.get(name, name)


def _python_modules(python: Path | None, missing: dict[str, str]) -> dict[str, Path]:
    """Find the files of all modules that the function imports, by running it."""
    if python is None:
        return {}
    function = Path(__file__).with_name(FUNCTION)
    code = (
        "import sys,runpy,json,encodings.ascii,encodings.latin_1\n"
        f"sys.argv=['f','10']\nrunpy.run_path({str(function)!r},run_name='__main__')\n"
        "files=[m.__file__ for m in list(sys.modules.values()) if getattr(m,'__file__',None)]\n"
        "import os;files.append(os.__file__)\n"
        "print(json.dumps({'files':files,'lib':os.path.dirname(os.__file__)}))"
    )
    try:
        done = proc.run([str(python), "-S", "-E", "-s", "-c", code], timeout_s=ASK_TIMEOUT_S)
        found = json.loads(done.text.splitlines()[-1])
        library = Path(found["lib"])
        files = {Path(name) for name in found["files"]} - {function}
        return {
            f"python/lib/{library.name}/{file.relative_to(library)}": file
            for one in files
            for file in (one, *_compiled(one))
        }
    except (SeatrialError, ValueError, KeyError, IndexError) as error:
        missing[PYTHON] = f"the modules of {python} cannot be told: {error}"
        return {}


def _compiled(source: Path) -> list[Path]:
    tag = sys.implementation.cache_tag
    path = source.parent / "__pycache__" / f"{source.stem}.{tag}.pyc"
    return [path] if path.is_file() else []


def _key(
    sources: Mapping[str, Path], linked: Mapping[str, Linked], modules: Mapping[str, Path]
) -> str:
    digest = hashlib.sha256(f"{LAYOUT}\0".encode())
    digest.update(Path(__file__).with_name(FUNCTION).read_bytes())
    files = {f"bin/{name}": path for name, path in sources.items()} | dict(modules)
    for one in linked.values():
        files |= {f"lib/{name}": path for name, path in one.libraries.items()}
    for name, path in sorted(files.items()):
        stat = path.stat()
        digest.update(f"{name}\0{path}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:16]


def _build(
    place: Path,
    sources: Mapping[str, Path],
    linked: Mapping[str, Linked],
    modules: Mapping[str, Path],
    *,
    loader: str,
) -> None:
    """Make it under another name first, so that none is ever half there."""
    partial = place.with_name(f".{place.name}.{os.getpid()}")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name, path in sources.items():
            _copy(path, partial / "bin" / name)
        for name, path in modules.items():
            _copy(path, partial / name)
        extensions = [link_of(path) for name, path in modules.items() if name.endswith(".so")]
        for one in (*linked.values(), *extensions):
            for name, path in one.libraries.items():
                _copy(path, partial / "lib" / name)
        _copy(Path(__file__).with_name(FUNCTION), partial / FUNCTION)
        facts = {"loader": loader, "versions": _versions(partial, loader, sources)}
        (partial / "toolbox.json").write_text(json.dumps(facts))
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755 if path.is_dir() or os.access(path, os.X_OK) else 0o644)
        with contextlib.suppress(FileExistsError):
            partial.rename(place)
    except OSError as error:
        if not (place / "toolbox.json").is_file():  # nobody else made it meanwhile
            raise EnvironmentTrouble(
                f"cannot make the directory of tools {place}: {error}",
                hint="XDG_CACHE_HOME must name a directory that can be written, with 200 MiB free",
            ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(source: Path, target: Path) -> None:
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _versions(directory: Path, loader: str, names: Iterable[str]) -> dict[str, str]:
    box = Toolbox(directory=directory, loader=loader, versions={}, missing={})
    versions: dict[str, str] = {}
    for name in names:
        at = str(directory)
        words: Sequence[str] = VERSION_WORDS.get(name, ("--version",))
        done = proc.run(
            box.argv(name, *words, at=at),
            timeout_s=ASK_TIMEOUT_S,
            env={**os.environ, **box.environment(at)},
            check=False,
        )
        lines = done.text.strip().splitlines()
        versions[name] = lines[0] if lines else "unknown"
    return versions


def _read(place: Path, missing: Mapping[str, str]) -> Toolbox:
    try:
        facts = json.loads((place / "toolbox.json").read_text())
        return Toolbox(
            directory=place, loader=facts["loader"], versions=facts["versions"], missing=missing
        )
    except (OSError, ValueError, KeyError) as error:
        message = f"the directory of tools {place} is damaged: {error}"
        raise EnvironmentTrouble(message, hint=f"remove {place}") from error


def _prune(place: Path) -> None:
    """Remove the oldest of the others, so that updates do not fill the cache."""
    others = [path for path in place.parent.iterdir() if path != place and path.is_dir()]
    others.sort(key=lambda path: path.stat().st_mtime_ns)
    for path in others[: max(0, len(others) - OLD_KEPT_COUNT)]:
        shutil.rmtree(path, ignore_errors=True)
