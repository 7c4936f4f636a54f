"""Small breakages of a module, by rule, on its syntax tree: what `proof/mutants.py` tries out.

A breakage is known by its meaning: the function it is in, the operator, and the statement before
and after. So it stays the same wherever its module is moved, and whatever else changes there.

Left alone are docstrings, annotations, defaults and decorators, assertions (for types only), what
is raised (whether it is raised is not), texts with blanks in them, `__repr__`, `__slots__`, and
whatever is not executed, or need not be: `if TYPE_CHECKING` and `pragma: no cover`.
"""

from __future__ import annotations
import __future__

import ast
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from textwrap import indent
from types import CodeType
from typing import Any

Tree = Any  # an ast.AST: the fields depend on its type
Functions = (ast.FunctionDef, ast.AsyncFunctionDef)


def _both(pairs: dict[Any, Any]) -> dict[Any, Any]:
    return pairs | {new: old for old, new in pairs.items()}


BOUNDARIES = _both({ast.Lt: ast.LtE, ast.Gt: ast.GtE})
NEGATIONS = _both({ast.Eq: ast.NotEq, ast.Is: ast.IsNot, ast.In: ast.NotIn})
ARITHMETIC = _both({ast.Add: ast.Sub, ast.BitOr: ast.BitAnd})
TWINS = _both({"min": "max", "any": "all"})


def _with(node: Tree, **fields: object) -> Tree:
    new = copy(node)
    for name, value in fields.items():
        setattr(new, name, value)
    return new


def _without(many: Sequence[Tree], one: int) -> list[Tree]:
    return [*many[:one], *many[one + 1 :]]


def _is_droppable(node: Tree) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.AnnAssign(value=None):
            return False
        case ast.Return():
            return node.value is None
    return isinstance(
        node, ast.Expr | ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Delete | ast.Raise
    )


# --- The operators: what a node may become -------------------------------------------------------


def drop_statement(node: Tree) -> Iterator[Tree]:
    if _is_droppable(node):
        yield ast.Pass()


def decide(node: Tree) -> Iterator[Tree]:
    """A condition is never, or always, true."""
    match node:
        case ast.If() | ast.While() | ast.IfExp() if not isinstance(node.test, ast.Constant):
            either = isinstance(node.test, ast.BoolOp) and type(node.test.op)
            body = node.body if isinstance(node, ast.If) and not node.orelse else []
            if either is not ast.Or and [*map(_is_droppable, body)] != [True]:
                yield _with(node, test=ast.Constant(False))
            if either is not ast.And and not isinstance(node, ast.While):
                yield _with(node, test=ast.Constant(True))
        case ast.comprehension():
            for number in range(len(node.ifs)):
                yield _with(node, ifs=_without(node.ifs, number))


def drop_operand(node: Tree) -> Iterator[Tree]:
    """Of `and` and `or`."""
    if isinstance(node, ast.BoolOp):
        for number in range(len(node.values)):
            rest = _without(node.values, number)
            yield _with(node, values=rest) if len(rest) > 1 else rest[0]


def move_boundary(node: Tree) -> Iterator[Tree]:
    if isinstance(node, ast.Compare):
        for number, op in enumerate(node.ops):
            if swap := BOUNDARIES.get(type(op)):
                yield _with(node, ops=[*node.ops[:number], swap(), *node.ops[number + 1 :]])


def negate(node: Tree) -> Iterator[Tree]:
    match node:
        case ast.Compare(ops=[op]) if swap := NEGATIONS.get(type(op)):
            yield _with(node, ops=[swap()])
        case ast.UnaryOp(op=ast.Not()):
            yield node.operand


def change_constant(node: Tree) -> Iterator[Tree]:
    match node:
        case ast.Constant(value=bool(value)):
            yield _with(node, value=not value)
        case ast.Constant(value=int(value)) if value < 10:  # larger ones are only a measure
            yield _with(node, value=value + 1)
        case ast.Constant(value=str(value)) if not any(map(str.isspace, value)):
            yield _with(node, value="" if value else "x")
        case ast.Constant(value=bytes(value)):
            yield _with(node, value=b"" if value else b"x")


def drop_finally(node: Tree) -> Iterator[Tree]:
    body = node.finalbody if isinstance(node, ast.Try) else []
    if len(body) > 1 or (body and not _is_droppable(body[0])):
        yield _with(node, finalbody=[ast.Pass()])


def drop_handler(node: Tree) -> Iterator[Tree]:
    if isinstance(node, ast.ExceptHandler):
        yield _with(node, body=[ast.Raise()])


def drop_context(node: Tree) -> Iterator[Tree]:
    """Of a lock, or of what suppresses exceptions."""
    if isinstance(node, ast.With | ast.AsyncWith):
        for number, item in enumerate(node.items):
            rest = _without(node.items, number)
            if item.optional_vars is None:
                yield _with(node, items=rest) if rest else ast.If(ast.Constant(True), node.body, [])


def return_none(node: Tree) -> Iterator[Tree]:
    match node:
        case ast.Return(value=ast.Constant(value=None | bool())):
            pass
        case ast.Return(value=ast.expr()):
            yield _with(node, value=ast.Constant(None))


def swap_jump(node: Tree) -> Iterator[Tree]:
    if isinstance(node, ast.Break | ast.Continue):
        yield ast.Continue() if isinstance(node, ast.Break) else ast.Break()


def drop_keyword(node: Tree) -> Iterator[Tree]:
    if isinstance(node, ast.Call):
        for number in range(len(node.keywords)):
            yield _with(node, keywords=_without(node.keywords, number))


def swap_twin(node: Tree) -> Iterator[Tree]:
    """`min` and `max`, `any` and `all`, `+` and `-`, `|` and `&`; and a copy, with the original."""
    match node:
        case ast.Call(func=ast.Name(id=name)) if name in TWINS:
            yield _with(node, func=ast.Name(TWINS[name], ast.Load()))
        case ast.Call(func=ast.Attribute(value=value, attr="copy"), args=[], keywords=[]):
            yield value
        case ast.BinOp(left=ast.Constant(value=str()) | ast.JoinedStr()):
            pass
        case ast.BinOp(right=ast.Constant(value=str()) | ast.JoinedStr()):
            pass
        case ast.BinOp() | ast.AugAssign() if swap := ARITHMETIC.get(type(node.op)):
            yield _with(node, op=swap())


OPERATORS: dict[str, Callable[[Tree], Iterator[Tree]]] = {
    each.__name__.replace("_", " "): each
    for each in (
        *(drop_statement, decide, drop_operand, move_boundary, negate, change_constant),
        *(drop_finally, drop_handler, drop_context, return_none, swap_jump, drop_keyword),
        swap_twin,
    )
}


# --- Applying them -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Breakage:
    """One breakage of one module."""

    path: str
    """Of the module, from the folder of sources."""
    function: str
    """Its qualified name; if it is outside of any, that of the class, or nothing."""
    operator: str
    before: str
    after: str
    """The statement, as `ast.unparse` gives it: the first of its lines that is not the same."""
    lines: range
    """A test that executes none of these cannot notice."""
    text: str
    """The whole module, broken."""
    target: tuple[str, int] | None
    """The qualified name and the first line of the outermost function that it is in."""
    code: CodeType | None
    """That function, broken; None if the module has to be imported afresh."""


def breakages(path: str, source: str) -> list[Breakage]:
    """All breakages of a module, but for those that compile to the same code as another."""
    return [each for unit in _units(path, source, ast.parse(source).body, ()) for each in unit]


def _units(
    path: str, source: str, body: list[Tree], classes: tuple[ast.ClassDef, ...]
) -> Iterator[Iterator[Breakage]]:
    """The functions, and the statements outside of them."""
    for node in body:
        match node:
            case ast.ClassDef():
                yield from _units(path, source, node.body, (*classes, node))
            case ast.Import() | ast.ImportFrom():
                pass
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar"))):
                pass
            case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]):
                pass
            case ast.FunctionDef(name="__repr__"):
                pass
            case _:
                yield _Unit(path, source, node, classes).broken()


class _Unit:
    """A function or method, or a statement outside of them, and its breakages."""

    def __init__(
        self, path: str, source: str, node: Tree, classes: tuple[ast.ClassDef, ...]
    ) -> None:
        self.path = path
        self.lines = source.splitlines()
        self.root = ast.Module([node], [])
        self.node = node
        self.classes = classes
        # Names that have another value, too: not to assign is no NameError then.
        stored = _stored(node)
        self.rebound = {name for name in stored if stored.count(name) > 1}
        for each in ast.walk(node):
            if isinstance(each, ast.Global | ast.Nonlocal):
                self.rebound.update(each.names)
            elif isinstance(each, ast.arg):
                self.rebound.add(each.arg)

    def broken(self) -> Iterator[Breakage]:
        original = self._code()
        seen = {_bare(original)}
        above = getattr(self.node, "decorator_list", None) or [self.node]
        first, last = above[0].lineno, self.node.end_lineno
        function = isinstance(self.node, Functions)
        for put, old, operator, new, statement, outer, inside in self._edits(self.root, None, []):
            whole = ast.unparse(statement).splitlines()
            put(ast.copy_location(new, old))
            try:
                ast.fix_missing_locations(self.root)
                code = self._code()
                if (bare := _bare(code)) in seen:
                    continue
                seen.add(bare)
                now = new if old is statement else statement
                pairs = zip(whole, ast.unparse(now).splitlines())
                before, after = next(map(str.strip, pair) for pair in pairs if pair[0] != pair[1])
                if before.isalpha() and outer is not None:  # `break` says too little
                    before = f"{ast.unparse(outer).splitlines()[0]} {before}"
                text = indent(ast.unparse(self.root.body[0]), " " * self.node.col_offset)
            except SyntaxError:  # this one breaks too much
                continue
            finally:
                put(old)
            swaps = function and code.co_freevars == original.co_freevars
            yield Breakage(
                path=self.path,
                function=".".join([*(each.name for each in self.classes), *inside]),
                operator=operator,
                before=before,
                after=after,
                lines=_lines(statement, operator),
                text="\n".join([*self.lines[: first - 1], text, *self.lines[last:]]),
                target=(original.co_qualname, original.co_firstlineno) if swaps else None,
                code=code if swaps else None,
            )

    def _edits(
        self, node: Tree, statement: Tree, inside: list[str]
    ) -> Iterator[tuple[Callable[[Tree], None], Tree, str, Tree, Tree, Tree, list[str]]]:
        """How to put in the place of a node, by which operator, what; and where that is.

        That is its statement, the one around that (of a statement as a whole), and its functions.
        """
        for child, put in _places(node):
            at = child if isinstance(child, ast.stmt | ast.ExceptHandler) else statement
            if at is child and self._is_left_alone(child):
                continue
            for name, operator in OPERATORS.items():
                if name == "drop statement" and not self.rebound.issuperset(_stored(child)):
                    continue
                if name == "negate" and _is_condition(node, child):
                    continue  # to decide it, or to drop it, is more
                if name == "change constant" and not self._is_changeable(node, child):
                    continue
                for new in operator(child):
                    yield put, child, name, new, at, statement if at is child else None, inside
            if not isinstance(child, ast.Raise):
                deeper = [*inside, child.name] if isinstance(child, Functions) else inside
                yield from self._edits(child, at, deeper)

    def _is_left_alone(self, node: Tree) -> bool:
        match node:
            case ast.Assert():
                return True
            case ast.Expr(value=ast.Constant()):
                return True
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return True
        return "pragma: no cover" in self.lines[node.lineno - 1]

    def _is_changeable(self, parent: Tree, node: Tree) -> bool:
        if isinstance(getattr(node, "value", None), str):
            return isinstance(self.node, Functions) and not isinstance(parent, ast.JoinedStr)
        return not isinstance(parent, ast.While)

    def _code(self) -> CodeType:
        """The compiled function; or the compiled module, of what is outside of functions."""
        tree = self.root
        for each in reversed(self.classes):
            tree = ast.Module([_with(each, body=tree.body, decorator_list=[])], [])
        flags = __future__.annotations.compiler_flag
        code: CodeType = compile(tree, self.path, "exec", flags, dont_inherit=True)
        if not isinstance(self.node, Functions):
            return code
        for name in (*(each.name for each in self.classes), self.node.name):
            inner = [each for each in code.co_consts if isinstance(each, CodeType)]
            [code] = [each for each in inner if each.co_name == name]
        return code


def _places(node: Tree) -> Iterator[tuple[Tree, Callable[[Tree], None]]]:
    """What is below `node`, with how to put something else in its place."""
    for field, value in ast.iter_fields(node):
        if isinstance(value, ast.arguments) or field in ("annotation", "decorator_list", "returns"):
            continue
        if isinstance(value, list):
            for number, each in enumerate(value):
                if isinstance(each, ast.AST):
                    yield each, partial(value.__setitem__, number)
        elif isinstance(value, ast.AST):
            yield value, partial(setattr, node, field)


def _is_condition(parent: Tree, node: Tree) -> bool:
    """Whether other operators decide `node`, or drop it."""
    if isinstance(parent, ast.UnaryOp):
        return isinstance(parent.op, ast.Not)
    if isinstance(parent, ast.BoolOp | ast.comprehension):
        return True
    return getattr(parent, "test", None) is node


def _stored(node: Tree) -> list[str]:
    return [
        each.id
        for each in ast.walk(node)
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
    ]


def _lines(statement: Tree, operator: str) -> range:
    """Those that are executed wherever the operator makes a difference."""
    body: list[Tree] = [statement]
    match statement:
        case ast.Try() if operator == "drop finally":
            body = statement.finalbody
        case ast.ExceptHandler():
            body = statement.body
        case ast.stmt() if hasattr(statement, "body"):
            return range(statement.lineno, max(statement.body[0].lineno, statement.lineno + 1))
    return range(body[0].lineno, body[-1].end_lineno + 1)


def _bare(code: CodeType) -> CodeType:
    """The same without its lines: equal if it does the same."""
    consts = [_bare(each) if isinstance(each, CodeType) else each for each in code.co_consts]
    return code.replace(co_firstlineno=1, co_linetable=b"", co_consts=tuple(consts))
