"""Filters such as "view == 'A4C' and EF < 40": a small grammar of comparisons, read safely and answered column-wise."""

from __future__ import annotations

import ast
import keyword
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from panecho_embed.core.arraytypes import Bools
from panecho_embed.core.errors import ArgumentError
from panecho_embed.core.wording import nearest

Columns = Mapping[str, npt.NDArray[Any]]

MAX_LENGTH = 1000
"""Characters in a filter; it may come from a request."""

_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: np.less,
    ast.LtE: np.less_equal,
    ast.Gt: np.greater,
    ast.GtE: np.greater_equal,
    ast.Eq: np.equal,
    ast.NotEq: np.not_equal,
}
_WORDS = re.compile(r"`([^`]+)`|'[^']*'|\"[^\"]*\"|\b[^\W\d]\w*")
_COMPARISON = re.compile(r"\s*([=!<>]|(in|not|is)\b)")
_GRAMMAR = frozenset({"and", "or", "not", "in", "is", "None", "True", "False"})
_HINTS = {
    r"[^=<>!]=[^=]": "equality is ==",
    r"&": "'and' joins, not &",
    r"\|": "'or' joins, not |",
    r"\b(?!and\b|or\b|not\b|in\b|is\b)(?i:and|or|not|in|is)\b": "and, or, not, in and is are written small",
    r"!(?!=)|~": "'not' turns a comparison round",
}
_ALLOWED = (
    "allowed are comparisons of a column with a number, a text or None (==, !=, <, <=, >, >=, in, not in, is None), "
    "joined by and, or, not and brackets, names of several words in backticks: \"view == 'A4C' and `LV mass` < 200\" "
    "(--where)"
)


def matches(where: str, columns: Columns) -> Bools:
    """Which rows a filter picks, (N,) bool.

    where: comparisons of columns with numbers, 'texts', lists of them (`view in ['A4C', 'A2C']`) or None, joined by
    and, or, not and brackets; `30 < EF <= 40` works. A column needs `backticks` whose name is no plain word, or one
    of those that join comparisons; `class` and Python's other words need none.
    columns: name -> (N,) numbers (NaN where missing) or str objects ("" where missing). A missing value is None and
    matches no other comparison. Raises ArgumentError, with the nearest name where a column is unknown.
    """
    return _Filter(where, columns).mask()


class _Filter:
    def __init__(self, where: str, columns: Columns) -> None:
        self._where = where
        self._columns = columns
        self._aliases: dict[str, str] = {}

    def mask(self) -> Bools:
        if not self._where.strip():
            raise ArgumentError(f"the filter is empty; {_ALLOWED}")
        if len(self._where) > MAX_LENGTH:
            raise ArgumentError(
                f"the filter has {len(self._where)} characters; at most {MAX_LENGTH} are read (--where)"
            )
        try:
            tree = ast.parse(_WORDS.sub(self._alias, self._where).strip(), mode="eval")
            return self._test(tree.body)
        except SyntaxError as error:
            place = f"near character {error.offset or 1} ({error.msg}){self._hint()}"
            raise ArgumentError(f"the filter {self._where!r} can't be read {place}; {_ALLOWED}") from error
        except (ValueError, RecursionError, MemoryError) as error:
            if isinstance(error, ArgumentError):
                raise
            raise ArgumentError(f"the filter {self._where!r} can't be read; {_ALLOWED}") from error

    def _alias(self, match: re.Match[str]) -> str:
        """Names in backticks, and keywords in a column's place, become names that no column has; all else stays."""
        word = match[1] or match[0]
        if match[1] is None and not (keyword.iskeyword(word) and word not in _GRAMMAR and self._is_compared(match)):
            return match[0]
        alias = f"__column_{len(self._aliases)}"
        self._aliases[alias] = word
        return f" {alias} "

    def _is_compared(self, match: re.Match[str]) -> bool:
        return match[0] in self._columns or bool(_COMPARISON.match(match.string, match.end()))

    def _test(self, node: ast.expr) -> Bools:
        if isinstance(node, ast.BoolOp):
            join = np.logical_and if isinstance(node.op, ast.And) else np.logical_or
            parts = [self._test(value) for value in node.values]
            whole: Bools = join.reduce(parts)
            return whole
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self._test(node.operand)
        if isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            parts = [
                self._compare(left, op, right)
                for left, op, right in zip(operands[:-1], node.ops, operands[1:], strict=True)
            ]
            joined: Bools = np.logical_and.reduce(parts)
            return joined
        raise self._refused(node)

    def _compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> Bools:
        if isinstance(right, ast.Name) and not isinstance(left, ast.Name) and type(op) in _ORDER:
            turned = {ast.Lt: ast.Gt, ast.LtE: ast.GtE, ast.Gt: ast.Lt, ast.GtE: ast.LtE}
            return self._compare(right, turned.get(type(op), type(op))(), left)
        if not isinstance(left, ast.Name):
            raise self._refused(left)
        name = self._aliases.get(left.id, left.id)
        column = self._column(name)
        there: Bools = np.asarray(~np.isnan(column) if _is_number(column) else column != "", dtype=np.bool_)
        value = self._value(right, name)
        if value is None and isinstance(op, ast.Is | ast.Eq):
            return ~there
        if value is None and isinstance(op, ast.IsNot | ast.NotEq):
            return there
        if isinstance(op, ast.In | ast.NotIn) and isinstance(value, list):
            inside = np.logical_or.reduce([column == self._typed(one, column, name) for one in value])
            return there & np.asarray(inside if isinstance(op, ast.In) else ~inside, dtype=np.bool_)
        if type(op) not in _ORDER or value is None or isinstance(value, list):
            raise self._refused(right)
        return there & np.asarray(_ORDER[type(op)](column, self._typed(value, column, name)), dtype=np.bool_)

    def _column(self, name: str) -> npt.NDArray[Any]:
        if name not in self._columns:
            raise ArgumentError(
                f"the filter names {name!r}, which is no column{nearest(name, self._columns)}; "
                f"there are {', '.join(self._columns)} (--where; texts stand in quotes, 'A4C')"
            )
        return self._columns[name]

    def _value(self, node: ast.expr, column: str) -> Any:
        if isinstance(node, ast.Name):
            raise ArgumentError(
                f"the filter compares {column} with {self._aliases.get(node.id, node.id)}; a text stands in quotes, "
                f"{self._aliases.get(node.id, node.id)!r}, and two columns can't be compared (--where)"
            )
        try:
            value = ast.literal_eval(node)
        except (ValueError, TypeError, SyntaxError) as error:
            raise self._refused(node) from error
        if isinstance(value, tuple | set | list):
            if not value:
                raise self._refused(node)
            value = list(value)
        for one in value if isinstance(value, list) else [value]:
            if not isinstance(one, int | float | str | None):
                raise self._refused(node)
        return value

    def _typed(self, value: Any, column: npt.NDArray[Any], name: str) -> Any:
        if _is_number(column) and isinstance(value, int | float):
            try:
                return float(value)
            except OverflowError:
                return np.inf if value > 0 else -np.inf
        if isinstance(value, str) and not _is_number(column):
            return value
        kind = "numbers" if _is_number(column) else "texts"
        raise ArgumentError(f"the filter compares {name}, which holds {kind}, with {value!r} (--where)")

    def _refused(self, node: ast.AST) -> ArgumentError:
        part = ast.unparse(node)
        for alias, name in self._aliases.items():
            part = part.replace(alias, f"`{name}`")
        return ArgumentError(f"the filter {self._where!r} can't be read at {part!r}{self._hint()}; {_ALLOWED}")

    def _hint(self) -> str:
        """What is often written in place of the grammar."""
        plain = re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"", " ", self._where)
        return "".join(f"; {meant}" for pattern, meant in _HINTS.items() if re.search(pattern, plain))


def _is_number(column: npt.NDArray[Any]) -> bool:
    return column.dtype.kind == "f"
