"""Makes a bare clone ready: system packages, Python environment, runsc, Rust build.

Each step is skipped when its inputs have not changed; then nothing is asked of the network.

Usage: setup.py [--for trial|test|bench] [STEP...]

Steps, in this order when none is named: rust, system, python, runsc, kernel, build, and for the
benchmarks peers.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import kernel
import peers
import runsc
from steps import (
    BINARIES,
    BUILD,
    ROOT,
    VENV,
    StepError,
    cargo,
    digest,
    find_tool,
    is_fresh,
    mark_fresh,
    output_of,
    report,
    run,
    say,
    step,
    uv_install,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

PYTHON_MIN = (3, 11)
RUST_MIN = (1, 85)
STATIC_BINARIES = ("seatrial-guest", "seatrial-launch")
#: Groups of requirements/apt.txt by purpose.
GROUPS = {
    "trial": {"build", "measure"},
    "test": {"build", "measure", "test"},
    "bench": {"build", "measure", "bench"},
}
#: Debian asks this program before a package starts its daemon; exit code 101 forbids it.
POLICY = Path("/usr/sbin/policy-rc.d")


# --- system packages ---------------------------------------------------------------------------
def wanted_packages(purpose: str) -> list[tuple[str, str, str, str]]:
    """Rows of requirements/apt.txt for a purpose: package, group, evidence, loss."""
    groups = GROUPS[purpose]
    lines = (ROOT / "requirements" / "apt.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split(maxsplit=3) for line in lines if line and not line.startswith("#")]
    wanted = [row for row in rows if groups & set(row[1].split(","))]
    return [(row[0], row[1], row[2], row[3]) for row in wanted]


def is_present(evidence: str) -> bool:
    """Whether a program or path is on this machine."""
    return Path(evidence).exists() if evidence.startswith("/") else find_tool(evidence) is not None


def install_system_packages(purpose: str) -> None:
    """Installs what is missing (root on Debian), or says what is lost without it."""
    rows = wanted_packages(purpose)
    if (
        not (VENV / "bin" / "python").exists()
        and output_of([sys.executable, "-m", "ensurepip", "--version"]) is None
    ):
        rows.append(("python3-venv", "build", "", "the Python environment"))
    missing = [row for row in rows if not is_present(row[2]) or not row[2]]
    if not missing:
        say("system", "all packages present")
        return
    names = [row[0] for row in missing]
    apt = find_tool("apt-get")
    if apt is not None and os.geteuid() == 0:
        install_with_apt(apt, names)
        missing = [row for row in missing if row[2] and not is_present(row[2])]
    for package, _, _, loss in missing:
        say("system", f"without {package}: no {loss.removeprefix('the ')}")
    if missing and (apt is None or os.geteuid() != 0):
        say("system", f"to get them, as root: apt-get install {' '.join(names)}")
    fatal = [row[0] for row in missing if row[1] == "build"]
    if fatal:
        message = f"cannot build without {', '.join(fatal)}"
        raise StepError(message, hint="install them with your system's package manager")


def install_with_apt(apt: Path, names: list[str]) -> None:
    """Installs packages; a package that fails alone does not stop the others."""
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    common = ["-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"]
    hint = "read the output above; `apt-get update` must work on this machine"
    with step("system", f"installing {' '.join(names)}"), no_daemons():
        run([apt, "update", *common], log="apt", hint=hint, env=quiet)
        install = [apt, "install", "-y", "--no-install-recommends", *common]
        try:
            run([*install, *names], log="apt", env=quiet)
        except StepError:
            for name in names:
                try:
                    run([*install, name], log="apt", hint=hint, env=quiet)
                except StepError:  # what is lost is said by the caller
                    continue


@contextmanager
def no_daemons() -> Iterator[None]:
    """Keeps packages from starting their daemons: what is measured is always a private instance.

    A policy that the machine has already is left as it is.
    """
    try:
        with POLICY.open("x", encoding="ascii") as file:
            file.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:
        yield
        return
    try:
        POLICY.chmod(0o755)
        yield
    finally:
        POLICY.unlink(missing_ok=True)


# --- Python environment ------------------------------------------------------------------------
def install_python() -> None:
    """Makes .venv from the locks: pip fetches uv by hash, uv fetches the rest by hash."""
    if sys.version_info < PYTHON_MIN:
        message = f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}"
        raise StepError(message, hint="run make with PYTHON=python3.11 or another newer one")
    python = VENV / "bin" / "python"
    locks = [ROOT / "requirements" / "uv.txt", ROOT / "requirements" / "dev.txt"]
    stamp, value = VENV / ".seatrial-stamp", digest(locks, sys.version, str(ROOT), "compiled")
    if (
        is_fresh(stamp, value, python, VENV / "bin" / "uv")
        and output_of([python, "-c", ""]) is not None
    ):
        say("python", "locked packages present")
        return
    hint = "the package index must be reachable the first time; pip's own settings are honoured"
    with step("python", "installing locked packages into .venv"):
        if output_of([python, "-c", f"import sys; assert sys.prefix == {str(VENV)!r}"]) is None:
            shutil.rmtree(VENV, ignore_errors=True)
            run([sys.executable, "-m", "venv", VENV], log="python", hint="install python3-venv")
        pip = [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r"]
        run([*pip, locks[0]], log="python", hint=hint)
        # Compiled now, or every later start would do it where the environment forbids .pyc files.
        uv_install(locks[1], "--compile-bytecode", log="python", hint=hint)
    mark_fresh(stamp, value)


# --- Rust build --------------------------------------------------------------------------------
def rust_environment() -> dict[str, str]:
    """The same for every cargo call, or cargo would build the same crates again."""
    path = f"{cargo().parent}:{VENV / 'bin'}:{os.environ.get('PATH', '')}"
    return {"PATH": path, "PYO3_PYTHON": str(VENV / "bin" / "python"), "VIRTUAL_ENV": str(VENV)}


def host_triple() -> str:
    """The machine's target name, which must be given: flags for a static binary are per target."""
    text = output_of([cargo().parent / "rustc", "-vV"]) or output_of(["rustc", "-vV"]) or ""
    for line in text.splitlines():
        if line.startswith("host: "):
            return line.removeprefix("host: ")
    message = f"rustc -vV does not name its host: {text[:200]!r}"
    raise StepError(message, hint="repair the Rust toolchain; `rustc -vV` should print a host line")


def check_rust() -> None:
    """Refuses early, before minutes of other work, when the Rust build could not succeed."""
    said = output_of([cargo(), "--version"]) or "nothing"
    found = re.search(r"cargo (\d+)\.(\d+)", said)
    if found is None or (int(found[1]), int(found[2])) < RUST_MIN:
        wanted = ".".join(map(str, RUST_MIN))
        message = f"Rust {wanted} or newer is needed; {cargo()} --version says {said!r}"
        raise StepError(message, hint="update it (rustup update), then run make again")


def build_rust() -> None:
    """Builds the extension module (release, editable) and the two static binaries."""
    triple = host_triple()
    sources = [ROOT / name for name in ("Cargo.toml", "Cargo.lock", "crates", "pyproject.toml")]
    version = output_of([cargo().parent / "rustc", "-vV"]) or ""
    stamp, value = VENV / ".seatrial-build", digest(sources, version, str(ROOT))
    extension = ROOT / "python" / "seatrial" / "_core.abi3.so"
    products = [
        extension,
        VENV / "bin" / "seatrial",
        *(BINARIES / name for name in STATIC_BINARIES),
    ]
    if is_fresh(stamp, value, *products):
        say("build", "extension, guest and launcher are up to date")
        return
    env = rust_environment()
    hint = "the first build fetches crates; later ones work offline"
    with step("build", "guest and launcher, static release"):
        build_static_binaries(triple, env=env, hint=hint)
    with step("build", "extension module, release"):
        develop = [VENV / "bin" / "maturin", "develop", "--release", "--locked", "--uv", "--quiet"]
        run(develop, log="build", hint=hint, env=env)
    mark_fresh(stamp, value)


def build_static_binaries(triple: str, *, env: dict[str, str], hint: str) -> None:
    """Puts the guest and the launcher, which need no shared library, into the package."""
    command = [cargo(), "build", "--release", "--locked", "--target", triple]
    for name in STATIC_BINARIES:
        command += ["-p", name]
    run(command, log="build", hint=hint, env={**env, "RUSTFLAGS": "-C target-feature=+crt-static"})
    BINARIES.mkdir(parents=True, exist_ok=True)
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    for name in STATIC_BINARIES:
        fresh = BINARIES / f".{name}.new"  # renamed, since a running copy cannot be overwritten
        shutil.copy2(target / triple / "release" / name, fresh)
        fresh.replace(BINARIES / name)


def main() -> int:
    """Runs the asked steps, or all of them."""
    steps = {
        "rust": check_rust,
        "system": lambda: install_system_packages(arguments.purpose),
        "python": install_python,
        "runsc": runsc.provide,
        "kernel": kernel.provide,
        "build": build_rust,
        "peers": peers.provide,
    }
    parser = argparse.ArgumentParser(description="Make a bare clone ready.")
    parser.add_argument("--for", dest="purpose", choices=tuple(GROUPS), default="test")
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(steps)}")
    arguments = parser.parse_args()
    unknown = set(arguments.steps) - set(steps)
    if unknown:
        parser.error(f"unknown step {sorted(unknown)}; known: {', '.join(steps)}")
    BUILD.mkdir(exist_ok=True)
    try:
        for name, action in steps.items():
            is_wanted = name != "peers" or arguments.purpose == "bench"
            if name in arguments.steps or (is_wanted and not arguments.steps):
                action()
    except StepError as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
