"""One-line changes of the code that decides about sales, each of which a test has to notice."""

from __future__ import annotations

import ast
import copy
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
HEART = (
    "gateway/domain/signing.py",
    "gateway/domain/ceiling.py",
    "gateway/fiscal",
    "gateway/store",
)
# Calls whose only effect is a line in a log.
_SILENT = ("log",)
_SWAPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}


@dataclass(frozen=True, slots=True)
class Mutant:
    """`old` at line and column of `path` becomes `new`, inside `function`."""

    path: str
    function: str
    line: int
    column: int
    old: str
    new: str

    @property
    def name(self) -> str:
        """Stays the same when lines above it move: what `equal.json` lists."""
        return f"{self.path}:{self.function}: {_short(self.old)} -> {_short(self.new)}"

    def apply(self, root: Path) -> None:
        file = root / self.path
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        start = sum(len(line) for line in lines[: self.line - 1]) + self.column
        text = "".join(lines)
        assert text[start : start + len(self.old)] == self.old, self.name
        file.write_text(text[:start] + self.new + text[start + len(self.old) :], encoding="utf-8")


def _short(text: str) -> str:
    return " ".join(text.split())[:120]


def files() -> list[Path]:
    found: list[Path] = []
    for place in HEART:
        path = ROOT / place
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return [path for path in found if path.name != "__init__.py"]


def all_mutants() -> list[Mutant]:
    """Every mutant of every file, in the order of the code."""
    return [mutant for path in files() for mutant in of_file(path)]


def sample(count: int, seed: int) -> list[Mutant]:
    """A seeded choice. The same code and seed give the same mutants."""
    everything = all_mutants()
    return random.Random(seed).sample(everything, min(count, len(everything)))


def of_file(path: Path) -> Iterator[Mutant]:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    yield from _walk(tree, text, str(path.relative_to(ROOT)), "")


def _walk(node: ast.AST, text: str, path: str, function: str) -> Iterator[Mutant]:
    decorators = getattr(node, "decorator_list", [])
    for child in ast.iter_child_nodes(node):
        if child in decorators or _is_left_out(child):
            continue
        name = function
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            name = f"{function}.{child.name}".lstrip(".")
        for old, new in _changes(child):
            segment = ast.get_source_segment(text, old)
            # A column counts bytes; where that is not the character, the place is left out.
            line = text.splitlines()[old.lineno - 1]
            if segment is not None and line.isascii() and name:
                yield Mutant(path, name, old.lineno, old.col_offset, segment, new)
        yield from _walk(child, text, path, name)


def _is_left_out(node: ast.AST) -> bool:
    if isinstance(node, (ast.Assert, ast.Import, ast.ImportFrom, ast.AnnAssign)) and not (
        isinstance(node, ast.AnnAssign) and node.value is not None
    ):
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True  # a docstring
    if isinstance(node, (ast.JoinedStr, ast.Raise)):
        return True  # words
    return isinstance(node, ast.Expr) and _called(node.value) in _SILENT


def _called(node: ast.AST) -> str:
    """The first name of what is called: `log` of `log.warning(...)`."""
    while isinstance(node, (ast.Call, ast.Attribute, ast.Await)):
        node = node.value if isinstance(node, (ast.Attribute, ast.Await)) else node.func
    return node.id if isinstance(node, ast.Name) else ""


def _changes(node: ast.AST) -> Iterator[tuple[ast.expr | ast.stmt, str]]:
    """(what is replaced, its replacement), for this node alone."""
    match node:
        case ast.Compare(ops=[op]) if type(op) in _SWAPPED:
            other = copy.copy(node)
            other.ops = [_SWAPPED[type(op)]()]
            yield node, _parens(other)
        case ast.BoolOp():
            other = copy.copy(node)
            other.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield node, _parens(other)
        case ast.UnaryOp(op=ast.Not()):
            yield node, _parens(node.operand)
        case ast.BinOp(op=ast.Add() | ast.Sub()) if not _is_text(node):
            other = copy.copy(node)
            other.op = ast.Sub() if isinstance(node.op, ast.Add) else ast.Add()
            yield node, _parens(other)
        case ast.Constant(value=bool(value)):
            yield node, str(not value)
        case ast.Constant(value=int(value)):
            yield node, str(value + 1)
        case ast.If() | ast.While() if not isinstance(
            node.test, (ast.Compare, ast.BoolOp, ast.Constant)
        ):
            yield node.test, f"(not ({ast.unparse(node.test)}))"
        case ast.Expr(value=ast.Call() | ast.Await()):
            yield node, "pass"
        case ast.Attribute(attr="write"):
            yield node, f"{ast.unparse(node.value)}.write_soft"
        case ast.Return(value=value) if value is not None and not isinstance(value, ast.Constant):
            yield node, "return None"


def _is_text(node: ast.BinOp) -> bool:
    sides = (node.left, node.right)
    return any(
        isinstance(s, (ast.JoinedStr, ast.List))
        or (isinstance(s, ast.Constant) and isinstance(s.value, str))
        for s in sides
    )


def _parens(node: ast.expr) -> str:
    return f"({ast.unparse(node)})"
