"""The checker takes our solutions and refuses plausible wrong ones."""

from functools import partial

import numpy as np
import pytest
import torch
import triton
import triton.language as tl

from tilebook import compile_only, device
from tilebook.matmul import accuracy, selftest, solutions, tile
from tilebook.matmul.exercises import EXERCISES, SHAPES, blocks
from tilebook.testing import CheckFailed, check, exercise, mutants

CHECK = partial(check, quiet=True)
KERNELS = {
    "matmul-strips": solutions.strips_kernel,
    "matmul-gelu": solutions.gelu_kernel,
    "matmul-parts": solutions.parts_kernel,
    "matmul-scales": solutions.scales_kernel,
    "matmul-complex": solutions.complex_kernel,
    "matmul-triangle": solutions.triangle_kernel,
    "matmul-exact": solutions.exact_kernel,
}
ONCE = 2 * (4096 * 4096 + 4096 * 8192)
ANSWERS = {
    "matmul-traffic": (2**33, 3 * 2**30),
    "matmul-room": (128, 3, 2),
}
# Each is a mistake that is easily made at that exercise.
WRONG_ANSWERS = {
    "matmul-traffic": [
        (2**32, 3 * 2**29),  # elements
        (ONCE, ONCE),  # each operand once
        (2**33, 2**32),  # of the larger tile the shorter side twice
        (2**32, 2**31),  # one operand
        (2**33 + 2 * 4096 * 8192, 3 * 2**30 + 2 * 4096 * 8192),  # what is stored, too
        2**33,
    ],
    "matmul-room": [
        (512, 3, 2),  # of a lane of one warp
        (128, 4, 1),  # rounded up
        (128, 3, 7),  # the stages of a program that is alone
        (128, 12, 2),  # warps, not programs
        (128, 3, 4),  # the columns forgotten
    ],
}
WRONG_KERNELS = {
    "matmul-strips": {
        "sides mixed up": ("pid // (GROUP * tiles_m), pid % (GROUP * tiles_m)",
                           "pid // (GROUP * tiles_n), pid % (GROUP * tiles_n)"),
        "last strip as wide": ("tl.minimum(tiles_n - first, GROUP)", "GROUP"),
        "column by column": ("within // width, first + within % width",
                             "within % tiles_m, first + within // tiles_m"),
        "within the strip": ("first + within % width", "within % width"),
        "no strips": ("within // width, first + within % width",
                      "pid // tiles_n, pid % tiles_n"),
    },
    "matmul-gelu": {
        "no bias": ("x = acc + bias.to(tl.float32)[None, :]",
                          "x = acc"),
        "tanh": ("tl.erf(x * 0.7071067811865476)",
                 "2.0 * tl.sigmoid(1.5957691216 * (x + 0.044715 * x * x * x)) - 1.0"),
        "rounded first": ("x = acc + bias.to(tl.float32)[None, :]",
                          "x = acc.to(tl.bfloat16).to(tl.float32)"
                          " + bias.to(tl.float32)[None, :]"),
        "terms unmasked": ("mask=(offs_k < k)[:, None] & in_n", "mask=in_n"),
        "stored unmasked": ("out, mask=in_m & in_n", "out"),
        "narrow sum": ("acc = tl.dot(a, b, acc)",
                       "acc = (acc + tl.dot(a, b)).to(tl.bfloat16).to(tl.float32)"),
        "bias in every step": ("acc = tl.dot(a, b, acc)",
                               "acc = tl.dot(a, b, acc) + tl.load(bias_ptr + offs_n,"
                               " mask=offs_n < n, other=0.0)[None, :]"),
        "last block dropped": ("range(0, k, BLOCK_K)",
                               "range(0, k // BLOCK_K * BLOCK_K, BLOCK_K)"),
    },
    "matmul-parts": {
        "rounded down": ("tl.cdiv(tl.cdiv(k, BLOCK_K), PARTS)",
                         "(tl.cdiv(k, BLOCK_K) // PARTS)"),
        "no end": ("tl.minimum(part * span + span, k)", "k"),
        "terms evenly": ("tl.cdiv(tl.cdiv(k, BLOCK_K), PARTS) * BLOCK_K",
                         "tl.cdiv(k, PARTS)"),
        "in turns": ("range(part * span, tl.minimum(part * span + span, k), BLOCK_K)",
                     "range(part * BLOCK_K, k, PARTS * BLOCK_K)"),
        "one place for all": ("out_ptr += part.to(tl.int64) * m * n",
                              "out_ptr += 0"),
        "empty parts unwritten": ("mask=in_m & in_n)",
                                  "mask=in_m & in_n & (part * span < k))"),
    },
    "matmul-scales": {
        "scales swapped": ("scale_a[:, None] * scale_b[None, :]",
                           "scale_b[:, None] * scale_a[None, :]"),
        "one scale": (" * scale_b[None, :]", ""),
        "sums in bytes": ("acc.to(tl.float32)", "acc.to(tl.int8).to(tl.float32)"),
        "sums in half": ("acc.to(tl.float32)", "acc.to(tl.float16).to(tl.float32)"),
        # What is read beyond one matrix alone meets zeros of the other.
        "terms of one unmasked": ("mask=in_m & (offs_k < k)[None, :]", "mask=in_m"),
        "terms unmasked": (
            "mask=in_m & (offs_k < k)[None, :], other=0)\n"
            "        b = tl.load(b_at, mask=(offs_k < k)[:, None] & in_n, other=0)",
            "mask=in_m, other=0)\n"
            "        b = tl.load(b_at, mask=in_n, other=0)",
        ),
        "rounded scales": ("scale_a[:, None]",
                           "scale_a.to(tl.bfloat16).to(tl.float32)[:, None]"),
    },
    "matmul-complex": {
        "sign of the real part": ("re_ptr + at, real - imag",
                                  "re_ptr + at, real + imag"),
        "one product left in": ("both - real - imag", "both - real"),
        "difference": ("tl.dot(ar + ai, br + bi,", "tl.dot(ar + ai, br - bi,"),
        "parts swapped": ("tl.store(re_ptr + at, real - imag",
                          "tl.store(re_ptr + at, both - real - imag"),
        "terms unmasked": ("tl.load(bi_ptr + b_at, mask=in_b",
                           "tl.load(bi_ptr + b_at, mask=in_n"),
        "four products": (
            'both = tl.dot(ar + ai, br + bi, both, input_precision="ieee")',
            'both = tl.dot(ar, br + bi, both, input_precision="ieee")\n'
            '        both = tl.dot(ai, br + bi, both, input_precision="ieee")',
        ),
    },
    "matmul-triangle": {
        "not mirrored": ("tl.store(mirrored, tl.trans(out), mask=tl.trans(mask))",
                         "pass"),
        "mirrored as it is": ("tl.store(mirrored, tl.trans(out),",
                              "tl.store(mirrored, out,"),
        "mask as it is": ("mask=tl.trans(mask)", "mask=mask"),
        "whole square": ("row, column = place(tl.program_id(0))",
                         "row, column = tl.program_id(0) // tl.cdiv(m, BLOCK),"
                         " tl.program_id(0) % tl.cdiv(m, BLOCK)"),
        "above the diagonal": ("row, column = place(tl.program_id(0))",
                               "column, row = place(tl.program_id(0) + 1)"),
        "not transposed": ("tl.dot(a, tl.trans(b), acc)",
                           "tl.dot(b, tl.trans(a), acc)"),
    },
    "matmul-exact": {
        "three products": ("small = tl.dot(a_middle, b_middle)\n"
                           "        small = tl.dot(a_high, b_low, small)\n"
                           "        small = tl.dot(a_low, b_high, small)\n"
                           "        small = tl.dot(a_high, b_middle, small)",
                           "small = tl.dot(a_high, b_middle)"),
        "one product": ("acc += small", "pass"),
        "middles left out": ("small = tl.dot(a_middle, b_middle)",
                             "small = tl.dot(a_middle, b_middle) * 0.0"),
        "low of b left out": ("small = tl.dot(a_high, b_low, small)",
                              "small = tl.dot(a_middle, b_low, small)"),
        "TF32": ("acc = tl.dot(a_high, b_high, acc)\n        acc += small",
                 'acc = tl.dot(a, b, acc, input_precision="tf32")'),
        "no tensor core": ("acc = tl.dot(a_high, b_high, acc)\n        acc += small",
                           'acc = tl.dot(a, b, acc, input_precision="ieee")'),
        "sum in bfloat16": ("acc += small",
                            "acc = (acc + small).to(tl.bfloat16).to(tl.float32)"),
    },
}  # fmt: skip


# On a GPU guard bands see stray stores; a stray read that changes nothing goes unseen.
SEEN_BY_BOUNDS_CHECK = {("matmul-scales", "terms of one unmasked")}


def wrong_kernels():
    for name, edits in WRONG_KERNELS.items():
        for mistake, kernel in mutants(KERNELS[name], edits):
            if device.interpreting() or (name, mistake) not in SEEN_BY_BOUNDS_CHECK:
                yield pytest.param(name, kernel, id=f"{name}: {mistake}")


def test_there_are_eight_to_ten_of_them_found_by_name():
    assert 8 <= len(EXERCISES) <= 10
    for task in EXERCISES:
        assert exercise(task.name) is task
        assert task.statement
        assert task.hint
    assert {task.name for task in EXERCISES} == KERNELS.keys() | ANSWERS.keys()
    assert all(len(edits) >= 3 for edits in WRONG_KERNELS.values())
    assert WRONG_KERNELS.keys() == KERNELS.keys()


def test_tiles_are_whole_and_ragged_one_and_several():
    ways = set()
    for m, n, k in SHAPES:
        sides = blocks(m, n, k).values()
        assert min(sides) >= 16
        for size, side in zip((m, n, k), sides, strict=True):
            ways.add((size > side, size % side == 0))
    assert ways == {(True, True), (True, False), (False, True), (False, False)}


@pytest.mark.parametrize("name", KERNELS)
def test_kernels_of_ours_are_taken(name):
    assert CHECK(name, KERNELS[name]).shapes >= 4


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_are_taken(name):
    CHECK(name, ANSWERS[name])


@pytest.mark.parametrize(("name", "kernel"), list(wrong_kernels()))
def test_wrong_kernels_are_refused(name, kernel):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, kernel)


@pytest.mark.parametrize(
    ("name", "answer"), [(n, a) for n, given in WRONG_ANSWERS.items() for a in given]
)
def test_wrong_answers_are_refused(name, answer):
    with pytest.raises(CheckFailed, match=name):
        CHECK(name, answer)


def test_remarks_fit_the_mistake():
    explain = exercise("matmul-traffic").explain
    assert "elements" in explain(WRONG_ANSWERS["matmul-traffic"][0])
    assert "needed once" in explain(WRONG_ANSWERS["matmul-traffic"][1])
    assert explain(1) is None
    assert explain((1, 2)) is None


@pytest.mark.parametrize(
    ("mistake", "words"),
    [("four products", "three are enough"), ("no tensor core", "No tensor core")],
)
def test_what_values_do_not_show_is_seen(mistake, words):
    name = "matmul-complex" if "four" in mistake else "matmul-exact"
    edits = {mistake: WRONG_KERNELS[name][mistake]}
    ((_, kernel),) = mutants(KERNELS[name], edits)
    assert words in exercise(name).watch(kernel)
    assert exercise(name).watch(KERNELS[name]) is None


def test_stages_that_have_room_are_those_that_compile():
    """The answer's stages are what a compiled kernel asks for; one more is too much."""
    _, programs, stages = ANSWERS["matmul-room"]
    x = torch.empty((4096, 4096), dtype=torch.bfloat16, device="meta")
    args = (x, x, x, 4096, 4096, 4096, *[4096, 1] * 3)
    meta = {"ACC": tl.float32, "PRECISION": "ieee", "num_warps": 4}
    meta |= {"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}
    for count in (stages, stages + 1):
        found = compile_only.compile(
            tile.matmul_kernel, *args, **meta, num_stages=count, target="sm_90"
        ).evidence
        fits = programs * (found.shared_bytes + 1024) <= 228 * 1024
        assert fits == (count == stages)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_solutions_compile_everywhere(target):
    sides = {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32}

    def of(dtype, *shape):
        return torch.empty(shape or (64, 64), dtype=dtype, device="meta")

    half, single, whole = of(torch.bfloat16), of(torch.float32), of(torch.int8)
    launches = {
        "matmul-strips": ((single, single, 64, 64), {"GROUP": 4}),
        "matmul-gelu": ((half, half, half, single, 64, 64, 64), sides),
        "matmul-parts": ((half, half, single, 64, 64, 64), {**sides, "PARTS": 4}),
        "matmul-scales": (
            (whole, whole, single, single, single, 64, 64, 64), sides,
        ),
        "matmul-triangle": ((half, half, 64, 64), {"BLOCK": 32, "BLOCK_K": 32}),
        "matmul-exact": ((single, single, single, 64, 64, 64), sides),
    }  # fmt: skip
    for name in launches if target == "sm_90" else ("matmul-triangle",):
        args, meta = launches[name]
        evidence = compile_only.compile(
            KERNELS[name], *args, **meta, target=target
        ).evidence
        assert evidence.spill_store_bytes == 0
        assert bool(evidence.mma) == (name != "matmul-strips")


# A program's number is never a constant, as an argument of 1 would be.
@triton.jit(do_not_specialize=["pid"])
def place_kernel(pid, out_ptr):
    row, column = solutions.place(pid)
    tl.store(out_ptr, row)
    tl.store(out_ptr + 1, column)


@pytest.mark.parametrize("row", [0, 1, 2, 1000, 4095, 10_000, 20_000, 32_000])
def test_the_triangle_is_right_where_its_root_is_rounded(row):
    out = torch.empty(2, dtype=torch.int32, device=device.torch_device())
    before = row * (row + 1) // 2
    for column in {0, row // 2, row}:
        place_kernel[(1,)](before + column, out)
        assert out.tolist() == [row, column]


def test_the_selftest_has_five_questions_with_different_options():
    assert len(selftest.QUESTIONS) == 5
    for question in selftest.QUESTIONS:
        assert len(set(question.options)) == 4
        assert question.answer in question.options
        assert question.text.strip()
        assert len(question.explanation) > 40
    places = [q.options.index(q.answer) for q in selftest.QUESTIONS]
    assert len(set(places)) >= 2


def test_two_orders_of_a_sum_may_round_to_neighbours_and_no_farther():
    a = np.random.default_rng(5).standard_normal((8, 40))
    out = (a @ a.T).astype(np.float32)
    out = torch.from_numpy(out).bfloat16().double().numpy()
    near = out.copy()
    near[3, 1] *= 1 + 2.0**-7
    far = out.copy()
    far[3, 1] *= 1 + 2.0**-5
    assert accuracy.symmetric(out, a)
    assert accuracy.symmetric(near, a)
    assert not accuracy.symmetric(far, a)
    assert accuracy.symmetric(out[:0, :0], a[:0])
    assert not accuracy.symmetric(np.full((2, 2), np.nan), a[:2])
