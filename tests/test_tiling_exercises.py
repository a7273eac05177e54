"""The checker takes our solutions and refuses plausible wrong ones."""

from functools import partial

import pytest
import torch
import triton
from triton.tools.tensor_descriptor import TensorDescriptor

from tilebook import compile_only, testing
from tilebook.testing import CheckFailed, check, exercise, mutants
from tilebook.tiling import by_hand, naive, solutions
from tilebook.tiling.exercises import EXERCISES, SHAPES, blocks

CHECK = partial(check, quiet=True)
KERNELS = {
    "tiling-outer": solutions.outer_kernel,
    "tiling-stack": solutions.stack_kernel,
    "tiling-flip": solutions.flip_kernel,
    "tiling-sums": solutions.sums_kernel,
}
ANSWERS = {
    "tiling-offset": 75 * 128 + 36,
    "tiling-lines": (32, 1024),
    "tiling-grouped": (272, 128),
    "tiling-holds": (1, 14, 0, 18),
}
# Each is a mistake that is easily made at that exercise.
WRONG_ANSWERS = {
    "tiling-offset": [
        37 * 128 + 31,  # the view taken for the matrix
        74 * 128 + 36,  # the first row forgotten
        75 * 123 + 36,  # the view's width for the matrix's
        75 * 128 + 31,  # the five columns forgotten
    ],
    "tiling-lines": [(32, 32), (1024, 32), (8, 1024), (32, 8192), 32],
    "tiling-holds": [
        (1, 14, 1, 14),  # nothing moves
        (5, 14, 12, 18),  # warps that the program doesn't have
        (1, 6, 0, 2),  # lanes of one row of threads
        (0, 18, 1, 14),  # the two sides swapped
        (3, 25, 1, 0),  # numbered along dimension 0 first
    ],
    "tiling-grouped": [(256, 128), (272, 64), (32, 128), (128, 272), (272, 80)],
}
WRONG_KERNELS = {
    "tiling-outer": {
        "turned round": ("x[:, None] + y[None, :]", "y[None, :] + x[None, :]"),
        "rows of m": ("offs_m[:, None] * n", "offs_m[:, None] * m"),
        "store unmasked": ("out, mask=mask", "out"),
        "only rows masked": (" & (offs_n < n)[None, :]", ""),
        "one mask for both": (
            "(offs_m < m)[:, None] & (offs_n < n)[None, :]",
            "offs_m[:, None] * n + offs_n[None, :] < m * n",
        ),
        "one axis of the grid": ("tl.program_id(1)", "tl.program_id(0)"),
    },
    "tiling-stack": {
        "not turned": ("tl.trans(x, 0, 2, 1)", "tl.reshape(x, (1, BLOCK_N, BLOCK_M))"),
        "offsets not turned": ("[b, start_n, start_m]", "[b, start_m, start_n]"),
        "the first matrix only": ("[b, start_m, start_n]", "[0, start_m, start_n]"),
        "axes of the grid swapped": (
            "tl.program_id(1) * BLOCK_M, tl.program_id(2) * BLOCK_N",
            "tl.program_id(2) * BLOCK_M, tl.program_id(1) * BLOCK_N",
        ),
        "tiles for elements": ("tl.program_id(1) * BLOCK_M", "tl.program_id(1)"),
    },
    "tiling-flip": {
        "within the tile": (
            "n - 1 - offs_n",
            "tl.program_id(1) * BLOCK_N + BLOCK_N - 1 - tl.arange(0, BLOCK_N)",
        ),
        "off by one": ("n - 1 - offs_n", "n - offs_n"),
        "strides swapped": (
            "offs_m[:, None] * stride_m + from_n[None, :] * stride_n",
            "offs_m[:, None] * stride_n + from_n[None, :] * stride_m",
        ),
        "last stride ignored": ("from_n[None, :] * stride_n", "from_n[None, :]"),
        "contiguous taken for granted": (
            "offs_m[:, None] * stride_m",
            "offs_m[:, None] * n",
        ),
    },
    "tiling-sums": {
        "first tile only": ("acc += tl.sum", "acc = tl.sum"),
        "last rows left out": (
            "range(0, m, BLOCK_M)",
            "range(0, m - BLOCK_M, BLOCK_M)",
        ),
        "rows unmasked": ("(offs_m < m)[:, None] & ", ""),
        "summed the other way": ("tl.sum(x, axis=0)", "tl.sum(x, axis=1)"),
        "lanes of ones": ("other=0.0", "other=1.0"),
    },
}


def wrong_kernels():
    for name, edits in WRONG_KERNELS.items():
        for mistake, kernel in mutants(KERNELS[name], edits):
            yield pytest.param(name, kernel, id=f"{name}: {mistake}")


def strides_ignored(x):
    h, w = x.shape[0] // 2, x.shape[1] // 2
    out = torch.empty((h, w), dtype=x.dtype, device=x.device)
    if out.numel():
        grid = (triton.cdiv(h, 8), triton.cdiv(w, 32))
        solutions.pool_kernel[grid](x, out, h, w, x.shape[1], 1, BLOCK_H=8, BLOCK_W=32)
    return out


def rounded_up(x):
    return solutions.pool(x) if x.shape[1] % 2 == 0 else solutions.pool(x[:, 1:])


def in_torch(x):
    return torch.nn.functional.avg_pool2d(x[None], 2)[0]


def one_tile(x):
    h, w = x.shape[0] // 2, x.shape[1] // 2
    out = torch.empty((h, w), dtype=x.dtype, device=x.device)
    if out.numel():
        solutions.pool_kernel[(1, 1)](x, out, h, w, *x.stride(), BLOCK_H=8, BLOCK_W=32)
    return out


WRONG_FUNCTIONS = (strides_ignored, rounded_up, in_torch, one_tile)


def test_there_are_six_to_ten_of_them_found_by_name():
    assert 6 <= len(EXERCISES) <= 10
    for task in EXERCISES:
        assert exercise(task.name) is task
        assert task.statement
        assert task.hint
    names = {task.name for task in EXERCISES}
    assert names == KERNELS.keys() | ANSWERS.keys() | {"tiling-pool"}


def test_shapes_meet_several_tiles():
    sides = {tuple(blocks(m, n).values()) for m, n in SHAPES}
    assert len(sides) >= 3
    assert all(m != n for m, n in sides)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_ours_are_taken(name):
    least = len(SHAPES) if name != "tiling-stack" else 5
    assert CHECK(name, KERNELS[name]).shapes >= least


@pytest.mark.parametrize("function", [solutions.pool, solutions.pool_wide])
def test_functions_of_ours_are_taken(function):
    assert CHECK("tiling-pool", function).shapes >= 6


def test_the_wide_one_loads_16_bytes_at_a_time():
    """As the evidence lines on the page say."""
    x, out = (torch.empty(side, side, device="meta") for side in (8192, 4096))
    widths = [
        compile_only.compile(
            kernel, x, out, 4096, 4096, *strides, BLOCK_H=8, BLOCK_W=32
        ).evidence.global_loads
        for kernel, strides in (
            (solutions.pool_kernel, (8192, 1)),
            (solutions.pool_wide_kernel, (8192,)),
        )
    ]
    assert [set(found) for found in widths] == [{32}, {128}]


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_are_taken(name):
    CHECK(name, ANSWERS[name])


@pytest.mark.parametrize(("name", "kernel"), list(wrong_kernels()))
def test_wrong_kernels_are_refused(name, kernel):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, kernel)


@pytest.mark.parametrize("name", [n for n in KERNELS if n != "tiling-stack"])
def test_hard_wired_tiles_are_refused(name):
    edits = {
        "rows": ("tl.arange(0, BLOCK_M)", "tl.arange(0, 8)"),
        "columns": ("tl.arange(0, BLOCK_N)", "tl.arange(0, 32)"),
    }
    for _, kernel in mutants(KERNELS[name], edits):
        with pytest.raises(CheckFailed, match=name):
            CHECK(name, kernel)


@pytest.mark.parametrize(
    ("name", "answer"), [(n, a) for n, given in WRONG_ANSWERS.items() for a in given]
)
def test_wrong_answers_are_refused(name, answer):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, answer)


@pytest.mark.parametrize("function", WRONG_FUNCTIONS)
def test_wrong_functions_are_refused(function):
    with pytest.raises(CheckFailed, match="tiling-pool"):
        CHECK("tiling-pool", function)


def test_answers_are_what_launches_do():
    x = torch.arange(200 * 128).view(200, 128)
    assert x[1::2, 5:][37, 31] == ANSWERS["tiling-offset"]
    assert by_hand.reads(8, 4).blocks == solutions.grouped(8, 4)[1]
    assert naive.BLOCK == 1024


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_solutions_compile_everywhere(target):
    x = torch.empty((64, 64), device="meta")
    tile = {"BLOCK_M": 16, "BLOCK_N": 32}
    names = KERNELS if target == "sm_90" else ("tiling-flip",)
    for name in names:
        if name == "tiling-stack":
            continue
        tensors = (x, x, x) if name == "tiling-outer" else (x, x)
        strides = (64, 1) if name == "tiling-flip" else ()
        evidence = compile_only.compile(
            KERNELS[name], *tensors, 64, 64, *strides, **tile, target=target
        ).evidence
        assert evidence.spill_store_bytes == 0


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_the_stack_compiles_everywhere(target):
    x = torch.empty(3, 64, 64, device="meta")
    descriptors = (
        TensorDescriptor.from_tensor(x, [1, 16, 32]),
        TensorDescriptor.from_tensor(x, [1, 32, 16]),
    )
    evidence = compile_only.compile(
        solutions.stack_kernel, *descriptors, BLOCK_M=16, BLOCK_N=32, target=target
    ).evidence
    assert evidence.spill_store_bytes == 0
    assert bool(evidence.tma_stores) == (target in ("sm_90", "sm_100"))


def test_repeats_are_equal(device):
    x = torch.randn(20, 40, device=device)
    testing.deterministic(lambda: solutions.pool(x), 3)
