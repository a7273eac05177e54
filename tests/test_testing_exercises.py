"""`check` takes right attempts, and says of wrong ones where and why."""

import dataclasses
import re
import sys

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

import tilebook
from tilebook import device as here
from tilebook.testing import CheckFailed, Exercise, check, exercise, exercises, mutants

BLOCK = 64


@triton.jit
def scale_kernel(x_ptr, out_ptr, alpha, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)
    tl.store(out_ptr + offs, x * alpha, mask=mask)


@triton.jit
def row_sum_kernel(x_ptr, out_ptr, stride, n, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    cols = tl.arange(0, BLOCK)
    x = tl.load(x_ptr + row * stride + cols, mask=cols < n, other=0.0)
    tl.store(out_ptr + row, tl.sum(x, axis=0))


@triton.jit
def count_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0).to(tl.int64)
    tl.atomic_add(out_ptr + x, tl.full((BLOCK,), 1, tl.int64), mask=mask)


def launch_scale(kernel, out, *, x, alpha):
    n = x.shape[0]
    kernel[(triton.cdiv(n, BLOCK),)](x, out, alpha, n, BLOCK=BLOCK)


def launch_rows(kernel, out, *, x):
    rows, n = x.shape
    kernel[(rows,)](x, out, x.stride(0), n, BLOCK=256)


def launch_count(kernel, out, *, x):
    kernel[(triton.cdiv(x.shape[0], BLOCK),)](x, out, x.shape[0], BLOCK=BLOCK)


SCALE = Exercise(
    name="practice-scale",
    statement="Multiply by alpha.",
    inputs=lambda rng, shape: {"x": rng.standard_normal(shape), "alpha": 0.75},
    reference=lambda x, alpha: x * alpha,
    shapes=((64,), (1,), (0,), (200,), (257,)),
    launch=launch_scale,
    parameters=("x_ptr", "out_ptr", "alpha", "n", "BLOCK"),
    dtypes=("float32", "bfloat16"),
    length=2,
)
AS_FUNCTION = dataclasses.replace(
    SCALE,
    launch=None,
    parameters=(),
    dtypes=("float32",),
    layouts=("contiguous", "strided"),
)
ROWS = Exercise(
    name="practice-rows",
    statement="Sum each row.",
    inputs=lambda rng, shape: {"x": rng.standard_normal(shape)},
    reference=lambda x: x.sum(axis=1),
    shapes=((1, 1), (3, 200), (5, 131)),
    launch=launch_rows,
    parameters=("x_ptr", "out_ptr", "stride", "n", "BLOCK"),
    layouts=("contiguous", "sliced"),
    length=lambda shape: shape[1],
)
COUNT = Exercise(
    name="practice-count",
    statement="Count how often each of 16 values occurs.",
    inputs=lambda rng, shape: {"x": rng.integers(0, 16, shape)},
    reference=lambda x: np.bincount(x, minlength=16),
    shapes=((100,), (1,), (333,)),
    launch=launch_count,
    parameters=("x_ptr", "out_ptr", "n", "BLOCK"),
    out_dtype="int64",
    initial=0,
)


def scale(x, alpha):
    x = x.contiguous()
    out = torch.empty_like(x)
    launch_scale(scale_kernel, out, x=x, alpha=alpha)
    return out


def sum_by_torch(x):
    return torch.sum(x, 1)


def refusal(task, attempt, **options):
    """The message that an attempt gets."""
    with pytest.raises(CheckFailed) as caught:
        check(task, attempt, quiet=True, **options)
    return re.sub(r"\s+", " ", str(caught.value))


def mutant(kernel, old, new):
    ((_, edited),) = mutants(kernel, {f"{old} to {new}": (old, new)})
    return edited


def test_right_attempts_pass(capsys):
    report = check(SCALE, scale_kernel, seed=5)
    assert (report.exercise, report.seed) == ("practice-scale", 5)
    assert report.cases > 15
    assert report.shapes == 7
    assert 0 < report.worst <= 1
    assert capsys.readouterr().out == f"{report}\n"
    assert report._ipython_display_() is None
    for task, attempt in ((AS_FUNCTION, scale), (ROWS, row_sum_kernel)):
        check(task, attempt, quiet=True)
    check(COUNT, count_kernel, quiet=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("x * alpha", "x", "equals the input x"),
        ("x * alpha", "x * alpha * 2", "every element is 2 times"),
        ("x * alpha", "-x * alpha", "wrong sign"),
        ("x * alpha", "x * 0.0", "every element is"),
        ("x * alpha", "(x * alpha).to(tl.float16)", "rounded to float16 first"),
        ("tl.program_id(0) * BLOCK + ", "", "only the first 64 elements were written"),
        ("tl.program_id(0) * BLOCK", "tl.program_id(0) * 32", "never written"),
        (
            "out_ptr + offs, x * alpha",
            "out_ptr + offs + 1, x * alpha",
            "past its end|1",
        ),
        ("tl.arange(0, BLOCK)", "tl.arange(0, BLOCK) // 2 * 2", "every second"),
        ("x * alpha, mask=mask", "x * alpha", "written past its end|OutOfBounds"),
        ("x * alpha, mask=mask", "x * alpha, mask=offs < 0", "nothing was written"),
    ],
)
def test_wrong_kernels_are_told_why(old, new, said):
    task = dataclasses.replace(SCALE, shapes=((200,),), dtypes=("float32",))
    assert re.search(said, refusal(task, mutant(scale_kernel, old, new)), re.I)


def test_the_message_reads_well():
    def launch_too_few(kernel, out, *, x, alpha):
        n = x.shape[0]
        kernel[(max(n // BLOCK, 1),)](x, out, alpha, n, BLOCK=BLOCK)

    task = dataclasses.replace(SCALE, launch=launch_too_few, dtypes=("float32",))
    with pytest.raises(CheckFailed) as caught:
        check(task, scale_kernel, seed=12)
    lines = str(caught.value).splitlines()
    assert (
        lines[0] == f"practice-scale: not yet. Case 4 of {lines[0].split()[-2]} fails."
    )
    assert max(map(len, lines)) <= 88
    labels = [line[2:].split()[0] for line in lines[1:] if line[2] != " "]
    assert labels == ["case", "first", "wrong", "bound", "why", "passed", "again"]
    text = re.sub(r"\s+", " ", str(caught.value))
    assert "case shape (200,), float32, contiguous, alpha = 0.75" in text
    assert "first out[192] = never written, expected" in text
    assert "wrong 8 of 200 elements: 192 to 199" in text
    assert "bound off by at most" in text
    assert "The last 8 elements were never written: is the grid rounded up" in text
    assert "passed 3 cases before it: (64,), (1,), (0,)" in text
    assert "again check('practice-scale', scale_kernel, seed=12)" in text
    assert caught.value.case.shape == (200,)
    assert caught.value._render_traceback_() == lines


def test_a_seed_repeats_a_check_and_another_changes_the_values():
    wrong = mutant(scale_kernel, "x * alpha", "x + alpha")
    messages = [refusal(SCALE, wrong, seed=seed) for seed in (1, 1, 2)]
    assert messages[0] == messages[1]
    assert messages[0] != messages[2].replace("seed=2", "seed=1")
    secret = {refusal(SCALE, wrong).rpartition("seed=")[2] for _ in range(3)}
    assert len(secret) == 3


def test_the_smallest_rounding_mistake_is_seen():
    task = dataclasses.replace(SCALE, dtypes=("float32",), length=1)
    check(task, scale_kernel, quiet=True)
    next_up = mutant(
        scale_kernel,
        "x * alpha",
        "((x * alpha).to(tl.int32, bitcast=True) + 1).to(tl.float32, bitcast=True)",
    )
    assert "only last bits differ" in refusal(task, next_up).lower()


def test_a_solution_right_for_one_shape_is_refused():
    wrong = mutant(scale_kernel, "offs < n", "offs < 64")
    task = dataclasses.replace(SCALE, shapes=((64,), (1000,)), dtypes=("float32",))
    refusal(task, wrong)

    def only_declared(x, alpha):
        known = x.numel() in {64, 1, 0, 200, 257}
        return x * alpha if known else torch.zeros_like(x)

    refusal(AS_FUNCTION, only_declared)


def test_a_changed_input_is_refused():
    in_place = mutant(scale_kernel, "tl.store(out_ptr", "tl.store(x_ptr")
    assert "x was changed" in refusal(SCALE, in_place)

    def multiply_in_place(x, alpha):
        x *= alpha
        return x.clone()

    assert "The input x was changed" in refusal(AS_FUNCTION, multiply_in_place)


def test_remembered_results_are_refused():
    kept = {}

    def by_shape(x, alpha):
        return kept.setdefault(x.shape, scale(x, alpha)).clone()

    def by_address(x, alpha):
        return kept.setdefault(x.data_ptr(), scale(x, alpha)).clone()

    def by_object(x, alpha):
        return kept.setdefault(id(x), (x, scale(x, alpha)))[1].clone()

    for attempt in (by_shape, by_address, by_object):
        assert "values of an earlier call" in refusal(AS_FUNCTION, attempt)


def test_one_buffer_for_all_results_is_refused():
    kept = {}

    def reuse(x, alpha):
        return kept.setdefault(x.shape, torch.empty_like(x)).copy_(scale(x, alpha))

    assert "changed what the first had returned" in refusal(AS_FUNCTION, reuse)


def test_a_view_of_the_input_is_refused_unless_allowed():
    task = dataclasses.replace(
        AS_FUNCTION,
        inputs=lambda rng, shape: {"x": rng.standard_normal(shape)},
        reference=lambda x: x.T,
        shapes=((3, 5),),
    )
    assert "shares memory with the input x" in refusal(task, lambda x: x.t())
    check(dataclasses.replace(task, may_alias=True), lambda x: x.t(), quiet=True)
    check(task, lambda x: x.t().clone(), quiet=True)


def test_a_function_that_ignores_strides_is_refused():
    def careless(x, alpha):
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        launch_scale(scale_kernel, out, x=x, alpha=alpha)
        return out

    said = refusal(AS_FUNCTION, careless)
    assert "strided" in said
    assert "does the attempt use the strides" in said


def test_the_largest_shape_meets_every_layout_magnitude_and_dtype():
    task = dataclasses.replace(
        AS_FUNCTION, layouts=("contiguous", "offset", "strided"), dtypes=SCALE.dtypes
    )
    for seed in range(3):
        seen = []

        def attempt(x, alpha, seen=seen):
            size = float(x.abs().mean()) if x.numel() > 200 else 1.0
            seen.append((x.numel(), x.stride(0), x.data_ptr() % 16, x.dtype, size))
            return x * alpha

        check(task, attempt, seed=seed, quiet=True)
        large = [row for row in seen if row[0] == 257]
        assert {row[1] for row in large} == {1, 2}
        assert any(row[2] for row in large)
        assert {row[3] for row in large} == {torch.float32, torch.bfloat16}
        assert {round(np.log2(row[4]) / 10) for row in large} == {-1, 0, 1}


def test_a_single_number_out_of_an_array_is_a_tensor():
    task = dataclasses.replace(
        AS_FUNCTION, reference=lambda x, alpha: x.sum() * alpha, length=300
    )
    for seed in range(20):
        check(task, lambda x, alpha: x.sum() * alpha, seed=seed, quiet=True)
    # One seed in 150 gives a sum that cancels, whose error is no half's roundoff.
    halves = refusal(task, lambda x, alpha: (x.half().sum() * alpha).float(), seed=1)
    assert "float16" in halves
    assert "Returned float" in refusal(task, lambda x, alpha: float(x.sum() * alpha))


def test_an_overflow_is_told_from_the_magnitude():
    def through_half(x, alpha):
        return (x.half() * 60.0 * alpha).float() / 60.0

    task = dataclasses.replace(AS_FUNCTION, atol=1.0, shapes=((200,),))
    assert "Inputs of ordinary magnitude pass" in refusal(task, through_half)


def test_unwritten_memory_of_the_attempts_own_is_seen():
    def forgets_the_end(x, alpha):
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        out[:-1] = x[:-1] * alpha
        return out

    assert "element was never written" in refusal(AS_FUNCTION, forgets_the_end)


def test_writing_beside_an_own_allocation_is_seen():
    def spills(x, alpha):
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        out.as_strided((1,), (1,), out.storage_offset() + out.numel()).zero_()
        return out.copy_(x * alpha)

    assert "1 element written past its end" in refusal(AS_FUNCTION, spills)


@pytest.mark.parametrize(
    ("attempt", "said"),
    [
        (lambda x, alpha: None, "Returned None, expected a tensor. Is the return"),
        (lambda x, alpha: 3.0, "Returned float"),
        (lambda x, alpha: (x, x), "Returned 2, expected a tensor"),
        (
            lambda x, alpha: (x * alpha)[None],
            r"out has shape \(1, 64\), expected \(64,",
        ),
        (lambda x, alpha: (x * alpha).double(), "out is float64, expected float32"),
        (lambda x, alpha: x.no_such(), "AttributeError: .*no_such"),
        (lambda x: x, "TypeError: .*positional"),
        (3, "Got 3, not a function"),
    ],
)
def test_what_a_function_returns_or_raises_is_described(attempt, said):
    assert re.search(said, refusal(AS_FUNCTION, attempt))


def test_an_exception_points_at_the_readers_line():
    def stumbles(x, alpha):
        return x + x[:-1]

    said = refusal(AS_FUNCTION, stumbles)
    assert "of stumbles: return x + x[:-1]" in said


def test_what_is_no_kernel_or_has_other_parameters_is_refused():
    assert "put @triton.jit above it" in refusal(SCALE, scale)
    assert "without a grid" in refusal(SCALE, scale_kernel[(1,)])
    assert "Got int" in refusal(SCALE, 3)
    other = mutant(scale_kernel, "x_ptr, out_ptr, alpha", "x_ptr, y_ptr, alpha")
    assert "they should be (x_ptr, out_ptr, alpha, n, BLOCK)" in refusal(SCALE, other)


def test_torch_may_not_compute_where_the_kernel_should():
    task = dataclasses.replace(AS_FUNCTION, only_triton=True)
    check(task, scale, quiet=True)
    assert "torch computed (aten.mul)" in refusal(task, lambda x, alpha: x * alpha)


def test_forbidden_and_required_names():
    without = dataclasses.replace(ROWS, forbidden=("tl.sum",))
    assert "uses tl.sum" in refusal(without, row_sum_kernel)
    within = dataclasses.replace(ROWS, required=("tl.dot",))
    assert "does not use tl.dot" in refusal(within, row_sum_kernel)
    check(dataclasses.replace(ROWS, required=("tl.sum",)), row_sum_kernel, quiet=True)
    blocks = dataclasses.replace(SCALE, required=("BLOCK",))
    check(blocks, scale_kernel, quiet=True)
    fixed = mutant(
        scale_kernel, "* BLOCK + tl.arange(0, BLOCK)", "* 8 + tl.arange(0, 8)"
    )
    assert "does not use BLOCK: is a number in its place" in refusal(blocks, fixed)
    anyhow = dataclasses.replace(ROWS, forbidden=("sum",))
    assert "uses sum" in refusal(anyhow, row_sum_kernel)

    task = dataclasses.replace(ROWS, launch=None, forbidden=("torch.sum",))
    assert "uses torch.sum" in refusal(task, lambda x: sum_by_torch(x))


def test_integers_counted_by_atomics_and_their_mistakes():
    plain = mutant(count_kernel, "tl.atomic_add(", "tl.store(")
    assert "out[" in refusal(COUNT, plain)
    unmasked = mutant(count_kernel, ", tl.int64), mask=mask", ", tl.int64)")
    assert "off by" in refusal(COUNT, unmasked) or "exact" in refusal(COUNT, unmasked)


def test_wrapping_and_truncation_of_integers_are_named():
    task = Exercise(
        name="practice-mean",
        statement="Mean of two bytes, rounded down.",
        inputs=lambda rng, shape: {
            name: rng.integers(0, 256, shape, dtype=np.uint8) for name in ("x", "y")
        },
        reference=lambda x, y: ((x + y) // 2).astype(np.uint8),
        shapes=((300,),),
    )
    assert "case shape (300,), uint8, contiguous first" in refusal(task, torch.add)
    check(task, lambda x, y: ((x.int() + y.int()) // 2).byte(), quiet=True)
    wrapped = dataclasses.replace(
        task, reference=lambda x, y: x + y, out_dtype="int32", name="practice-sum"
    )
    assert "2**8" in refusal(wrapped, lambda x, y: (x + y).int())
    rounded = refusal(task, lambda x, y: ((x.float() + y.float()) / 2).ceil().byte())
    assert "off by one" in rounded


def test_large_unsigned_integers_are_read_as_what_they_are():
    task = Exercise(
        name="practice-complement",
        statement="Every bit of x the other way round.",
        inputs=lambda rng, shape: {
            "x": rng.integers(0, 2**64, shape, dtype=np.uint64, endpoint=False)
        },
        reference=lambda x: ~x,
        shapes=((300,), (1,)),
    )

    def complement(x):
        return (~x.view(torch.int64)).view(torch.uint64)

    check(task, complement, quiet=True)
    signed = dataclasses.replace(task, out_dtype="int64")
    # The same bits, but half of them stand for a negative number.
    said = refusal(signed, lambda x: complement(x).view(torch.int64))
    assert re.search(r"= -\d+, expected \d+ wrong", said)
    off = refusal(task, lambda x: (~x.view(torch.int64) ^ 1).view(torch.uint64))
    assert "must be exact" in off
    assert "off by one" in off


def test_integers_with_a_reference_in_floating_point():
    task = Exercise(
        name="practice-power",
        statement="2 to the power of x.",
        inputs=lambda rng, shape: {"x": rng.integers(0, 9, shape)},
        reference=lambda x: 2.0**x,
        shapes=((300,), (1,)),
        out_dtype="int64",
    )
    check(task, lambda x: 2**x, quiet=True)
    assert "every element is" in refusal(task, lambda x: 0 * x).lower()
    assert "must be exact" in refusal(task, lambda x: 2 ** (x + 1))
    large = dataclasses.replace(task, reference=lambda x: 2.0 ** (x + 54))
    with pytest.raises(ValueError, match="give a reference that is integer"):
        check(large, lambda x: 2 ** (x + 54), quiet=True)


def test_the_way_is_looked_at_once_the_values_are_right():
    def watch(kernel):
        return "Not that kernel." if kernel is scale_kernel else None

    watched = dataclasses.replace(SCALE, watch=watch)
    with pytest.raises(CheckFailed, match=r"(?s)is right.*Not that kernel"):
        check(watched, scale_kernel)
    ((_, wrong),) = mutants(scale_kernel, {"added": ("x * alpha", "x + alpha")})
    with pytest.raises(CheckFailed, match="fails"):
        check(watched, wrong)
    assert check(dataclasses.replace(SCALE, watch=lambda kernel: None), scale_kernel)


def test_in_place_exercises_and_invariants():
    task = dataclasses.replace(AS_FUNCTION, modifies=("x",), layouts=("contiguous",))
    check(task, lambda x, alpha: x.mul_(alpha), quiet=True)
    assert "x[" in refusal(task, lambda x, alpha: x * alpha)
    bounded = dataclasses.replace(
        AS_FUNCTION, invariants={"no value is negative": lambda out, x, alpha: False}
    )
    assert "This does not hold: no value is negative" in refusal(bounded, scale)


def test_formulas_are_checked_by_value():
    task = Exercise(
        name="practice-programs",
        statement="How many programs cover n elements?",
        inputs=lambda rng, shape: {
            "n": int(rng.integers(0, 10_000)),
            "block": 2 ** int(rng.integers(4, 10)),
        },
        reference=lambda n, block: -(-n // block),
        shapes=((),) * 5,
    )
    check(task, triton.cdiv, quiet=True)
    said = refusal(task, lambda n, block: n // block)
    assert re.search(r"case n = \d+, block = \d+ first got \d+, expected \d+", said)
    assert "check('practice-programs', ..., seed=" in said
    assert "expected" in refusal(task, lambda n, block: float(n))


@pytest.mark.parametrize(
    ("right", "given", "wrong"),
    [
        (4, [4, np.int64(4), torch.tensor(4)], [5, True, "4", 4.5]),
        (1, [1], [True, 2]),
        (3.35, [3.35, 3.34], [3.2, "3.35", float("nan")]),
        ("HBM", ["hbm", " HBM "], ["L2", None]),
        (True, [True, np.bool_(True)], [False, 1]),
        ((2, 0.5), [(2, 0.5), [2, 0.501]], [(2, 0.6), (0.5, 2), (2,), 2]),
    ],
)
def test_answers_are_compared_by_kind(right, given, wrong):
    task = Exercise(name="practice-answer", statement="?", answer=lambda: right)
    for answer in given:
        check(task, answer, quiet=True)
    for answer in wrong:
        assert "is not the answer" in refusal(task, answer)


def test_a_wrong_answer_gets_a_remark_and_not_the_solution():
    task = Exercise(
        name="practice-answer",
        statement="?",
        answer=lambda: (977, 445),
        explain=lambda got: "A program for the rest is missing." if got else None,
    )
    said = refusal(task, (976, 445))
    assert "Wrong at position 0. A program for the rest is missing." in said
    assert "977" not in said
    assert "It should be 2 values in a tuple, this is a number" in refusal(task, 977)


def test_declarations_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="answer, or inputs and reference"):
        Exercise(name="x", statement="")
    with pytest.raises(ValueError, match="needs parameters"):
        dataclasses.replace(SCALE, parameters=())
    with pytest.raises(ValueError, match="positive"):
        dataclasses.replace(SCALE, scales=(1.0, -1.0))


@pytest.fixture
def chapter(tmp_path, monkeypatch):
    """A chapter with one exercise, beside the book's own."""
    folder = tmp_path / "loose_ends"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "exercises.py").write_text(
        "from tilebook.testing import Exercise\n"
        'ONE = Exercise(name="loose-ends-one", statement="?", answer=lambda: 1)\n'
        'MORE = [Exercise(name="loose-ends-two", statement="?", answer=lambda: 2)]\n'
    )
    monkeypatch.setattr(tilebook, "__path__", [*tilebook.__path__, str(tmp_path)])
    yield folder
    for name in [n for n in sys.modules if n.startswith("tilebook.loose_ends")]:
        del sys.modules[name]


@pytest.mark.usefixtures("chapter")
def test_exercises_are_found_by_name_and_near_ones_suggested():
    assert exercise("loose-ends-one").answer() == 1
    assert list(exercises("loose_ends")) == ["loose-ends-one", "loose-ends-two"]
    assert set(exercises()) > {"loose-ends-one", "loose-ends-two"}
    check("loose-ends-two", 2, quiet=True)
    with pytest.raises(LookupError, match="loose-ends-two"):
        check("loose-ends-too", 2)


def test_every_exercise_of_the_book_says_what_it_asks():
    for name, task in exercises().items():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)+", name)
        assert task.statement
        assert task.hint
        assert exercise(name) is task


def test_interpreted_errors_come_unwrapped():
    unmasked = mutant(scale_kernel, ", mask=mask, other=0.0", "")
    if here.interpreting():
        said = refusal(SCALE, unmasked)
        assert "OutOfBounds" in said
        assert "InterpreterError" not in said
        assert "of scale_kernel: x = tl.load(x_ptr + offs)" in said
    else:
        check(SCALE, unmasked, quiet=True)
