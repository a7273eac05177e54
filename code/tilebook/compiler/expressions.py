"""From expressions to operations: names, arithmetic, indices of None, calls."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tilebook.compiler import intrinsics, types
from tilebook.compiler.emit import Emitter, Mismatch, describe
from tilebook.compiler.language import Intrinsic
from tilebook.compiler.ssa import Value
from tilebook.compiler.syntax import CompileError, Program
from tilebook.compiler.types import Pointer, Scalar

SYMBOLS = {
    **{ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//"},
    **{ast.Mod: "%", ast.BitAnd: "&", ast.BitOr: "|", ast.BitXor: "^"},
    **{ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "=="},
    ast.NotEq: "!=",
}
INSTEAD: dict[type, str] = {
    ast.If: "only for loops over range() branch; use a mask, or where()",
    ast.While: "only for loops over range() are allowed",
    ast.IfExp: "use where(condition, x, y)",
    ast.BoolOp: "use & and | on comparisons, each in parentheses",
    ast.Not: "use ~",
    ast.Pow: "multiply, or use exp2()",
    ast.List: "a shape is a tuple of constants",
    ast.Return: "a program returns nothing; it stores what it makes",
    ast.Break: "a loop runs to its end; use a mask",
    ast.Continue: "a loop runs to its end; use a mask",
    ast.AnnAssign: "write NAME = VALUE; types follow from the operands",
}


@dataclass(frozen=True)
class _Method:
    """`.to` of a value, on its way to be called."""

    of: Value


@dataclass(frozen=True)
class Lost:
    """A name that has no value after a loop."""

    line: int


class Expressions:
    """The state of lowering one program: the names, and where operations go."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.emit = Emitter(program.place(program.tree))
        self.variables: dict[str, Any] = {}

    def unsupported(self, node: ast.AST, kind: ast.AST | None = None) -> CompileError:
        kind = type(kind or node)
        allowed = INSTEAD.get(
            kind, "allowed are assignments, calls, arithmetic and for loops"
        )
        return self.program.error(node, f"{kind.__name__} isn't supported: {allowed}")

    def operand(self, node: ast.expr) -> Any:
        """Lower an expression that has a value."""
        found = self.expression(node)
        if found is None and not isinstance(node, ast.Constant):
            raise self.program.error(node, "this call makes no value")
        return found

    def expression(self, node: ast.expr) -> Any:
        try:
            return self._expression(node)
        except Mismatch as error:
            raise self.program.error(node, str(error)) from None

    def _expression(self, node: ast.expr) -> Any:
        match node:
            case ast.Constant(value=None | bool() | int() | float() as value):
                return value
            case ast.Name(id=name):
                return self.name(node, name)
            case ast.Tuple(elts=elements):
                return tuple(self.operand(x) for x in elements)
            case ast.BinOp(left=left, op=op, right=right):
                return self.binary(node, left, op, right)
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                return self.binary(node, left, op, right)
            case ast.Compare():
                raise self.program.error(node, "compare twice, and join with &")
            case ast.UnaryOp(op=ast.USub(), operand=x):
                x = self.operand(x)
                self.emit.place = self.program.place(node)
                return self.emit.negate(x)
            case ast.UnaryOp(op=ast.Invert(), operand=x):
                x = self.operand(x)
                self.emit.place = self.program.place(node)
                return self.emit.invert(x)
            case ast.UnaryOp(op=op):
                raise self.unsupported(node, op)
            case ast.Subscript(value=value, slice=where):
                return self.subscript(node, self.operand(value), where)
            case ast.Attribute(value=value, attr=attribute):
                return self.attribute(node, self.expression(value), attribute)
            case ast.Call():
                return self.call(node)
            case _:
                raise self.unsupported(node)

    def name(self, node: ast.Name, name: str) -> Any:
        found = self.variables.get(name, self.program.names.get(name))
        if isinstance(found, Lost):
            raise self.program.error(
                node,
                f"{name} is set only in the loop of line {found.line}, which may run "
                "no time: give it a value before",
            )
        if name in self.variables or isinstance(found, Intrinsic | Scalar | ModuleType):
            return found
        if name in self.program.names:
            raise self.program.error(
                node, f"{name} is the module's: make it a parameter of the program"
            )
        raise self.program.error(node, f"{name} has no value here")

    def binary(
        self, node: ast.expr, left: ast.expr, op: ast.AST, right: ast.expr
    ) -> Any:
        """Lower two operands, then what joins them, at the place of the node."""
        if type(op) not in SYMBOLS:
            raise self.unsupported(node, op)
        a, b = self.operand(left), self.operand(right)
        self.emit.place = self.program.place(node)
        return self.emit.binary(SYMBOLS[type(op)], a, b)

    def subscript(self, node: ast.Subscript, value: Any, where: ast.expr) -> Value:
        entries = where.elts if isinstance(where, ast.Tuple) else [where]
        self.emit.place = self.program.place(node)
        kept = 0
        for axis, entry in enumerate(entries):
            match entry:
                case ast.Slice(lower=None, upper=None, step=None):
                    kept += 1
                case ast.Constant(value=None):
                    value = self.emit.expand(value, axis)
                case _:
                    raise self.program.error(
                        entry, "an index is : or None; tiles have no single entries"
                    )
        rank = len(types.shape(value.type)) if isinstance(value, Value) else 0
        if rank != len(entries):
            raise self.program.error(
                node, f"every axis needs its own colon: {describe(value)}"
            )
        return value

    def attribute(self, node: ast.Attribute, of: Any, attribute: str) -> Any:
        if isinstance(of, ModuleType):
            found = getattr(of, attribute, None)
            if isinstance(found, Intrinsic | Scalar | float):
                return found
            raise self.program.error(
                node, f"{of.__name__.rpartition('.')[2]} has no {attribute}"
            )
        if isinstance(of, Value) and attribute == "dtype":
            kind = types.element(of.type)
            return kind.element if isinstance(kind, Pointer) else kind
        if isinstance(of, Value) and attribute == "to":
            return _Method(of)
        raise self.program.error(
            node, f"values have .to(TYPE) and .dtype, not .{attribute}"
        )

    def call(self, node: ast.Call) -> Any:
        function = self.expression(node.func)
        if any(isinstance(x, ast.Starred) for x in node.args) or any(
            keyword.arg is None for keyword in node.keywords
        ):
            raise self.program.error(node, "* and ** aren't supported in a call")
        given = [self.operand(x) for x in node.args]
        named = {x.arg: self.operand(x.value) for x in node.keywords}
        self.emit.place = self.program.place(node)
        if isinstance(function, _Method):
            if len(given) != 1 or named or not isinstance(given[0], Scalar):
                raise Mismatch("to() takes one type, such as f32")
            return self.emit.cast(function.of, given[0])
        if not isinstance(function, Intrinsic):
            raise self.program.error(
                node, f"{ast.unparse(node.func)} isn't of the language: see `language`"
            )
        try:
            bound = function.signature.bind(*given, **named)
        except TypeError as error:
            raise Mismatch(f"{function.name}{function.signature}: {error}") from None
        bound.apply_defaults()
        return intrinsics.LOWERING[function.name](self.emit, *bound.arguments.values())
