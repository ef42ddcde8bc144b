"""The files in which the kernel tells about itself, below a root that a test can make up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Tree:
    """Reads /proc, /sys and /boot; what cannot be read is ``None``, never a guess."""

    root: Path = Path("/")

    def path(self, name: str) -> Path:
        """Give where a file is, such as ``proc/stat``."""
        return self.root / name

    def text(self, name: str) -> str | None:
        """Read a file, without blanks at its ends."""
        try:
            return self.path(name).read_text(errors="replace").strip()
        except OSError:
            return None

    def number(self, name: str) -> int | None:
        """Read a file that holds one whole number."""
        text = self.text(name)
        try:
            return None if text is None else int(text)
        except ValueError:
            return None

    def names(self, name: str) -> tuple[str, ...]:
        """List a directory, sorted; one that cannot be read is empty."""
        try:
            return tuple(sorted(entry.name for entry in self.path(name).iterdir()))
        except OSError:
            return ()

    def exists(self, name: str) -> bool:
        """Tell whether there is such a file; one that we may not look at is none for us."""
        try:
            return self.path(name).exists()
        except PermissionError:
            return False

    def fields(self, name: str) -> dict[str, str]:
        """Read lines of the form ``Key: value``."""
        found: dict[str, str] = {}
        for line in (self.text(name) or "").splitlines():
            key, separator, value = line.partition(":")
            if separator:
                found.setdefault(key.strip(), value.strip())
        return found


def chosen(text: str | None) -> str | None:
    """Give the bracketed word of a kernel choice such as ``always [madvise] never``."""
    if text is None or "[" not in text:
        return text
    return text.partition("[")[2].partition("]")[0]
