"""What every set-up step needs: run a tool quietly, say one line, skip what is done already.

Standard library only: these scripts run before the virtual environment exists.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
BUILD = ROOT / "build"
BINARIES = ROOT / "python" / "seatrial" / "_bin"
#: How much of a failed tool's output is shown; the rest is in the log it names.
TAIL_LINES = 30


class StepError(Exception):
    """A step that failed: what went wrong, and what to do about it."""

    def __init__(self, message: str, *, hint: str = "", tail: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        self.tail = tail


def say(name: str, text: str) -> None:
    """Prints one line about a step."""
    print(f"{name:<9} {text}", flush=True)


@contextmanager
def step(name: str, text: str) -> Iterator[None]:
    """Says what is being done, and when it is done how long it took."""
    started = time.monotonic()
    print(f"{name:<9} {text} ...", end="", flush=True)
    try:
        yield
    except BaseException:
        print(" failed", flush=True)
        raise
    print(f" {time.monotonic() - started:.0f} s", flush=True)


def run(
    argv: Sequence[str | Path],
    *,
    log: str,
    hint: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
) -> None:
    """Runs a tool with its output in `build/logs/LOG.log`; a failure shows the end of that log."""
    path = BUILD / "logs" / f"{log}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    words = [str(word) for word in argv]
    with path.open("ab") as output:
        output.write(f"\n$ {shlex.join(words)}\n".encode())
        output.flush()
        position = output.tell()
        try:
            code = subprocess.run(
                words,
                cwd=cwd,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            ).returncode
        except FileNotFoundError as error:
            message = f"cannot start {words[0]}: it is not there"
            raise StepError(message, hint=hint) from error
    if code != 0:
        with path.open("rb") as output:
            output.seek(position)
            lines = output.read().decode(errors="replace").splitlines()
        where = path.relative_to(ROOT)
        raise StepError(
            f"{shlex.join(words[:4])} ended with exit code {code} (whole output: {where})",
            hint=hint,
            tail="\n".join(lines[-TAIL_LINES:]),
        )


def output_of(argv: Sequence[str | Path]) -> str | None:
    """What a tool prints, or None when it is not there or fails."""
    try:
        done = subprocess.run(
            [str(word) for word in argv], capture_output=True, text=True, check=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def find_tool(name: str, *folders: Path) -> Path | None:
    """A program on PATH, in the administrator's folders, or in one of `folders`."""
    places = [os.environ.get("PATH", ""), "/usr/local/sbin:/usr/sbin:/sbin", *map(str, folders)]
    found = shutil.which(name, path=":".join(places))
    return Path(found) if found else None


def uv_install(lock: Path, *options: str | Path, log: str, hint: str = "") -> None:
    """Installs exactly what a lock file lists, each file checked by its hash."""
    python = VENV / "bin" / "python"
    command = [VENV / "bin" / "uv", "pip", "install", "--python", python, "--require-hashes"]
    # As pip does, trust what the system trusts: a proxy's certificate is there, if anywhere.
    system_certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    env = {"UV_SYSTEM_CERTS": "1"} if system_certificates.exists() else {}
    run([*command, *options, "-r", lock], log=log, hint=hint, env=env)


def cargo() -> Path:
    """The Rust build tool, also where rustup put it without touching PATH."""
    found = find_tool("cargo", Path.home() / ".cargo" / "bin")
    if found is None:
        message = "cargo is missing: Seatrial's load engine is written in Rust"
        raise StepError(message, hint="install Rust 1.85 or newer with rustup, then run make again")
    return found


def digest(paths: Iterable[Path], *words: str) -> str:
    """One hash over files (names and contents; folders are walked) and words."""
    total = hashlib.sha256("\0".join(words).encode())
    for path in paths:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        for file in files:
            if file.is_file() and "__pycache__" not in file.parts:
                total.update(f"\0{file.relative_to(ROOT)}\0".encode())
                total.update(file.read_bytes())
    return total.hexdigest()


def is_fresh(stamp: Path, value: str, *products: Path) -> bool:
    """Whether a step was done with just these inputs and its products are still there."""
    return (
        all(product.exists() for product in products)
        and stamp.is_file()
        and stamp.read_text(encoding="ascii") == value
    )


def mark_fresh(stamp: Path, value: str) -> None:
    """Remembers the inputs with which a step was done."""
    stamp.parent.mkdir(parents=True, exist_ok=True)
    stamp.write_text(value, encoding="ascii")


def report(error: StepError) -> int:
    """Prints a failed step for a person and gives the exit code."""
    if error.tail:
        print(error.tail, file=sys.stderr)
    print(f"error: {error}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return 3
