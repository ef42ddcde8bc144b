"""Provides other load generators for `make bench`: built once from their registries, pinned.

Go programs come from the module pinned in tools/peers (versions and hashes), oha from the crate
registry with its own lock file, grpcio and pandas from requirements/bench.txt. All lie beside
runsc in `${XDG_CACHE_HOME:-~/.cache}/seatrial/tools/peers/`: a folder a version, and a link that
names the one to use. None is needed for anything but a row of the benchmarks: where a build fails,
the reason is left in `NAME.missing`, and the row says it.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from pathlib import Path

from runsc import cache as tools_cache
from runsc import fetch_go, own_go
from steps import ROOT, StepError, cargo, run, say, step, uv_install

MODULE = ROOT / "tools" / "peers"
PYTHON_LOCK = ROOT / "requirements" / "bench.txt"
#: Program, its package, and the module that the package belongs to.
GO_PEERS = (
    ("vegeta", "github.com/tsenart/vegeta/v12", "github.com/tsenart/vegeta/v12"),
    ("fortio", "fortio.org/fortio", "fortio.org/fortio"),
    ("ghz", "github.com/bojand/ghz/cmd/ghz", "github.com/bojand/ghz"),
)
#: Packages of requirements/bench.txt; each gets a folder with all of them.
PYTHON_PEERS = ("grpcio", "pandas")
OHA_VERSION = "1.16.0"


def cache() -> Path:
    """Where peers are kept between clones."""
    return tools_cache() / "peers"


def provide() -> None:
    """Makes sure that the cache holds every peer, or the reason why not."""
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two clones may be set up at once
        for name, package, module in GO_PEERS:
            one(name, pinned_module(module), lambda made, p=package: build_go(p, made))
        one("oha", OHA_VERSION, build_oha)
        for name in PYTHON_PEERS:
            one(name, pinned_python(name), install_python)


def one(name: str, version: str, build) -> None:
    """Builds one peer unless it is there; a failure is told and kept, and stops nothing."""
    home, missing = cache() / f"{name}-{version}", cache() / f"{name}.missing"
    product = home / name
    try:
        if not product.exists():
            with (
                tempfile.TemporaryDirectory(dir=cache()) as folder,
                step("peers", f"building {name} {version}, once"),
            ):
                made = Path(folder) / name
                build(made)
                home.mkdir(exist_ok=True)
                made.replace(product)
        point_to(product, cache() / name)
        missing.unlink(missing_ok=True)
    except (StepError, OSError) as error:
        tail = error.tail.splitlines()[-1:] if isinstance(error, StepError) else []
        missing.write_text(" ".join([str(error), *tail]), encoding="utf-8")
        (cache() / name).unlink(missing_ok=True)
        say("peers", f"without {name}: {error}")
    else:
        say("peers", f"{name} {version} present")


def pinned_module(module: str) -> str:
    """The version of a Go module in tools/peers/go.mod, without its `v`."""
    text = (MODULE / "go.mod").read_text(encoding="utf-8")
    found = re.search(rf"^\s*{re.escape(module)} v(\S+)", text, re.MULTILINE)
    if found is None:
        message = f"tools/peers/go.mod pins no {module}"
        raise StepError(message, hint="restore the file from the repository")
    return found[1]


def pinned_python(name: str) -> str:
    """The version of a package in requirements/bench.txt."""
    text = PYTHON_LOCK.read_text(encoding="utf-8")
    found = re.search(rf"^{re.escape(name)}==([^\s;\\]+)", text, re.MULTILINE)
    if found is None:
        message = f"requirements/bench.txt pins no {name}"
        raise StepError(message, hint="restore the file from the repository, or run make lock")
    return found[1]


def go_min() -> tuple[int, ...]:
    """The Go version that tools/peers/go.mod asks for."""
    text = (MODULE / "go.mod").read_text(encoding="utf-8")
    found = re.search(r"^go ([\d.]+)$", text, re.MULTILINE)
    if found is None:
        message = "tools/peers/go.mod names no Go version"
        raise StepError(message, hint="restore the file from the repository")
    return tuple(map(int, found[1].split(".")))


def build_go(package: str, made: Path) -> None:
    """Builds a Go program from the pinned module."""
    environment = {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    go = own_go(go_min()) or fetch_go(made.parent / "toolchain")
    command = [go, "build", "-trimpath", "-ldflags", "-s -w", "-o", made, package]
    run(command, log="peers", env=environment, cwd=MODULE)


def build_oha(made: Path) -> None:
    """Builds oha with the versions of its own lock file."""
    root = made.parent / "root"
    command = [cargo(), "install", "--locked", "--version", OHA_VERSION, "--root", root]
    environment = {
        "CARGO_TARGET_DIR": str(made.parent / "target"),
        "PATH": f"{cargo().parent}:{os.environ.get('PATH', '')}",
    }
    run([*command, "oha"], log="peers", env=environment, hint="it needs Rust 1.88 or newer")
    (root / "bin" / "oha").replace(made)


def install_python(made: Path) -> None:
    """Puts the packages into a folder of their own, so that nothing else comes to need them."""
    uv_install(PYTHON_LOCK, "--target", made, log="peers")


def point_to(product: Path, link: Path) -> None:
    """Lets the peer's name lead to this version."""
    if link.is_symlink() and link.resolve() == product.resolve():
        return
    fresh = link.with_name(f".{link.name}-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(product.relative_to(cache()))
    fresh.replace(link)
