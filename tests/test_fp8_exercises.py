"""The checker takes our solutions and refuses plausible wrong ones."""

from functools import partial

import pytest
import torch

from tilebook import compile_only
from tilebook import device as here
from tilebook.fp8 import (
    accumulation,
    conclusions,
    errors,
    exercises,
    exercises_products,
    formats,
    products,
    scaling,
    selftest,
    shapes,
    solutions,
)
from tilebook.fp8.exercises import EXERCISES
from tilebook.matmul.shapes import Shape
from tilebook.testing import CheckFailed, check, mutants, mutated_module

CHECK = partial(check, quiet=True)
ANSWERS = {
    "fp8-codes": (22.0, 224.0, 120),
    "fp8-ranges": (28672.0, 458752.0, 254.0),
    "fp8-floor": (235673600, 78.558, 353),
}
KERNELS = {
    "fp8-round": "round_kernel",
    "fp8-powers": "powers_kernel",
    "fp8-turned": "turned_kernel",
    "fp8-blocks": "blocks_kernel",
    "fp8-promoted": "promoted_kernel",
    "fp8-split": "split_kernel",
}
# Each is a mistake that is easily made at that exercise.
WRONG_ANSWERS = {
    "fp8-codes": [
        (11.0, 224.0, 120),  # a bias of 8
        (22.0, 448.0, 120),  # a bias of 14
        (6.0, 224.0, 120),  # without the hidden bit
        (22.0, 224.0, 121),  # the next one but one
        (22.0, 224.0, 256),  # the number, not its code
        22.0,
    ],
    "fp8-ranges": [
        (28672.0, 229376.0, 254.0),  # the smallest number itself
        (28672.0, 458752.0, 127.0),  # a whole step of int8
        (448.0, 458752.0, 254.0),  # the smallest normal number is not 1
        (65536.0, 458752.0, 254.0),  # powers of two
        (28672.0, 28672.0, 254.0),  # no subnormal numbers
    ],
    "fp8-floor": [
        (236597248, 78.866, 353),  # scales of the weight by 1 x 128, an eighth of them
        (234881024 + 16 * 28672, 78.447, 353),  # no result, no scales
        (235673600, 78.558, 330),  # codes of the weight alone
        (235673600, 78.558, 706),  # a multiply-add for an operation
        (471347200, 157.116, 353),  # two bytes for a code
    ],
}
# Old and new text, in the module of the solutions.
WRONG_KERNELS = {
    "fp8-round": {
        "ties away from zero": ("0x7FFFF + ((size >> 20) & 1)", "0x80000"),
        "cut off": ("half = 0x7FFFF + ((size >> 20) & 1)", "half = 0"),
        "no subnormal numbers": ("2.0**-6, subnormal, normal", "2.0**-6, 0, normal"),
        "too coarse below": ("tl.full((), 16384.0", "tl.full((), 32768.0"),
        "into the NaN": ("tl.minimum(code, 0x7E)", "tl.minimum(code, 0x7F)"),
        "around the end": ("    code = tl.minimum(code, 0x7E)\n", ""),
        "NaN becomes 448": (
            "    code = tl.where(size > 0x7F800000, 0x7F, code)\n", ""
        ),
        "infinity becomes NaN": ("size > 0x7F800000, 0x7F", "size >= 0x7F800000, 0x7F"),
        "no sign": ("    code |= (bits >> 24) & 0x80\n", ""),
        "bias of 8": ("(120 << 3)", "(119 << 3)"),
    },
    "fp8-powers": {
        "bias off by one": ("(amax >> 23) - 8", "(amax >> 23) - 7"),
        "the exponent of 256 forgotten": ("(amax >> 23) - 8", "(amax >> 23)"),
        "rounded up": ("(amax >> 23) - 8", "((amax + 0x7FFFFF) >> 23) - 8"),
        "around the lower end": (
            "tl.maximum((amax >> 23) - 8, 0)", "(amax >> 23) - 8"
        ),
        "no NaN": ("    code = tl.where(amax >= 0x7F800000, 255, code)\n", ""),
        "infinity is a number": ("amax >= 0x7F800000, 255", "amax > 0x7F800000, 255"),
        "signs": ("& 0x7FFFFFFF, (BLOCK", ", (BLOCK"),
        "one code for a row": ("amax = tl.max(size, axis=1)",
                               "amax = tl.max(size, axis=1) * 0 + tl.max(size)"),
    },
    "fp8-turned": {
        "scales the wrong way round": (
            "scale_ptr + offs_k * tl.num_programs(0) + tl.program_id(0)",
            "scale_ptr + tl.program_id(0) * k + offs_k",
        ),
        "codes not turned": ("offs_k[:, None] * m + offs_m[None, :]",
                             "offs_k[:, None] + offs_m[None, :] * k"),
        "no smallest scale": (
            "tl.maximum(tl.max(tl.abs(x), axis=0), 448 * 2.0**-120)",
            "tl.max(tl.abs(x), axis=0)",
        ),
        "no magnitudes": ("tl.max(tl.abs(x), axis=0)", "tl.max(x, axis=0)"),
        "one scale for the tile": ("tl.max(tl.abs(x), axis=0), 448",
                                   "tl.max(tl.abs(x)), 448"),
        "without the mask": ("tl.trans(y), mask=tl.trans(mask)", "tl.trans(y)"),
        "the inverse for the scale": ("tl.store(scale_at, scale, mask",
                                      "tl.store(scale_at, 1 / scale, mask"),
    },
    "fp8-blocks": {
        "blocks by the step": (
            "scale_b_ptr + offs_n // 128 * blocks + start // 128",
            "scale_b_ptr + offs_n // 128 * blocks + start // BLOCK_K",
        ),
        "groups by the tile": ("offs_n // 128 * blocks", "offs_n // BLOCK_N * blocks"),
        "one group for a tile": ("offs_n // 128 * blocks",
                                 "(offs_n * 0 + tl.program_id(1)) * blocks"),
        "scaled at the end": (
            "acc += tl.dot(a, b) * left[:, None] * right[None, :]",
            "acc = (acc + tl.dot(a, b)) * left[:, None] * right[None, :]",
        ),
        "left alone": ("* left[:, None] * right[None, :]", "* left[:, None]"),
        "first block's": ("offs_m * blocks + start // 128", "offs_m * blocks"),
        "blocks rounded down": ("blocks = tl.cdiv(k, 128)", "blocks = k // 128"),
    },
    "fp8-split": {
        "one product": ("acc += tl.dot(a_high, b_high) + small * 0.0625",
                        "acc += tl.dot(a_high, b_high)"),
        "two products": ("tl.dot(a_low, b_high) + tl.dot(a_high, b_low)",
                         "tl.dot(a_low, b_high)"),
        "the other small one twice": (
            "tl.dot(a_low, b_high) + tl.dot(a_high, b_low)",
            "tl.dot(a_low, b_high) + tl.dot(a_low, b_high)",
        ),
        "not scaled back": ("small * 0.0625", "small"),
        "as small as it is": ("high.to(tl.float32)) * 16.0\n    return high, low.to",
                              "high.to(tl.float32))\n    return high, (low * 1.0).to"),
        "the rest of nothing": ("x.to(tl.float32) - high.to(tl.float32)",
                                "x.to(tl.float32) - x.to(tl.float32)"),
    },
}  # fmt: skip
# The same for the one kernel whose lines another one has, too.
NOT_PROMOTED = {
    "all of it": ("acc += tl.dot(a, b)", "acc = tl.dot(a, b, acc)"),
    "the sum twice": ("acc += tl.dot(a, b)", "acc += tl.dot(a, b, acc)"),
    "the last block": ("range(0, k, BLOCK_K)", "range(0, k - BLOCK_K + 1, BLOCK_K)"),
    "terms of the next row": ("mask=in_m & (offs_k < k)[None, :]", "mask=in_m"),
    "two blocks": (
        "acc += tl.dot(a, b)",
        "acc += tl.dot(a, b) if start % 256 == 0 else tl.dot(a, b) * 0",
    ),
}
# Right products that aren't what was asked for.
OTHER_WAYS = {
    "sixteen bits": (
        "acc += tl.dot(a_high, b_high) + small * 0.0625", "acc += tl.dot(a, b)",
        "No tensor core multiplies e4m3|wider than 8 bits",
    ),
    "four products": (
        "tl.dot(a_low, b_high) + tl.dot(a_high, b_low)",
        "tl.dot(a_low, b_high) + tl.dot(a_high, b_low) + "
        "tl.dot(a_low, b_low) * 0.0625",
        "4 products of tiles: three are enough",
    ),
}  # fmt: skip


@pytest.fixture(autouse=True)
def eight_bits(device):
    if device.type == "cuda" and not here.has("fp8"):
        pytest.skip("needs 8-bit matrix instructions")


def test_every_exercise_is_ours_and_has_a_hint():
    names = [each.name for each in EXERCISES]
    assert len(names) == 9
    assert set(names) == {*ANSWERS, *KERNELS}
    assert all(each.hint and each.statement for each in EXERCISES)


@pytest.mark.parametrize("name", ANSWERS)
def test_right_answers_are_taken(name):
    CHECK(name, ANSWERS[name])


@pytest.mark.parametrize(
    ("name", "got"), [(n, got) for n, each in WRONG_ANSWERS.items() for got in each]
)
def test_wrong_answers_are_refused(name, got):
    with pytest.raises(CheckFailed):
        CHECK(name, got)


@pytest.mark.parametrize(
    ("name", "got", "said"),
    [
        ("fp8-codes", (44.0, 224.0, 120), "a code of 0x38 stands for 1"),
        ("fp8-codes", (6.0, 224.0, 120), "isn't written"),
        ("fp8-codes", (22.0, 224.0, 121), "256 is above 250"),
        ("fp8-ranges", (28672.0, 229376.0, 254.0), "smallest one itself"),
    ],
)
def test_near_misses_are_told_what_they_are(name, got, said):
    with pytest.raises(CheckFailed, match=said):
        CHECK(name, got)


def test_answers_are_those_of_the_package():
    first, second, third = ANSWERS["fp8-codes"]
    assert formats.value(exercises.CODE, formats.E4M3) == first
    assert formats.value(exercises.CODE, formats.E5M2) == second
    assert formats.value(third, formats.E4M3) > 250
    assert formats.value(third - 1, formats.E4M3) < 250
    subnormal, gone, _ = ANSWERS["fp8-ranges"]
    beside = torch.tensor([448 / subnormal, 448 / gone, 448 / (gone * 0.999)])
    found = formats.encode(beside, formats.E4M3)
    assert found.tolist() == [0x08, 0, 1]
    moved, us, rows = ANSWERS["fp8-floor"]
    shape = Shape(exercises.M, exercises.N, exercises.K)
    assert shapes.moved(shape, "block") == moved
    assert us == pytest.approx(moved / exercises.GBPS / 1e3, rel=1e-4)
    for m in (rows - 1, rows):
        more = shape._replace(m=m)
        arithmetic = more.flops / exercises.TFLOPS / 1e12
        memory = shapes.moved(more, "block") / exercises.GBPS / 1e9
        assert (arithmetic >= memory) == (m == rows)


@pytest.mark.parametrize("name", KERNELS)
def test_our_kernels_pass(name):
    CHECK(name, getattr(solutions, KERNELS[name]), seed=7)


@pytest.mark.parametrize(
    ("name", "mistake"), [(n, m) for n, each in WRONG_KERNELS.items() for m in each]
)
def test_wrong_kernels_are_refused(name, mistake):
    with (
        mutated_module(solutions, *WRONG_KERNELS[name][mistake]),
        pytest.raises(CheckFailed),
    ):
        CHECK(name, getattr(solutions, KERNELS[name]), seed=7)


@pytest.mark.parametrize("mistake", NOT_PROMOTED)
def test_sums_that_are_too_long_or_too_short_are_refused(mistake):
    edit = {mistake: NOT_PROMOTED[mistake]}
    ((_, kernel),) = mutants(solutions.promoted_kernel, edit)
    with pytest.raises(CheckFailed):
        CHECK("fp8-promoted", kernel, seed=7)


def test_promotion_may_be_left_to_the_compiler():
    edit = {
        "asked for": (
            "acc += tl.dot(a, b)",
            "acc = tl.dot(a, b, acc, max_num_imprecise_acc=64)",
        )
    }
    ((_, kernel),) = mutants(solutions.promoted_kernel, edit)
    CHECK("fp8-promoted", kernel, seed=7)


@pytest.mark.parametrize("way", OTHER_WAYS)
def test_right_products_by_other_means_are_refused(way):
    old, new, said = OTHER_WAYS[way]
    with mutated_module(solutions, old, new), pytest.raises(CheckFailed, match=said):
        CHECK("fp8-split", solutions.split_kernel, seed=7)


def test_the_parts_of_a_bfloat16_are_exact():
    """All of them from 2^-5 to 4: eight significant bits are four and four."""
    x = torch.arange(0x3D00, 0x4080, dtype=torch.int16).view(torch.bfloat16).float()
    high = formats.round_to(x, formats.E4M3)
    low = formats.round_to((x - high) * 16, formats.E4M3)
    assert torch.equal(high + low / 16, x)


def test_the_checkers_bound_is_between_the_two_ways_to_sum():
    a, b = torch.randint(1, 16, (2, 4, 4096), generator=torch.Generator()).float()
    a, b = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
    exact = a.double() @ b.double()
    bits = conclusions.MODEL_BITS
    fast = errors.relative(accumulation.modelled(a, b, bits), exact)
    precise = errors.relative(accumulation.modelled(a, b, bits, products.BLOCK), exact)
    assert 3 * precise < exercises_products.PRECISE < fast / 2


@pytest.mark.parametrize("name", KERNELS)
def test_solutions_compile_for_a_card(name):
    kernel = getattr(solutions, KERNELS[name])
    wide = torch.bfloat16 if name == "fp8-split" else torch.float8_e4m3fn
    codes = torch.empty(512, 512, dtype=wide, device="meta")
    x = torch.empty(512, 512, device="meta")
    small = torch.empty(512, 512, dtype=torch.uint8, device="meta")
    tile = {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64}
    eight = torch.empty(512, 512, dtype=torch.float8_e4m3fn, device="meta")
    args, meta = {
        "fp8-round": ((x, small, 512), {"BLOCK": 256}),
        "fp8-powers": ((x, small, 512, 512, 16), {"BLOCK": 512}),
        "fp8-turned": ((x, eight, x, 512, 512), {"BLOCK_K": 32}),
        "fp8-blocks": ((codes, codes, x, x, x, 512, 512, 512), tile),
    }.get(name, ((codes, codes, x, 512, 512, 512), tile))
    made = compile_only.compile(kernel, *args, **meta).evidence
    assert made.spill_store_bytes == 0
    if "BLOCK_M" in meta:
        assert "wgmma" in made.mma


def test_rounding_needs_no_card_that_knows_eight_bits():
    x = torch.empty(512, device="meta")
    out = torch.empty(512, dtype=torch.uint8, device="meta")
    made = compile_only.compile(
        solutions.round_kernel, x, out, 512, BLOCK=256, target="sm_80"
    )
    assert "e4m3" not in made.ptx


def test_codes_of_a_turned_matrix_are_the_references():
    x = torch.randn(130, 5)
    found = scaling.reference(x.t(), "1x128")
    codes, scale = exercises._turned(x.double().numpy())
    assert torch.equal(torch.from_numpy(codes), found.codes.view(torch.uint8))
    assert torch.equal(torch.from_numpy(scale), found.scale)


def test_the_selftest_has_five_questions_with_different_options():
    assert len(selftest.QUESTIONS) == 5
    for question in selftest.QUESTIONS:
        assert len(set(question.options)) == 4
        assert question.answer in question.options
        assert question.text.strip()
        assert len(question.explanation) > 40
    places = [q.options.index(q.answer) for q in selftest.QUESTIONS]
    assert len(set(places)) >= 2


def test_numbers_in_the_selftest():
    assert formats.value(selftest.CODE, formats.E4M3) == selftest.VALUE
    assert selftest.BLOCKS == 3
    assert torch.Size([128, 56]).numel() == selftest.SCALES
    assert abs(selftest.FLOOR_US - 5.6) < 0.05
