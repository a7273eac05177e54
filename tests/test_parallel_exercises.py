"""The checker takes our solutions and refuses plausible wrong ones."""

from functools import partial

import pytest
import torch
import triton
import triton.language as tl

from tilebook import compile_only, device
from tilebook.parallel import selftest, solutions
from tilebook.parallel.exercises import EXERCISES, GRID_STRIDE, LENGTHS, block
from tilebook.testing import CheckFailed, check, exercise, mutants

CHECK = partial(check, quiet=True)
MAP_KERNELS = {
    "parallel-affine": solutions.affine_kernel,
    "parallel-reverse": solutions.reverse_kernel,
    "parallel-strided": solutions.strided_kernel,
    "parallel-luma": solutions.luma_kernel,
    "parallel-relu6": solutions.relu6_kernel,
    "parallel-grid-stride": solutions.grid_stride_kernel,
}
ANSWERS = {
    "parallel-count": (977, 445),
    "parallel-microseconds": (4 * 44.739, 6 * 44.739),
    "parallel-saturation": 13_500_000,
}

# Each is a mistake that was made, or is easily made, at that exercise.
WRONG_ANSWERS = {
    "parallel-count": [
        (976, 579),
        (977, 579),
        (1_000_003, 0),
        (445, 977),
        (977.5, 445),
    ],
    "parallel-microseconds": [
        (3 * 44.739, 4 * 44.739),  # the written vectors forgotten
        (8 * 44.739, 12 * 44.739),  # float32
        (4 * 44.739, 5 * 44.739),  # the intermediate result not read back
        (0.179, 0.268),  # milliseconds
        4 * 44.739,
    ],
    "parallel-saturation": [
        1_350_000,  # as many bytes as cross in the fixed time, times 0.9
        27_000_000,  # written elements forgotten
        13_500,  # a thousand is missing
        1_666_667,  # 1 / (1 - 0.9) instead of 0.9 / (1 - 0.9)
    ],
}

WRONG_KERNELS = {
    "parallel-affine": {
        "b forgotten": ("a * x + b", "a * x"),
        "b scaled too": ("a * x + b", "a * (x + b)"),
        "store unmasked": ("a * x + b, mask=mask", "a * x + b"),
        "one element too many": ("offs < n", "offs <= n"),
        "one element missing": ("offs < n", "offs < n - 1"),
        "program taken for a block": ("pid * BLOCK + ", "pid + "),
        "first block only": ("pid * BLOCK + ", ""),
        "block size of the example": ("pid * BLOCK", "pid * 128"),
    },
    "parallel-reverse": {
        "within the block": ("n - 1 - offs", "pid * BLOCK + BLOCK - 1 - offs % BLOCK"),
        "off by one": ("n - 1 - offs", "n - offs"),
        "not reversed": ("(n - 1 - offs)", "offs"),
        "load unmasked": ("(n - 1 - offs), mask=mask, other=0.0", "(n - 1 - offs)"),
    },
    "parallel-strided": {
        "stride ignored": ("offs * stride", "offs"),
        "stride of the example": ("offs * stride", "offs * 2"),
        "mask counts strides": ("offs < n", "offs * stride < n"),
        "out strided as well": ("out_ptr + offs", "out_ptr + offs * stride"),
        "block strided, not its elements": (
            "x_ptr + offs * stride",
            "x_ptr + pid * BLOCK * stride + tl.arange(0, BLOCK)",
        ),
    },
    "parallel-luma": {
        "rounded down": (" + 128) // 256", ") // 256"),
        "weights of another standard": ("54 * r + 183 * g", "77 * r + 150 * g"),
        "planes, not pixels": ("rgb_ptr + 3 * offs + 1", "rgb_ptr + n + offs"),
        "blue for red": ("54 * r + 183 * g + 19 * b", "19 * r + 183 * g + 54 * b"),
        "divided too early": (
            "(54 * r + 183 * g + 19 * b + 128) // 256",
            "54 * r // 256 + 183 * g // 256 + 19 * b // 256",
        ),
        "in 16 bits with a sign": (" + 128)", " + 128).to(tl.int16)"),
    },
    "parallel-relu6": {
        "NaN below": ("tl.where(x < 0.0, 0.0, x)", "tl.where(x > 0.0, x, 0.0)"),
        "NaN above": ("tl.where(x > 6.0, 6.0, x)", "tl.where(x < 6.0, x, 6.0)"),
        "no upper bound": ("x = tl.where(x > 6.0, 6.0, x)", "pass"),
        "no lower bound": ("x = tl.where(x < 0.0, 0.0, x)", "pass"),
        "wrong bound": ("tl.where(x > 6.0, 6.0, x)", "tl.where(x > 5.0, 5.0, x)"),
    },
    "parallel-grid-stride": {
        "next block, not next turn": (
            "step = tl.num_programs(0).to(tl.int64) * BLOCK",
            "step = BLOCK",
        ),
        "all begin at 0": ("tl.program_id(0).to(tl.int64) * BLOCK", "0"),
        "four programs taken for granted": (
            "tl.num_programs(0).to(tl.int64) * BLOCK",
            "4 * BLOCK",
        ),
        "one turn only": ("range(start, n, step)", "range(start, start + 1, step)"),
        "last turn missing": (
            "range(start, n, step)",
            "range(start, n - BLOCK + 1, step)",
        ),
        "store unmasked": ("x * x, mask=mask", "x * x"),
    },
}

OFFSETS = "pid * BLOCK + tl.arange(0, BLOCK)"
TURNS = """start = tl.program_id(0).to(tl.int64) * BLOCK
    step = tl.num_programs(0).to(tl.int64) * BLOCK
    for first in range(start, n, step):
        offs = first + tl.arange(0, BLOCK)"""


def hard_wired():
    """Each kernel with a number in the place of BLOCK: everywhere, or by halves."""
    for name, kernel in MAP_KERNELS.items():
        line = TURNS if name == "parallel-grid-stride" else OFFSETS
        edits = {}
        for size in (64, 128, 256, 512, 1024, 2048):
            lanes = line.replace("arange(0, BLOCK)", f"arange(0, {size})")
            edits[f"{size}"] = line, line.replace("BLOCK", str(size))
            edits[f"{size} apart"] = line, line.replace("* BLOCK", f"* {size}")
            # More lanes than any block has: the next program does the same once more.
            if size < 512 or line is TURNS:
                edits[f"{size} lanes"] = line, lanes
        for mistake, mutant in mutants(kernel, edits):
            yield pytest.param(name, mutant, id=f"{name}: {mistake}")


# On a GPU guard bands see stray stores; a stray read that is thrown away goes unseen.
SEEN_BY_BOUNDS_CHECK = {("parallel-reverse", "load unmasked")}


def wrong_kernels():
    for name, edits in WRONG_KERNELS.items():
        for mistake, kernel in mutants(MAP_KERNELS[name], edits):
            if device.interpreting() or (name, mistake) not in SEEN_BY_BOUNDS_CHECK:
                yield pytest.param(name, kernel, id=f"{name}: {mistake}")


def two_roundings(x, y, z):
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    narrow_fused_kernel[(triton.cdiv(x.numel(), 256),)](
        x.contiguous(), y.contiguous(), z.contiguous(), out, x.numel(), BLOCK=256
    )
    return out


@triton.jit
def narrow_fused_kernel(x_ptr, y_ptr, z_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)
    y = tl.load(y_ptr + offs, mask=mask, other=0.0)
    z = tl.load(z_ptr + offs, mask=mask, other=0.0)
    tl.store(out_ptr + offs, (x + y) * z, mask=mask)


def strides_ignored(x, y, z):
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    n = x.numel()
    solutions.fused_kernel[(triton.cdiv(n, 256),)](x, y, z, out, n, BLOCK=256)
    return out


def tail_forgotten(x, y, z):
    x, y, z = x.contiguous(), y.contiguous(), z.contiguous()
    out = torch.empty_like(x)
    n = x.numel()
    solutions.fused_kernel[(n // 256,)](x, y, z, out, n, BLOCK=256)
    return out


def written_into_an_input(x, y, z):
    flat = x.contiguous()
    n = x.numel()
    solutions.fused_kernel[(triton.cdiv(n, 256),)](
        flat, y.contiguous(), z.contiguous(), flat, n, BLOCK=256
    )
    return flat


def flattened(x, y, z):
    return solutions.fused(x, y, z).flatten()


def in_torch(x, y, z):
    return (x.float() + y.float()).mul(z.float()).to(x.dtype)


def element_by_element(x, y, z):
    out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
    lists = [t.flatten().tolist() for t in (x, y, z)]
    for at, (a, b, c) in enumerate(zip(*lists, strict=True)):
        out.view(-1)[at] = (a + b) * c
    return out


class Remembered:
    """Computes once for each shape."""

    def __init__(self):
        self.seen = {}

    def __call__(self, x, y, z):
        key = (x.shape, x.dtype)
        return self.seen.setdefault(key, solutions.fused(x, y, z))


WRONG_FUNCTIONS = (
    two_roundings,
    strides_ignored,
    tail_forgotten,
    written_into_an_input,
    flattened,
    in_torch,
    element_by_element,
    Remembered(),
)


def test_there_are_eight_to_ten_of_them_found_by_name():
    assert 8 <= len(EXERCISES) <= 10
    for task in EXERCISES:
        assert exercise(task.name) is task
        assert task.statement
        assert task.hint
    names = {task.name for task in EXERCISES}
    assert names == MAP_KERNELS.keys() | ANSWERS.keys() | {"parallel-fused"}


@pytest.mark.parametrize("name", MAP_KERNELS)
def test_kernels_of_ours_are_taken(name):
    report = CHECK(name, MAP_KERNELS[name])
    assert report.shapes >= len(LENGTHS)


def reshaped(x, y, z):
    flat = solutions.fused(x.reshape(-1), y.reshape(-1), z.reshape(-1))
    return flat.reshape(x.shape)


@pytest.mark.parametrize("function", [solutions.fused, reshaped])
def test_right_functions_are_taken(function):
    assert CHECK("parallel-fused", function).shapes >= 6


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_are_taken(name):
    CHECK(name, ANSWERS[name])


@pytest.mark.parametrize(("name", "kernel"), list(wrong_kernels()))
def test_wrong_kernels_are_refused(name, kernel):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, kernel)


@pytest.mark.parametrize(("name", "kernel"), list(hard_wired()))
def test_kernels_with_a_hard_wired_block_are_refused(name, kernel):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, kernel, seed=1)


def test_lengths_lie_about_their_blocks_as_they_should():
    assert {block(n) for n in range(5)} == {64, 128, 256, 512, 1024}
    ends = {n: n % block(n) for (n,) in LENGTHS}
    assert (ends[256], ends[257], ends[255]) == (0, 1, block(255) - 1)
    assert 1 < ends[1000] < block(1000) - 1
    assert 1 < ends[2053] < block(2053) - 1
    assert len({block(n) for (n,) in LENGTHS}) >= 4


def test_programs_of_the_grid_stride_loop_are_one_and_fewer_and_more():
    found = set()
    for (n,) in GRID_STRIDE.shapes:

        class Kernel:
            def __getitem__(self, grid, n=n):
                blocks = triton.cdiv(n, block(n))
                few = 1 < grid[0] < blocks
                found.add("fewer" if few else "more" if grid[0] > blocks else grid[0])
                return lambda *args, **options: None

        GRID_STRIDE.launch(Kernel(), torch.empty(n))
    assert {"fewer", "more", 1} <= found


@pytest.mark.parametrize(
    ("name", "answer"), [(n, a) for n, given in WRONG_ANSWERS.items() for a in given]
)
def test_wrong_answers_are_refused(name, answer):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, answer)


@pytest.mark.parametrize(
    "function", WRONG_FUNCTIONS, ids=lambda f: getattr(f, "__name__", "remembered")
)
def test_wrong_functions_are_refused(function):
    with pytest.raises(CheckFailed, match="parallel-fused"):
        CHECK("parallel-fused", function)


def test_every_exercise_has_at_least_three_wrong_attempts():
    for name in MAP_KERNELS:
        assert len(WRONG_KERNELS[name]) >= 3
    for name in ANSWERS:
        assert len(WRONG_ANSWERS[name]) >= 3
    assert len(WRONG_FUNCTIONS) >= 3


@pytest.mark.parametrize(
    ("answer", "remark"), [((976, 579), "999,424 elements"), ((977, 579), "to do")]
)
def test_usual_miscounts_get_a_remark(answer, remark):
    with pytest.raises(CheckFailed, match=remark):
        CHECK("parallel-count", answer)


def test_saturation_solves_the_model():
    n = solutions.saturation(2.5, 3000.0, 2, 0.8)
    moving = 2 * 2 * n / (3000.0 * 1e9) * 1e6
    assert moving / (2.5 + moving) == pytest.approx(0.8, rel=1e-6)


def test_measured_saturation_leaves_no_slower_length_above_it():
    def model(n):
        return 4e-3 + 8 * n / 3e9

    def interrupted(n):
        return 10.0 if n == 2**26 else model(n)

    assert solutions.measured_saturation(0.9, milliseconds=model) == 2**24
    assert solutions.measured_saturation(0.9, milliseconds=interrupted) == 2**27
    assert solutions.measured_saturation(0.0, milliseconds=model) == 2**14


@pytest.mark.gpu
@pytest.mark.timed
def test_this_card_saturates_within_reason():
    assert 2**18 <= solutions.measured_saturation(0.9) <= 2**27


def test_microseconds_counts_every_vector_that_crosses_the_bus():
    fused, separate = solutions.microseconds(10**9, 4, 1000.0)
    assert (fused, separate) == pytest.approx((16e3, 24e3))


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
@pytest.mark.parametrize("name", MAP_KERNELS)
def test_kernels_compile_everywhere(name, target):
    x = torch.empty(1000, dtype=torch.uint8 if name == "parallel-luma" else None)
    tensors = (x,) if name == "parallel-grid-stride" else (x, torch.empty_like(x))
    numbers = {"parallel-affine": (1.5, 2.5), "parallel-strided": (2,)}.get(name, ())
    artefact = compile_only.compile(
        MAP_KERNELS[name], *tensors, *numbers, 1000, target=target, BLOCK=256
    )
    assert artefact.target == target
    assert artefact.asm.keys() & {"cubin", "hsaco"}


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_the_fused_kernel_compiles_everywhere(target):
    x = torch.empty(1000, dtype=torch.bfloat16)
    artefact = compile_only.compile(
        solutions.fused_kernel, x, x, x, x, 1000, target=target, BLOCK=1024
    )
    assert artefact.target == target
    assert artefact.asm.keys() & {"cubin", "hsaco"}


def test_the_self_test_has_five_questions_with_computed_answers():
    assert len(selftest.QUESTIONS) == 5
    answers = [q.answer for q in selftest.QUESTIONS]
    assert answers[0] == "10 programs, 240 idle lanes"
    assert answers[1] == "8"
    assert answers[3] == "2,097,152"
    for question in selftest.QUESTIONS:
        assert len(set(question.options)) == 4
        assert question.text.endswith("?")
        assert question.explanation


def test_a_question_without_its_answer_is_refused():
    with pytest.raises(ValueError, match="must be one option"):
        selftest.Question("What?", ("this", "that"), "neither", "because")
