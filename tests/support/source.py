"""Reads the project's own source: files, functions, names. Used by the tidy test."""

from __future__ import annotations

import ast
import re
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Function:
    """A function and its extent, from its first decorator to its last line."""

    path: str
    name: str
    line: int
    lines_count: int
    positional_count: int

    @property
    def key(self) -> str:
        """How a ratchet list names it."""
        return f"{self.path}::{self.name}"


@cache
def files() -> tuple[str, ...]:
    """Paths of all files under version control, or about to be, relative to the root."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    return tuple(sorted({name for name in listed if (ROOT / name).is_file()}))


def files_with(*suffixes: str, under: str = "") -> list[str]:
    """Files by ending and folder."""
    return [name for name in files() if name.endswith(suffixes) and name.startswith(under)]


@cache
def text_of(path: str) -> str:
    """A file's text; empty for what is not text."""
    try:
        return (ROOT / path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


@cache
def tree_of(path: str) -> ast.Module:
    """A Python file's syntax tree."""
    return ast.parse(text_of(path), filename=path)


def python_functions(path: str) -> list[Function]:
    """Every function of a Python file, methods and nested ones too."""
    found = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            first = min([node.lineno, *(item.lineno for item in node.decorator_list)])
            names = [item.arg for item in (*node.args.posonlyargs, *node.args.args)]
            found.append(
                Function(
                    path=path,
                    name=node.name,
                    line=first,
                    lines_count=(node.end_lineno or first) - first + 1,
                    positional_count=len([name for name in names if name not in {"self", "cls"}]),
                )
            )
    return found


#: Comments, strings and characters of Rust, in the order in which they must be tried.
RUST_QUOTED = re.compile(
    r"""//[^\n]*|/\*.*?\*/|r(?P<hashes>\#*)".*?"(?P=hashes)|"(?:\\.|[^"\\])*"|'(?:\\[^']+|[^'\\])'""",
    re.DOTALL,
)


@cache
def rust_code(path: str) -> str:
    """A Rust file with comments and literals blanked and every line kept in its place."""
    return RUST_QUOTED.sub(lambda found: re.sub(r"[^\n]", " ", found[0]), text_of(path))


def rust_functions(path: str) -> list[Function]:
    """Every function of a Rust file that has a body; its end by matching braces."""
    code = rust_code(path)
    found = []
    for match in re.finditer(r"\bfn\s+(\w+)", code):
        opening = re.compile(r"[{;]").search(code, _end_of_arguments(code, match.end()))
        if opening is None or opening[0] == ";":
            continue
        end = _matching(code, opening.start(), "{}")
        first = code.count("\n", 0, match.start()) + 1
        last = code.count("\n", 0, end) + 1
        arguments = code[match.end() : _end_of_arguments(code, match.end())]
        found.append(
            Function(
                path=path,
                name=match[1],
                line=first,
                lines_count=last - first + 1,
                positional_count=_count_arguments(arguments),
            )
        )
    return found


def _end_of_arguments(code: str, start: int) -> int:
    """Where the argument list that follows `start` ends."""
    return _matching(code, code.index("(", start), "()")


def _matching(code: str, start: int, pair: str) -> int:
    """Position of the bracket that closes the one at `start`."""
    depth = 0
    for position in range(start, len(code)):
        if code[position] == pair[0]:
            depth += 1
        elif code[position] == pair[1]:
            depth -= 1
            if depth == 0:
                return position
    return len(code)


def _count_arguments(arguments: str) -> int:
    """Typed arguments at the outermost level of a Rust argument list (`self` has no type)."""
    depth, count = 0, 0
    inner = arguments[arguments.index("(") + 1 :]
    for position, sign in enumerate(inner):
        depth += (sign in "([{<") - (sign in ")]}" or (sign == ">" and inner[position - 1] != "-"))
        if (
            sign == ":"
            and depth == 0
            and ":" not in inner[position - 1 : position + 2].replace(":", "", 1)
        ):
            count += 1
    return count


def lines_of_one_concern(path: str) -> int:
    """Lines of a file, without the unit tests at the foot of a Rust file."""
    text = text_of(path)
    return re.split(r"^#\[cfg\(test\)\]\nmod tests \{", text, flags=re.MULTILINE)[0].count("\n")


def functions() -> list[Function]:
    """Every function of the project, in Python and in Rust."""
    found = [item for path in files_with(".py") for item in python_functions(path)]
    return found + [item for path in files_with(".rs") for item in rust_functions(path)]


def names_of(path: str) -> set[str]:
    """Identifiers that a file gives to values: variables, arguments, attributes, fields."""
    if path.endswith(".rs"):
        pattern = r"\b(?:let(?:\s+mut)?|fn|static|const)\s+(\w+)|\b(\w+)\s*:(?!:)"
        return {one or two for one, two in re.findall(pattern, rust_code(path))}
    found = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def calls_of(path: str) -> list[tuple[str, int]]:
    """Dotted names that a Python file calls, with their lines."""
    return [
        (ast.unparse(node.func), node.lineno)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute)
    ]
