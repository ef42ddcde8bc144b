"""The files of ``seatrial load``: checked before the load, written after its result was told."""

from __future__ import annotations

import stat
from functools import partial
from typing import TYPE_CHECKING, Final

from seatrial.errors import ConfigError, StoreError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from seatrial.loadtest.perform import Performed
    from seatrial.loadtest.settings import LoadTestSettings

#: Options that name a place to write to.
NAMES: Final = ("out", "hdr", "k6", "parquet")


def given_files(args: argparse.Namespace) -> dict[str, Path]:
    """The places that were asked for, by their options."""
    return {f"--{name}": path for name in NAMES if (path := getattr(args, name)) is not None}


def check_files(args: argparse.Namespace) -> None:
    """Refuses before the load what could not be written after it.

    Raises:
        ConfigError: a name is taken, or given twice, or its directory is not there.
        StoreError: nothing can be made at that place.
    """
    files = given_files(args)
    if not files:
        return
    from seatrial.loadtest import exports

    _check_names(files)
    for flag, path in files.items():
        exports.check_place(path, is_directory=flag == "--out")


def _check_names(files: Mapping[str, Path]) -> None:
    from seatrial.loadtest import exports

    seen: dict[tuple[int, int, str], str] = {}
    for flag, path in files.items():
        if exports.is_taken(path):
            message = f"{path} exists; nothing is overwritten"
            raise ConfigError(message, hint="choose another name")
        try:
            parent = path.parent.stat()
        except (FileNotFoundError, NotADirectoryError):
            parent = None
        except OSError:
            # Whoever tries to write there says why that cannot be.
            continue
        if parent is None or not stat.S_ISDIR(parent.st_mode):
            message = f"there is no directory {path.parent}"
            raise ConfigError(message, hint="make it first")
        other = seen.setdefault((parent.st_dev, parent.st_ino, path.name), flag)
        if other != flag:
            message = f"{other} and {flag} are the same file, {path}"
            raise ConfigError(message, hint="give each a name of its own")


def write_files(args: argparse.Namespace, settings: LoadTestSettings, performed: Performed) -> None:
    """Writes whatever can be written.

    Raises:
        StoreError: something could not; the message names every such place.
    """
    troubles: list[StoreError] = []
    for write in _writers(given_files(args), settings, performed):
        try:
            write()
        except StoreError as error:
            troubles.append(error)
    if troubles:
        hints = dict.fromkeys(error.hint for error in troubles if error.hint)
        raise StoreError(
            "\n".join(error.message for error in troubles),
            hint="; ".join(hints) or None,
            code=troubles[0].code,
        )


def _writers(
    files: Mapping[str, Path], settings: LoadTestSettings, performed: Performed
) -> Iterator[Callable[[], None]]:
    from seatrial.loadtest import exports

    for flag, path in files.items():
        match flag:
            case "--hdr":
                yield partial(exports.write_hdr, path, performed)
            case "--k6":
                yield partial(exports.write_k6, path, performed, settings.target.protocol)
            case "--parquet":
                yield partial(exports.write_requests, path, performed)
            case _:
                yield partial(_write_directory, path, performed)


def _write_directory(path: Path, performed: Performed) -> None:
    from seatrial.loadtest import exports
    from seatrial.report.load_page import PAGE, render_load_page

    page = render_load_page(performed.result)
    exports.write_directory(path, performed, pages={PAGE: page})
