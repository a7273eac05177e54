"""Programs that aren't of the language: each error has its line, column and advice."""

import ast
import dataclasses
import importlib.util
import itertools
import random
import re

import pytest

from tilebook import compiler
from tilebook.compiler import launching
from tilebook.compiler.types import Pointer, Tensor, f16, f32, i1, i32

HEAD = """\
import math
from math import pi
from tilebook.compiler import language as tile
from tilebook.compiler import program


@program
def wrong(p, q, n, x, SIDE):
    offs = tile.arange(0, 16)
"""
GIVEN = {"p": Pointer(f32), "q": Pointer(f16), "n": i32, "x": f32, "SIDE": 16}
# A body, what of it the error points to, and what it says.
WRONG = [
    ("if n > 3:\n    pass", "if", "If isn't supported.*use a mask, or where"),
    ("while n:\n    pass", "while", "While isn't supported.*only for loops"),
    ("y = n if x else n", "n if", r"use where\(condition"),
    ("y = (n > 1) and (n < 3)", "(n > 1", "BoolOp isn't supported: use & and |"),
    ("y = not n", "not", "Not isn't supported: use ~"),
    ("y = n ** 2", "n *", "Pow isn't supported: multiply"),
    ("y = 0 < n < 3", "0 <", "compare twice, and join with &"),
    ("y = n is x", "n is", "Is isn't supported"),
    ("y = [1, 2]", "[1", "List isn't supported: a shape is a tuple"),
    ("y = lambda: 0", "lambda", "Lambda isn't supported: allowed are"),
    ("y = 'text'", "'text'", "Constant isn't supported"),
    ("y, z = n, x", "y, z", "one name is assigned at a time"),
    ("p[0] = x", "p[0]", "one name is assigned at a time"),
    ("y: int = 3", "y", "AnnAssign isn't supported: write NAME"),
    ("return n", "return", "a program returns nothing"),
    ("import os", "import", "Import isn't supported"),
    ("y = missing + 1", "missing", "missing has no value here"),
    ("y = pi", "pi", "pi is the module's: make it a parameter"),
    ("y = math.pi * math.e\ny = math.sin(x)", "math.sin", "math has no sin"),
    ("y = tile.sin(x)", "tile.sin", "language has no sin"),
    ("y = len(p)", "len", "len has no value here"),
    ("y = n(3)", "n(", "n isn't of the language"),
    ("y = x.real", "x.real", r"values have .to\(TYPE\) and .dtype, not .real"),
    ("y = x.to(3)", "x.to", "to.. takes one type"),
    ("y = offs[3]", "3]", "an index is : or None"),
    ("y = offs[None]", "offs[", "every axis needs its own colon"),
    ("y = x[:, None]", "x[", "only tiles have axes"),
    ("y = tile.arange(0, n)", "tile.a", "arange takes constants, got n of i32"),
    ("y = tile.arange(0, 3 * SIDE)", "tile.a", "length that is a power of two"),
    ("y = tile.zeros((3, 8), tile.f32)", "tile.z", "sides must be constants"),
    ("y = tile.zeros(8, 4)", "tile.z", "a type such as f32 is needed"),
    ("y = tile.full(8, 0.5, tile.i32)", "tile.f", "i32 can't hold 0.5"),
    ("y = tile.load(n)", "tile.l", "a pointer or a tile of them is needed"),
    ("y = tile.load(p, mask=n > 1)", "tile.l", "mask and other go together"),
    ("y = tile.load(p + offs, n, 0)", "tile.l", "a mask is a comparison"),
    ("y = tile.load(p, offs > 1, 0)", "tile.l", "doesn't stretch to"),
    ("y = tile.load(p, other=0.0)", "tile.l", "mask and other go together"),
    ("y = tile.load(q, n > 0, q)", "tile.l", "only numbers can be cast"),
    ("y = tile.load()", "tile.l", "missing a required argument"),
    ("y = tile.load(p, eviction=1)", "tile.l", "unexpected keyword"),
    ("y = tile.load(*offs)", "tile.l", "aren't supported in a call"),
    ("y = tile.store(p, 1.0)", "tile.s", "this call makes no value"),
    ("tile.store(p, offs)", "tile.s", "doesn't stretch"),
    ("y = p * 2", "p *", "pointers can be added to only"),
    ("y = p - 1", "p -", "pointers can be added to only"),
    ("y = p + x", "p +", "a pointer moves by i32 or i64"),
    ("y = p + q", "p +", "a pointer moves by i32 or i64"),
    ("y = x % 2", "x %", "% takes integers, got f32"),
    ("y = -tile.f32", "-", "- takes numbers and tiles, got"),
    ("y = x & n", "x &", "& takes integers or truth values"),
    ("y = 3 // 0 + n", "3 //", "division by zero|by zero"),
    ("y = n + 2 ** 3", "2 **", "Pow"),
    ("y = n + 36893488147419103232", "n +", "needs more than 64 bits"),
    (f"y = x + 1{'0' * 400}", "x +", "f32 can't hold 1000"),
    ("for i in range(1180591620717411303424):\n    pass", "range", "more than 64 bits"),
    ("y = tile.full(8, tile.inf, tile.i32)", "tile.f", "i32 can't hold inf"),
    (f"y = 1{'0' * 400} / 2", "1" + "0" * 400, "too large"),
    ("größe = x % 2", "x %", "% takes integers, got f32"),
    ("y = offs + tile.arange(0, 8)", "offs +", "have no common shape"),
    ("y = tile.exp(n)", "tile.e", r"exp takes f32, got n of i32: cast"),
    ("y = tile.sum(offs, axis=1)", "tile.s", "has axes 0, got the constant 1"),
    ("y = tile.max(x)", "tile.m", "only tiles have axes"),
    ("y = tile.program_id(3)", "tile.p", "the grid has axes 0, 1, 2"),
    ("y = tile.dot(offs, offs)", "tile.d", "dot takes tiles with two sides"),
    ("y = tile.zeros((8, 16), tile.f32)\ny = tile.dot(y, y)", "tile.d", "16 columns"),
    ("y = tile.zeros((8, 8), tile.f32)\ny = tile.dot(y, y)", "tile.d", "16 or more"),
    ("y = offs[:, None] + offs[None, :]\ny = tile.dot(y, y)", "tile.d", "takes f16"),
    ("for i in offs:\n    pass", "for", r"a loop is `for NAME in range"),
    ("for i in range(n):\n    pass\nelse:\n    pass", "for", "without else"),
    ("for i in range(0, 9, n):\n    pass", "range", "step is a constant above 0"),
    ("for i in range(x):\n    pass", "range", "range takes i32 or i64, got"),
    ("for i in range(n):\n    y = i\nz = y", "y\n", "y is set only in the loop"),
    ("for i in range(n):\n    y = i\nz = i", "i\n", "i is set only in the loop"),
    ("y = 0\nfor i in range(n):\n    y += x", "for", "y is i32 before the loop and"),
    ("for i in range(n):\n    break", "break", "a loop runs to its end"),
    ("y = tile.f32\nfor i in range(n):\n    y = 1", "for", "y can't change in a loop"),
]
_count = itertools.count()


def written(folder, text):
    """A program from a file of its own."""
    path = folder / f"wrong_{next(_count)}.py"
    path.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return path, module.wrong


def place_of(text, fragment, after):
    """The line and column of the last place that holds a fragment."""
    at = text.rindex(fragment)
    assert at >= after
    line = text.count("\n", 0, at) + 1
    return line, at - text.rfind("\n", 0, at)


@pytest.mark.parametrize(("body", "fragment", "message"), WRONG, ids=lambda x: None)
def test_the_error_points_to_what_is_wrong(tmp_path, body, fragment, message):
    text = HEAD + "".join(f"    {line}\n" for line in body.splitlines())
    path, program = written(tmp_path, text)
    with pytest.raises(compiler.CompileError) as caught:
        compiler.lower(program, GIVEN)
    error = caught.value
    assert re.search(message, error.message), error.message
    assert error.place == place_of(text, fragment, len(HEAD))
    assert str(error).startswith(f"{path}:{error.place.line}:{error.place.column}: ")


def test_a_program_inside_a_function_has_its_own_columns():
    def make():
        @compiler.program
        def inner(n):
            y = n + (
                None  # the error is of the sum, whose line is the one above
            )
            return y

        return inner

    program = make()
    with pytest.raises(compiler.CompileError, match="number or a tile") as caught:
        compiler.lower(program, {"n": i32})
    line = make.__code__.co_firstlineno + 3
    assert caught.value.place == (line, 17)
    with pytest.raises(TypeError, match="inner is a program: launch"):
        program(3)


VALUES = (
    *("p", "q", "n", "x", "SIDE", "offs", "square", "kind", "None", "True", "1.5"),
    *("-1", "(1, 2)", "tile", "tile.load", "p + offs", "offs > 3", "tile.inf"),
    *("p.dtype", "n.to", "()", "1e400", "x > 1"),
)
WORDS = (
    *("program_id", "arange", "full", "zeros", "load", "store", "where", "maximum"),
    *("exp", "sum", "max", "dot"),
)


def statements(rng):
    """Anything that Python parses, right or wrong."""
    a, b, c = rng.choices(VALUES, k=3)
    word, symbol = (
        rng.choice(WORDS),
        rng.choice(["+", "*", "/", "//", "%", "&", "<", "=="]),
    )
    made = rng.choice(
        (
            f"({a}) {symbol} ({b})",
            f"-({a})",
            f"~({a})",
            f"({a}).to({b})",
            f"({a})[{rng.choice((b, ':, None', 'None, :'))}]",
            f"tile.{word}({', '.join((a, b, c)[: rng.randrange(4)])})",
        )
    )
    return rng.choice(
        (f"y = {made}", f"y = 0\nfor i in range(3):\n    y = {made}",
         f"for i in range({made}):\n    y = i")
    )  # fmt: skip


def test_a_program_is_refused_or_right(tmp_path):
    """Whatever is written: an error with a place, or what Triton's verifier takes."""
    body = "    square = offs[:, None] + offs[None, :]\n    kind = tile.f16\n"
    _, program = written(tmp_path, HEAD + body)
    rng, taken = random.Random(0), 0
    said = []
    for _ in range(1500):
        more = ast.parse(statements(rng)).body
        tree = ast.FunctionDef(
            **vars(program.tree) | {"body": program.tree.body + more}
        )
        try:
            function = compiler.lower(dataclasses.replace(program, tree=tree), GIVEN)
        except compiler.CompileError as error:
            said.append(error.message)
        else:
            launching.verified(function)
            taken += 1
    assert all(said)
    assert not [each for each in said if re.search(r"Lost\(|<\w+ object", each)]
    assert taken > 100


def test_parameters_are_plain():
    with pytest.raises(compiler.CompileError, match="plain positional parameters"):

        @compiler.program
        def starred(*n):
            pass

    with pytest.raises(compiler.CompileError, match="can't have a default") as caught:

        @compiler.program
        def default(n, m=3):
            pass

    assert caught.value.place.column == 26


def test_arguments_are_those_of_the_program(tmp_path):
    _, program = written(tmp_path, HEAD)
    compiler.lower(program, GIVEN)
    with pytest.raises(TypeError, match="wrong takes p, q, n, x, SIDE, got p"):
        compiler.lower(program, {"p": Pointer(f32)})
    with pytest.raises(TypeError, match="aligned names no argument: SIDE"):
        compiler.lower(program, GIVEN, ["SIDE"])
    with pytest.raises(ValueError, match="no entries of i1"):
        Pointer(i1)
    with pytest.raises(TypeError, match="can be called in a @program only"):
        compiler.language.load(3)
    assert str(Tensor(Pointer(f16), (8, 4))) == "*f16[8, 4]"
