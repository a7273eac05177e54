"""From statements to operations, and loops that carry what they change."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping

from tilebook.compiler.emit import Mismatch, Number, describe
from tilebook.compiler.expressions import Expressions, Lost
from tilebook.compiler.ssa import Block, Function, Value
from tilebook.compiler.syntax import Program
from tilebook.compiler.types import Scalar, Type, i32, i64


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


class _Lowering(Expressions):
    """Statements, one after another."""

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
        self._check_carried(node, written - {*carried, variable})
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
        operands = (*bounds, step, *before)
        results = self.emit.op("scf.for", operands, kinds, body, carried)
        self.variables = outer | dict(zip(carried, results, strict=True))
        for name in (written | {variable}) - set(carried):
            self.variables[name] = Lost(node.lineno)

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
        kinds = [value.type for value in bounds]
        if not {i32, i64}.issuperset(kinds):
            raise self.program.error(
                node.iter, f"range takes i32 or i64, got {', '.join(map(str, kinds))}"
            )
        kind = i64 if i64 in kinds else i32
        bounds = [self.emit.cast(value, kind) for value in bounds]
        return variable, bounds, self.emit.constant(step, kind)

    def _check_carried(self, node: ast.For, others: set[str]) -> None:
        for name in sorted(others & set(self.variables)):
            if not isinstance(self.variables[name], Lost):
                raise self.program.error(
                    node, f"{name} can't change in a loop: only numbers and tiles can"
                )

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
