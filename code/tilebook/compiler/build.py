"""From the syntax tree to operations: statements, expressions, and loops that carry."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from tilebook.compiler import intrinsics, types
from tilebook.compiler.emit import Emitter, Mismatch, Number, describe
from tilebook.compiler.language import Intrinsic
from tilebook.compiler.ssa import Block, Function, Value
from tilebook.compiler.syntax import CompileError, Program
from tilebook.compiler.types import Pointer, Scalar, Type, i32, i64

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
class _Lost:
    """A name that has no value after a loop."""

    line: int


def lower(
    program: Program,
    arguments: Mapping[str, Type | Number],
    aligned: Iterable[str] = (),
) -> Function:
    """Lower a program for given types and constants.

    Args:
        program: made by @program.
        arguments: for each parameter its type, if it is known at a launch only, or the
            number it is.
        aligned: names of arguments that are multiples of 16, for wide loads.

    Returns:
        Its operations.

    Raises:
        CompileError: it isn't of the language, or its types don't fit.
        TypeError: an argument is missing, or there is none of a name.
    """
    names = program.parameters
    if set(arguments) != set(names):
        raise TypeError(
            f"{program.name} takes {', '.join(names)}, got {', '.join(arguments)}"
        )
    parameters = tuple(
        Value(arguments[name], name)
        for name in names
        if isinstance(arguments[name], Type)
    )
    if extra := set(aligned) - {value.name for value in parameters}:
        raise TypeError(f"aligned names no argument: {', '.join(sorted(extra))}")
    lowering = _Lowering(program)
    lowering.variables = {**arguments, **{value.name: value for value in parameters}}
    with lowering.emit.block() as ops:
        lowering.statements(program.tree.body)
        lowering.emit.op("tt.return", ())
    return Function(
        program.name,
        program.file,
        program.place(program.tree),
        parameters,
        frozenset(aligned),
        Block((), tuple(ops)),
    )


class _Lowering:
    """The state of lowering one program: the names, and where operations go."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.emit = Emitter(program.place(program.tree))
        self.variables: dict[str, Any] = {}

    def statements(self, body: list[ast.stmt]) -> None:
        for node in body:
            self.emit.hint = ""
            self.statement(node)

    def statement(self, node: ast.stmt) -> None:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                self.emit.hint = name
                self.variables[name] = self.operand(value)
            case ast.AugAssign(target=ast.Name(id=name) as target, op=op, value=value):
                self.emit.hint = name
                read = ast.copy_location(ast.Name(name, ast.Load()), target)
                self.variables[name] = self.expression(
                    ast.copy_location(ast.BinOp(read, op, value), node)
                )
            case ast.For():
                self.loop(node)
            case ast.Expr(value=ast.Call()):
                self.expression(node.value)
            case ast.Expr(value=ast.Constant(value=str())) | ast.Pass():
                pass
            case ast.Assign():
                raise self.program.error(
                    node.targets[0], "one name is assigned at a time: NAME = VALUE"
                )
            case _:
                raise self.unsupported(node)

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
        if isinstance(found, _Lost):
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

    def loop(self, node: ast.For) -> None:
        """Lower a loop.

        Names that have a value before the loop and get another in it are carried: each
        is an argument of the loop's body, what the body yields for the next round, and
        a result of the loop. Others that are set in it are gone after it.
        """
        variable, bounds, step = self._header(node)
        written = _written(node.body)
        carried = [
            name
            for name in self.variables
            if name in written
            and name != variable
            and isinstance(self.variables[name], Value | Number)
        ]
        before = [self._carry(node, name) for name in carried]
        kinds = tuple(value.type for value in before)
        inside = [Value(kind, name) for kind, name in zip(kinds, carried, strict=True)]
        index = Value(bounds[0].type, variable)
        outer = self.variables
        self.variables = outer | dict(zip(carried, inside, strict=True))
        self.variables[variable] = index
        with self.emit.block() as ops:
            self.statements(node.body)
            after = [
                self._yielded(node, name, kind)
                for name, kind in zip(carried, kinds, strict=True)
            ]
            self.emit.place = self.program.place(node)
            self.emit.op("scf.yield", tuple(after))
        body = Block((index, *inside), tuple(ops))
        self.emit.place = self.program.place(node)
        results = self.emit.op("scf.for", (*bounds, step, *before), kinds, body)
        self.variables = outer | dict(zip(carried, results, strict=True))
        for name in (written | {variable}) - set(carried):
            self.variables[name] = _Lost(node.lineno)

    def _header(self, node: ast.For) -> tuple[str, list[Value], Value]:
        match node:
            case ast.For(
                target=ast.Name(id=variable),
                iter=ast.Call(func=ast.Name(id="range"), args=args, keywords=[]),
                orelse=[],
            ) if 1 <= len(args) <= 3:
                pass
            case _:
                raise self.program.error(
                    node, "a loop is `for NAME in range(...):`, without else"
                )
        given = [self.operand(x) for x in args]
        start, stop, step = (0, given[0], 1) if len(given) == 1 else (*given, 1)[:3]
        if isinstance(step, bool) or not isinstance(step, int) or step < 1:
            raise self.program.error(node.iter, "range's step is a constant above 0")
        self.emit.place = self.program.place(node.iter)
        try:
            bounds = [self.emit.value(x, i32) for x in (start, stop)]
        except Mismatch as error:
            raise self.program.error(node.iter, str(error)) from None
        kinds = {value.type for value in bounds}
        if not kinds <= {i32, i64}:
            raise self.program.error(
                node.iter, f"range takes i32 or i64, got {', '.join(map(str, kinds))}"
            )
        kind = i64 if i64 in kinds else i32
        bounds = [self.emit.cast(value, kind) for value in bounds]
        return variable, bounds, self.emit.constant(step, kind)

    def _carry(self, node: ast.For, name: str) -> Value:
        self.emit.hint, self.emit.place = name, self.program.place(node)
        return self.emit.value(self.variables[name])

    def _yielded(self, node: ast.For, name: str, kind: Type) -> Value:
        self.emit.hint, self.emit.place = name, self.program.place(node)
        value = self.variables[name]
        if isinstance(value, Number) and isinstance(kind, Scalar):
            value = self.emit.cast(value, kind)
        if not isinstance(value, Value) or value.type != kind:
            raise self.program.error(
                node,
                f"{name} is {kind} before the loop and {describe(value)} after a "
                "round of it: types stay the same",
            )
        return value


def _written(body: list[ast.stmt]) -> set[str]:
    """Return the names that statements assign, those in loops inside too."""
    return {
        node.id
        for statement in body
        for node in ast.walk(statement)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
