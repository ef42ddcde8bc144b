"""The error tree: one class for each kind of trouble, each with an exit code and a stable slug.

A message says what failed, on which thing, with which value, and what was expected; the hint says
what to do about it. Library code raises these and never prints or exits; ``seatrial.cli.main`` is
the only place which turns them into text and an exit code.
"""

from collections.abc import Sequence
from enum import IntEnum
from typing import ClassVar


class ExitCode(IntEnum):
    """What the process returns to its shell."""

    OK = 0
    FINDING = 1
    USAGE = 2
    ENVIRONMENT = 3
    INTERNAL = 4
    INTERRUPTED = 130


class SeatrialError(Exception):
    """Seatrial could not do what was asked; every error it raises on purpose is one of these."""

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL
    default_code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str | None = None, code: str | None = None) -> None:
        """Keep the message, what to do about it, and a slug that programs may compare."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = self.default_code if code is None else code

    def __str__(self) -> str:
        """Give the message alone; the hint is printed on its own line by the command line."""
        return self.message


class ConfigError(SeatrialError):
    """What the user wrote (a file, a flag, a value) is not something Seatrial can act on."""

    exit_code = ExitCode.USAGE
    default_code = "config"


class UnitError(ConfigError, ValueError):
    """A text such as ``"250 ms"`` is not a quantity of the expected kind."""

    default_code = "unit"


class DriverUnavailable(SeatrialError):
    """The runtime that a driver needs is missing on this machine, or does not work here."""

    exit_code = ExitCode.ENVIRONMENT
    default_code = "driver-unavailable"


class DriverError(SeatrialError):
    """A runtime that works in principle failed at something we asked of it."""

    exit_code = ExitCode.ENVIRONMENT
    default_code = "driver"


class TrialFailed(SeatrialError):
    """A trial could not be completed; the run goes on with the next one."""

    exit_code = ExitCode.FINDING
    default_code = "trial-failed"


class NoRoom(SeatrialError):
    """The host cannot take what a trial asks for; it is refused before anything is started."""

    exit_code = ExitCode.ENVIRONMENT
    default_code = "no-room"


class StoreError(SeatrialError):
    """A run directory cannot be written, read or understood."""

    exit_code = ExitCode.ENVIRONMENT
    default_code = "store"


class ProtocolMismatch(SeatrialError):
    """Two of our own parts do not speak the same version of a protocol."""

    exit_code = ExitCode.INTERNAL
    default_code = "protocol-mismatch"


class EnvironmentTrouble(SeatrialError):
    """The machine lacks something that is needed: a right, a file, a controller, a tool."""

    exit_code = ExitCode.ENVIRONMENT
    default_code = "environment"


class ProcessFailed(EnvironmentTrouble):
    """A child process could not be started, failed, or had to be killed."""

    default_code = "process"

    def __init__(
        self,
        message: str,
        *,
        argv: Sequence[str],
        exit_code_of_child: int | None = None,
        stderr_tail: str = "",
        hint: str | None = None,
        code: str | None = None,
    ) -> None:
        """Keep the command, how it ended (None: it did not end by itself) and its last words."""
        super().__init__(message, hint=hint, code=code)
        self.argv = tuple(argv)
        self.exit_code_of_child = exit_code_of_child
        self.stderr_tail = stderr_tail
