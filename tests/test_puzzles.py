"""Puzzles: ours pass their checks, empty stubs are refused, references are right."""

import ast
import importlib.util
import inspect
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from tilebook import compile_only, puzzles, testing
from tilebook.puzzles import OURS, PUBLIC, PUZZLES, drawing, hint, puzzle, solutions
from tilebook.puzzles.drawing import on_device
from tilebook.testing import CheckFailed, check, edge, exercise
from tilebook.testing.expect import as_arrays, copies
from tilebook.testing.source import python_function

SEED = 1
CHECK = partial(check, seed=SEED, quiet=True)
PACKAGE = Path(puzzles.__file__).parent
every_puzzle = pytest.mark.parametrize("one", PUZZLES, ids=lambda p: p.name)


def solution(one):
    return getattr(solutions, one.kernel)


def test_the_twelve_and_more_than_twelve_of_ours_in_order():
    assert len(PUBLIC) == 12
    assert len(OURS) >= 12
    assert [one.number for one in PUZZLES] == list(range(1, len(PUZZLES) + 1))
    assert [one.name for one in PUZZLES] == [
        f"puzzle-{one.number:02d}" for one in PUZZLES
    ]
    assert len({one.title for one in PUZZLES}) == len(PUZZLES)
    assert len({one.task.statement for one in PUZZLES}) == len(PUZZLES)


@every_puzzle
def test_a_puzzle_says_what_a_reader_has_to_know(one):
    assert one.formula.strip()
    assert len(one.data) >= 2
    assert one.grid.startswith("(")
    assert 2 <= len(one.hints) <= 3
    for name in one.task.parameters:
        if name.endswith("_ptr"):
            letter = name.removesuffix("_ptr")
            assert any(f"`{letter}`" in line for line in one.data), letter
    assert exercise(one.name) is one.task
    assert puzzle(one.name) is one


@every_puzzle
def test_a_check_is_strong(one):
    task = one.task
    assert len(task.shapes) >= 4
    assert len(set(task.layouts)) >= 2
    assert len(set(task.scales)) >= 3
    ragged = [shape for shape in task.shapes if shape != tuple(np.maximum(1, shape))]
    assert ragged or any(n % 2 for shape in task.shapes for n in shape)
    assert one.friendly not in {(), None}
    assert one.shown < tuple(look_grid(one))


def look_grid(one):
    return drawing.looked(one).grid if one.shown != (0, 0, 0) else (1, 1, 1)


@every_puzzle
def test_ours_is_taken(one):
    report = CHECK(one.name, solution(one))
    assert report.shapes >= 5
    assert report.cases >= 12


@every_puzzle
def test_ours_has_the_parameters_of_the_stub(one):
    tree = ast.parse(one.stub)
    (function,) = tree.body
    names = [argument.arg for argument in function.args.args]
    assert names == list(one.task.parameters)
    signature = inspect.signature(python_function(solution(one)))
    assert names == list(signature.parameters)
    constants = [a.arg for a in function.args.args if a.annotation is not None]
    assert constants == [
        name for name, p in signature.parameters.items() if p.annotation is not p.empty
    ]
    assert max(map(len, one.stub.splitlines())) <= 80


@pytest.fixture(scope="module")
def stubs(tmp_path_factory):
    """The stubs as a module, so that their source can be read."""
    path = tmp_path_factory.mktemp("stubs") / "stubs.py"
    head = "import triton\nimport triton.language as tl\n\n"
    path.write_text(head + "\n\n".join(one.stub for one in PUZZLES))
    spec = importlib.util.spec_from_file_location("stubs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@every_puzzle
def test_an_empty_stub_is_refused_politely(one, stubs):
    with pytest.raises(CheckFailed) as caught:
        CHECK(one.name, getattr(stubs, one.kernel))
    said = str(caught.value)
    assert said.startswith(f"{one.name}: not yet.")
    assert "raised" not in said
    assert "never written" in said or "expected" in said or "does not use" in said


class Compiled:
    """A kernel that is compiled for a target where it would be launched."""

    def __init__(self, kernel, target):
        self.kernel, self.target, self.evidence = kernel, target, None

    def __getitem__(self, grid):
        def launch(*args, **meta):
            made = compile_only.compile(self.kernel, *args, target=self.target, **meta)
            self.evidence = made.evidence

        return launch


def compiled(one, shape, target="sm_90"):
    task = one.task
    values = dict(task.inputs(np.random.default_rng(0), shape))
    arrays = as_arrays(task.reference(**copies(values)))
    dtypes = task.out_dtypes(arrays, task.dtypes[0])
    outputs = [
        torch.empty(array.shape, dtype=getattr(torch, dtype))
        for array, dtype in zip(arrays, dtypes, strict=True)
    ]
    kernel = Compiled(solution(one), target)
    task.launch(kernel, *outputs, **on_device(values, task.dtypes[0]))
    return kernel.evidence


@every_puzzle
def test_ours_compiles_for_hopper_as_the_check_launches_it(one):
    ragged = max(one.task.shapes, key=np.prod)
    evidence = compiled(one, ragged)
    assert evidence.spill_store_bytes == 0
    assert bool(evidence.mma) == ("tl.dot" in one.task.required)
    assert bool(evidence.atomics) == (one.task.initial is not None)


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
@pytest.mark.parametrize("name", ["puzzle-23", "puzzle-27"])
def test_the_harder_ones_compile_elsewhere(name, target):
    assert compiled(puzzle(name), puzzle(name).friendly, target).spill_store_bytes == 0


def inputs(name, shape, seed=0):
    values = dict(puzzle(name).task.inputs(np.random.default_rng(seed), shape))
    expected = puzzle(name).task.reference(**copies(values))
    tensors = {
        n: torch.from_numpy(np.ascontiguousarray(v)) if isinstance(v, np.ndarray) else v
        for n, v in values.items()
    }
    return tensors, [
        torch.from_numpy(np.ascontiguousarray(a)) for a in as_arrays(expected)
    ]


def close(got, expected):
    testing.assert_close(got, expected, length=16, accumulate=torch.float64)


def test_gradients_are_those_of_autograd():
    given, (expected,) = inputs("puzzle-06", (17, 40))
    x, y = given["x"].requires_grad_(), given["y"]
    torch.relu(x * y[:, None]).backward(given["dz"])
    assert (x == 0).any()
    assert torch.equal(x.grad, expected)

    given, expected = inputs("puzzle-26", (5, 33))
    x, w = given["x"].requires_grad_(), given["w"].requires_grad_()
    bias = torch.zeros_like(w).requires_grad_()
    y = torch.nn.functional.layer_norm(x, (33,), w, bias, given["eps"])
    y.backward(given["dy"])
    for got, want in zip((x.grad, w.grad, bias.grad), expected, strict=True):
        close(got, want)


def test_references_are_what_torch_computes():
    given, (z,) = inputs("puzzle-08", (4, 70))
    close(torch.softmax(given["x"], 1), z)
    given, (z,) = inputs("puzzle-10", (2, 9, 11, 2, 3))
    x = torch.nn.functional.pad(given["x"], (0, 2, 0, 1))[:, None]
    close(torch.nn.functional.conv2d(x, given["k"][None, None])[:, 0], z)
    given, (v, i) = inputs("puzzle-22", (3, 50, 7))
    assert torch.equal(torch.topk(given["x"], 7).values, v)
    assert torch.equal(given["x"].gather(1, i.long()), v)
    given, (z,) = inputs("puzzle-27", (5, 40, 16))
    sees = torch.ones(5, 40, dtype=torch.bool).tril(35)
    q, k, v = (given[name][None] for name in "qkv")
    sdpa = torch.nn.functional.scaled_dot_product_attention
    close(sdpa(q, k, v, attn_mask=sees, scale=given["scale"])[0], z)


def test_causal_rows_without_keys_are_zero():
    given, (z,) = inputs("puzzle-17", (12, 5))
    assert torch.equal(z[:7], torch.zeros(7, 5).double())
    mask = torch.ones(12, 5, dtype=torch.bool).tril(-7)
    want = torch.softmax(given["x"].masked_fill(~mask, -torch.inf), 1)
    close(want[7:], z[7:])


def test_packed_fields_use_all_bits_and_products_are_exact():
    given, (z,) = inputs("puzzle-12", (20, 5, 3))
    fields = given["w"][..., None] >> (4 * torch.arange(8)) & 15
    assert fields.flatten(0, 1).float().std(0).min() > 3
    weights = fields.flatten(1) - (
        given["o"][..., None] >> (4 * torch.arange(8)) & 15
    ).flatten(1).repeat_interleave(8, 1)
    weights = weights * given["s"].repeat_interleave(8, 1)
    assert torch.equal(weights.half().double(), weights)
    close(weights @ given["x"], z)


def test_argmax_keys_sort_by_value_then_by_place():
    from tilebook.puzzles.choosing import keys

    x = np.array([1.5, -3.0, 1.5, -0.25, 0.0, -1e-30, 2.0**-130, 3e38])
    made = keys(x)
    assert list(np.argsort(-made)) == list(np.lexsort((np.arange(8), -x)))
    assert [0x7FFFFFFF - (int(key) & 0xFFFFFFFF) for key in made] == list(range(8))


def test_a_puzzle_is_found_without_a_look_at_the_chapters(monkeypatch):
    asked, find = [], edge.exercises
    monkeypatch.setattr(edge, "exercises", lambda *a: asked.append(a) or find(*a))
    assert exercise("puzzle-08") is puzzle("puzzle-08").task
    assert asked == [("puzzles",)]


def test_hints_come_one_at_a_time_and_begin_again(capsys):
    first = []
    for turn in range(4):
        hint("puzzle-08")
        first.append(capsys.readouterr().out)
        assert puzzle("puzzle-08").hints[turn % 3] in first[-1]
    assert first[3] == first[0]
    assert "last" in first[2]
    assert "last" not in first[0] + first[1]
    with pytest.raises(LookupError, match="puzzle-08"):
        hint("puzzle-8")
    with pytest.raises(LookupError, match="puzzle-01 to puzzle-"):
        hint("?")


def declaring():
    names = ("pointwise", "chunks", "products", "rearranging", "scanning", "choosing")
    furniture = ("finals", "declare", "listing", "hinting", "exercises", "notebook")
    return [PACKAGE / f"{name}.py" for name in (*names, *furniture)]


@pytest.mark.parametrize("path", declaring(), ids=lambda path: path.stem)
def test_declarations_need_numpy_only(path):
    allowed = ("numpy", "tilebook.puzzles", "tilebook.testing", "collections", "typing")
    allowed += ("dataclasses", "difflib", "json")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        assert all(name.startswith(allowed) for name in names), names


@every_puzzle
def test_solutions_are_narrow_enough_for_the_page(one):
    for name in one.kernels:
        source = inspect.getsource(python_function(getattr(solutions, name)))
        assert max(map(len, source.splitlines())) <= 80
