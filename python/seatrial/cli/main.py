"""Entry point of ``seatrial``: finds the command, runs it, and turns errors into exit codes.

Only the module of the chosen command is imported, so ``seatrial --help`` answers at once.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import keyword
import os
import re
import sys
import tempfile
import traceback
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, Protocol, cast

from seatrial.cli import output
from seatrial.errors import ExitCode, SeatrialError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

# {command: what it does}. The module of a command is seatrial.cli.<command>, unless Python keeps
# the word for itself: then it ends with an underscore.
COMMANDS: Final[Mapping[str, str]] = {
    "run": "run an experiment: a preset or a TOML file",
    "plan": "show what would run, in which order, for how long",
    "load": "offer load to any service, and judge what it answered",
    "agent": "offer a part of a load, as a coordinator says",
    "serve": "run a synthetic server here: echo, rpc, http or grpc",
    "report": "make the page, tables and figures of a run",
    "compare": "compare two runs: faster, slower, alike or unresolved",
    "doctor": "say what this machine can measure, what not, why, and how to fix it",
    "list": "list drivers, benches, metrics and presets",
    "import": "read the log of another tool: lancet, mitosis, rund",
    "clean": "remove what killed runs left behind",
}

# As a shell reports a process that was ended by SIGPIPE.
EXIT_OUTPUT_CLOSED: Final = 141

#: A number below 0, with whatever unit.
NEGATIVE: Final = re.compile(r"-\.?[0-9]")

EPILOG: Final = """\
exit codes: 0 ok, 1 a finding or a regression, 2 usage or configuration, 3 environment,
4 internal error, 130 interrupted
"""


class Command(Protocol):
    """What the module of a command offers."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declare its options."""

    def execute(self, args: argparse.Namespace) -> int:
        """Do it, and give the exit code."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line, not everything that could have been right."""

    _words: Sequence[str] = ()

    def parse_known_args(  # type: ignore[override]  # the overloads say how namespaces of other types go
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Reads a command line in which a value may be a negative number with a unit."""
        self._words = self._with_values(sys.argv[1:] if args is None else args)
        return super().parse_known_args(self._words, namespace)

    def _with_values(self, words: Sequence[str]) -> list[str]:
        """Ties values such as -5/s to their option: argparse takes all but bare numbers for others.

        So it is the option itself that says what is wrong with a value, or that nothing is.
        """
        tied: list[str] = []
        for word in words:
            before = tied[-1] if tied else ""
            if NEGATIVE.match(word) and "--" not in tied and self._takes_value(before):
                tied[-1] = f"{before}={word}"
            else:
                tied.append(word)
        return tied

    def _takes_value(self, word: str) -> bool:
        action = self._option_string_actions.get(word)
        return action is not None and action.nargs is None

    def error(self, message: str) -> NoReturn:
        """Ends with what was wrong and where to look."""
        output.error(self._plain(message), f"see `{self.prog} --help`")
        raise SystemExit(ExitCode.USAGE)

    def _plain(self, message: str) -> str:
        """What argparse says, in the words of all other errors: what was given, what expected."""
        if message.startswith("argument "):
            name, _, said = message.removeprefix("argument ").partition(": ")
            message = f"{name}: {said}"
            if said == "expected one argument":
                action = next(one for one in self._actions if "/".join(one.option_strings) == name)
                return self._without_value(action, name)
        message = re.sub(r"invalid int value: (.*)", r"got \1; expected a whole number", message)
        return re.sub(
            r"invalid choice: (.*) \(choose from (.*)\)", r"got \1; expected one of \2", message
        )

    def _without_value(self, action: argparse.Action, name: str) -> str:
        """Says what was expected, and what stands in its place and looks like an option."""
        expected = f"expected {name} {action.metavar or action.dest.upper()}"
        for word, after in pairwise(self._words):
            is_taken = after.startswith("-") and after.partition("=")[0] not in self.options
            if word in action.option_strings and is_taken:
                return (
                    f"{name}: no value, because {after} reads as an option; {expected} (a value "
                    f"that begins with - is written {word}={after})"
                )
        return f"{name}: no value; {expected}"

    @property
    def options(self) -> list[str]:
        """The long options."""
        known = [text for action in self._actions for text in action.option_strings]
        return [text for text in known if text.startswith("--")]


def console() -> NoReturn:
    """Run the command line of this process and exit with its code."""
    sys.exit(main(sys.argv[1:]))


def main(argv: Sequence[str]) -> int:
    """Run a command line and give the exit code; never raises but for argparse's exits."""
    try:
        code = _run(argv)
        output.flush()
    except output.OutputClosed:
        output.abandon_stdout()
        return EXIT_OUTPUT_CLOSED
    return code


def _run(argv: Sequence[str]) -> int:
    shows_traceback = "--traceback" in argv
    try:
        args = _parse(argv)
        return _command(args.command).execute(args)
    except output.OutputClosed:
        raise
    except KeyboardInterrupt:
        output.talk("interrupted")
        return ExitCode.INTERRUPTED
    except SeatrialError as error:
        if shows_traceback:
            output.talk(traceback.format_exc())
        output.error(error.message, error.hint)
        return error.exit_code
    except Exception as error:  # noqa: BLE001 - the last line of defence; nothing is hidden
        _report_bug(error, shows_traceback=shows_traceback)
        return ExitCode.INTERNAL


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = Parser(
        prog="seatrial",
        description="Benchmarks and load-tests container sandboxes.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    _add_traceback(parser, default=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    chosen = next((word for word in argv if not word.startswith("-")), None)
    for name, text in COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False
        )
        _add_traceback(command, default=argparse.SUPPRESS)
        if name == chosen:
            _command(name).add_arguments(command)
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        _refuse(unknown, commands.choices.get(args.command) or parser)
    if args.version:
        output.data(f"seatrial {_version()}")
        raise SystemExit(ExitCode.OK)
    if args.command is None:
        parser.print_help(sys.stderr)
        raise SystemExit(ExitCode.USAGE)
    return args


def _refuse(unknown: Sequence[str], parser: Parser) -> NoReturn:
    """Names what nobody knows, and what may have been meant."""
    told = []
    options = [word for word in unknown if word.startswith("-")]
    for word in options or unknown:
        close = difflib.get_close_matches(word.partition("=")[0], parser.options, n=1)
        told.append(f"{word} (did you mean {close[0]}?)" if close else word)
    what = "option" if options else "argument"
    parser.error(f"unknown {what} {', '.join(told)}")


def _add_traceback(parser: argparse.ArgumentParser, *, default: object) -> None:
    parser.add_argument(
        "--traceback",
        action="store_true",
        default=default,
        help="with an error, print where in the program it happened",
    )


def _command(name: str) -> Command:
    module = f"{name}_" if keyword.iskeyword(name) else name
    return cast("Command", importlib.import_module(f"seatrial.cli.{module}"))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("seatrial")
    except PackageNotFoundError:
        return "(not installed)"


def _report_bug(error: Exception, *, shows_traceback: bool) -> None:
    text = "".join(traceback.format_exception(error))
    if shows_traceback:
        output.talk(text)
    # The first line only: some libraries put pages into their messages.
    first = (str(error).splitlines() or [""])[0]
    message = f"internal error: {type(error).__name__}: {first}".rstrip(": ")
    hint = "this is a bug in Seatrial; please report it"
    try:
        descriptor, name = tempfile.mkstemp(prefix="seatrial-traceback-", suffix=".txt")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        hint += f" with {Path(name)}"
    except OSError:
        hint += ", after running it again with --traceback"
    output.error(message, hint)


if __name__ == "__main__":
    console()
