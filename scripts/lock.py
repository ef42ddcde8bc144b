"""Writes the lock files: versions and hashes, no download addresses.

Usage: .venv/bin/python scripts/lock.py [--upgrade]
"""

from __future__ import annotations

import sys

from steps import ROOT, VENV, StepError, report, run, step

#: In this order: `dev` takes uv's version from `uv`, and all of `runtime`.
LOCKS = ("uv", "go", "runtime", "dev", "bench")


def main() -> int:
    """Compiles every `requirements/*.in` for the oldest Python that we support."""
    try:
        for name in LOCKS:
            with step("lock", f"requirements/{name}.txt"):
                command = [
                    VENV / "bin" / "uv", "pip", "compile", f"requirements/{name}.in",
                    "--output-file", f"requirements/{name}.txt",
                    "--generate-hashes", "--no-emit-index-url", "--no-header", "--quiet",
                    "--universal", "--python-version", "3.11", *sys.argv[1:],
                ]  # fmt: skip
                run(command, log="lock", cwd=ROOT)
    except StepError as error:
        return report(error)
    return 0


if __name__ == "__main__":
    sys.exit(main())
