"""Python syntax that means one thing to Triton's compiler and another to Python.

The interpreter runs a kernel as Python after rewriting its source a little. There
`a and b` of two blocks would be just `b`, since a block counts as true; the compiler
combines them lane by lane. These rewrites make the interpreter do so too.
"""

import ast
from collections.abc import Callable
from typing import Any

import triton.language as tl

# The names by which rewritten kernels find the functions below.
BOTH, EITHER, NEGATION = "_tilebook_and", "_tilebook_or", "_tilebook_not"


def logical_and(*operands: Callable[[], Any]) -> Any:
    """What `a and b` is to the compiler; operands come unevaluated."""
    return _combine(operands, until=False, method="logical_and")


def logical_or(*operands: Callable[[], Any]) -> Any:
    """What `a or b` is to the compiler; operands come unevaluated."""
    return _combine(operands, until=True, method="logical_or")


def logical_not(operand: Any) -> Any:
    """What `not a` is to the compiler."""
    return operand.__not__() if isinstance(operand, tl.tensor) else not operand


def _combine(operands: tuple[Callable[[], Any], ...], until: bool, method: str) -> Any:
    result = value = None
    for evaluate in operands:
        value = evaluate()
        if not isinstance(value, tl.tensor):
            # Known when compiling: it decides everything or nothing.
            if bool(value) is until:
                return value
        elif result is None:
            result = value
        else:
            result = getattr(result, method)(value)
    return value if result is None else result


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.Name(name, ast.Load()), list(arguments), [])


def _unevaluated(value: ast.expr) -> ast.Lambda:
    nothing = ast.arguments(
        posonlyargs=[], args=[], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    return ast.Lambda(nothing, value)


def visit_bool_op(original: Callable | None) -> Callable:
    """Make the visitor for `and` and `or`."""

    def visit(self: ast.NodeTransformer, node: ast.BoolOp) -> ast.AST:
        self.generic_visit(node)
        if any(isinstance(part, ast.NamedExpr) for part in ast.walk(node)):
            return node  # an assignment inside a lambda would not leave it
        name = BOTH if isinstance(node.op, ast.And) else EITHER
        call = _call(name, *map(_unevaluated, node.values))
        return ast.copy_location(call, node)

    return visit


def visit_unary_op(original: Callable | None) -> Callable:
    """Make the visitor for `not`."""

    def visit(self: ast.NodeTransformer, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        if not isinstance(node.op, ast.Not):
            return node
        return ast.copy_location(_call(NEGATION, node.operand), node)

    return visit


def visit_compare(original: Callable | None) -> Callable:
    """Make the visitor for `a < b < c`, which Triton compiles from 3.9 on only."""
    if original is not None:
        return original

    def visit(self: ast.NodeTransformer, node: ast.Compare) -> ast.AST:
        if len(node.ops) > 1:
            raise ValueError(
                f"line {node.lineno}: this Triton compiles no chained comparison "
                f"({ast.unparse(node)}); write (a < b) & (b < c)"
            )
        return self.generic_visit(node)

    return visit


def visit_assign(original: Callable) -> Callable:
    """Make the visitor for assignments, which before 3.9 left their values alone."""

    def visit(self: ast.NodeTransformer, node: ast.Assign) -> ast.AST:
        if len(node.targets) > 1:
            raise ValueError("Multiple assignments are not supported")
        self.generic_visit(node)
        convert = ast.Attribute(
            ast.Name("interpreter_semantic", ast.Load()), "to_tensor", ast.Load()
        )
        node.value = ast.Call(convert, [node.value, ast.Constant(False)], [])
        return node

    return visit
