"""The checker takes our solutions and refuses plausible wrong ones; slow ones found."""

from functools import partial

import numpy as np
import pytest
import torch

from tilebook import compile_only, microscope
from tilebook.memory import banks, bugs, coalescing, narrow, solutions, strides
from tilebook.memory.exercises import EXERCISES, LENGTHS, block
from tilebook.testing import CheckFailed, check, exercise, mutants

CHECK = partial(check, quiet=True)
KERNELS = {
    "memory-rows": solutions.rows_kernel,
    "memory-interleave": solutions.interleave_kernel,
    "memory-planes": solutions.planes_kernel,
    "memory-roll": solutions.roll_kernel,
    "memory-checksum": solutions.checksum_kernel,
}
ANSWERS = {
    "memory-flight": 19.83,
    "memory-sectors": (4, 12, 32),
    "memory-bound": 160,
    "memory-cycles": (1, 2, 4, 32, 1),
    "memory-widths": ("b", "c", "a"),
}
WRONG_ANSWERS = {
    "memory-flight": [
        2618,  # not shared out among the SMs
        20_303,  # not shared out among the threads
        19.83e3,  # picoseconds for nanoseconds
        4.2,  # bandwidth over latency
    ],
    "memory-sectors": [
        (1, 3, 16),  # lines of 128 bytes
        (4, 12, 64),  # a sector is counted once
        (4, 4, 32),
        (32, 32, 32),  # one each
        (4, 12),
    ],
    "memory-bound": [20, 80, 0.16, 160e9],
    "memory-cycles": [
        (1, 2, 12, 32, 33),
        (1, 1, 1, 32, 1),
        (1, 2, 8, 32, 1),
        (32, 16, 8, 1, 32),
    ],
    "memory-widths": [("a", "b", "c"), ("b", "a", "c"), ("c", "b", "a"), "bca"],
}
WRONG_KERNELS = {
    "memory-rows": {
        "stride ignored": ("[:, None] * stride", "[:, None] * n"),
        "output strided too": ("offs_m[:, None] * n", "offs_m[:, None] * stride"),
        "rows not masked": ("(offs_m < m)[:, None] & ", ""),
        "columns not masked": (" & (offs_n < n)[None, :]", ""),
        "bounds swapped": ("(offs_m < m)", "(offs_m < n)"),
        "tile of the example": ("tl.program_id(1) * BLOCK_N", "tl.program_id(1) * 64"),
    },
    "memory-interleave": {
        "one after the other": (
            "tl.interleave(x, y)",
            "tl.cat(x, y, can_reorder=True)",
        ),
        "swapped": ("tl.interleave(x, y)", "tl.interleave(y, x)"),
        "masked at half": ("both // 2 < n", "both < n"),
        "unmasked": (", mask=both // 2 < n", ""),
        "start not doubled": ("2 * start + tl.arange", "start + tl.arange"),
        "with gaps": (
            "tl.store(out_ptr + both, tl.interleave(x, y), mask=both // 2 < n)",
            "tl.store(out_ptr + 2 * offs, x, mask=mask); "
            "tl.store(out_ptr + 2 * offs + 1, y, mask=mask)",
        ),
    },
    "memory-planes": {
        "planes of a block": ("out_ptr += n", "out_ptr += BLOCK"),
        "read as planes": ("3 * offs + c", "c * n + offs"),
        "order turned": ("3 * offs + c", "3 * offs + 2 - c"),
        "two of three": ("static_range(3)", "static_range(2)"),
        "unmasked": ("plane, mask=mask", "plane"),
    },
    "memory-roll": {
        "the other way": ("offs - shift % n + n", "offs + shift % n + n"),
        "negative remainder": ("(offs - shift % n + n) % n", "(offs - shift) % n"),
        "no remainder": ("(offs - shift % n + n) % n", "offs - shift % n"),
        "mask forgotten": ("x, mask=mask", "x"),
    },
    "memory-checksum": {
        "no atomic": (
            'tl.atomic_xor(out_ptr, tl.xor_sum(x, 0), sem="relaxed")',
            "tl.store(out_ptr, tl.xor_sum(x, 0))",
        ),
        "a sum": ("tl.xor_sum(x, 0)", "tl.sum(x, 0)"),
        "padding takes part": ("other=0)", "other=1)"),
        "first block only": (".to(tl.int64) * BLOCK", ".to(tl.int64) * 0"),
        "or": ("tl.atomic_xor", "tl.atomic_or"),
        "read and written": (
            'tl.atomic_xor(out_ptr, tl.xor_sum(x, 0), sem="relaxed")',
            "tl.store(out_ptr, tl.load(out_ptr) ^ tl.xor_sum(x, 0))",
        ),
        "an atomic for each lane": (
            'tl.atomic_xor(out_ptr, tl.xor_sum(x, 0), sem="relaxed")',
            "tl.atomic_xor(out_ptr + tl.zeros((BLOCK,), tl.int32), x, mask=offs < n)",
        ),
    },
}


def test_every_exercise_has_a_solution_and_a_hint():
    names = [e.name for e in EXERCISES]
    assert sorted(names) == sorted([*KERNELS, *ANSWERS])
    assert 6 <= len(names) <= 10
    for e in EXERCISES:
        assert e.hint
        assert exercise(e.name) is e


@pytest.mark.parametrize("name", ANSWERS)
def test_answers(name):
    CHECK(name, ANSWERS[name])
    CHECK(name, exercise(name).answer())
    for wrong in WRONG_ANSWERS[name]:
        with pytest.raises(CheckFailed):
            CHECK(name, wrong)


@pytest.mark.parametrize("name", KERNELS)
def test_kernels(name):
    CHECK(name, KERNELS[name])


@pytest.mark.parametrize("name", KERNELS)
def test_wrong_kernels_are_refused(name):
    wrong = dict(mutants(KERNELS[name], WRONG_KERNELS[name]))
    assert len(wrong) >= 3
    for kernel in wrong.values():
        with pytest.raises(CheckFailed):
            CHECK(name, kernel)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_solutions_compile_everywhere(target):
    x, y, out = (torch.empty(2**16, device="meta") for _ in range(3))
    ints = torch.empty(2**16, dtype=torch.int32, device="meta")
    matrix, tiles = (256, 200, 300), {"BLOCK_M": 16, "BLOCK_N": 64}
    launches = [
        (solutions.rows_kernel, x, out, *matrix, tiles),
        (solutions.interleave_kernel, x, y, out, 2**15, {"BLOCK": 256}),
        (solutions.planes_kernel, ints, ints, 1000, {"BLOCK": 256}),
        (solutions.roll_kernel, x, out, -7, 1000, {"BLOCK": 256}),
        (solutions.checksum_kernel, ints, ints, 1000, {"BLOCK": 256}),
    ]
    for kernel, *args, options in launches:
        made = compile_only.compile(kernel, *args, target=target, **options)
        assert made.evidence.spill_store_bytes == 0


def test_blocks_differ_and_end_in_every_way():
    lengths = [n for (n,) in LENGTHS if n]
    assert len({block(n) for n in lengths}) >= 3
    assert {n % block(n) == 0 for n in lengths} == {True, False}


class TestTraffic:
    def test_is_counted_from_the_addresses(self):
        x = torch.arange(4096, dtype=torch.float32)
        for stride in (1, 2, 3, 8, 20):
            out = torch.empty(128)
            look = microscope.look(
                strides.pick_kernel, (1,), x, out, 128, stride, 0, BLOCK=128
            )
            seen = coalescing.traffic(look, "x_ptr")
            at = 4 * stride * np.arange(128).reshape(4, 32)
            assert seen.sectors == sum(len(set(row // 32)) for row in at)
            shifted = microscope.look(
                strides.pick_kernel, (1,), x[1:], out, 128, stride, 0, BLOCK=128
            )
            apart = (x.data_ptr() + 4) % 32
            expected = sum(len(set((row + apart) // 32)) for row in at)
            assert coalescing.traffic(shifted, "x_ptr").sectors == expected
            assert seen.least == 16
            assert coalescing.traffic(look, "out_ptr").share == 1

    def test_one_for_all_is_no_more_than_useful(self):
        x, out = torch.zeros(64), torch.zeros(32)
        look = microscope.look(
            strides.pick_kernel, (1,), x, out, 32, 0, 8, BLOCK=32, raise_error=True
        )
        seen = coalescing.traffic(look, "x_ptr")
        assert seen == (1, 1)
        with pytest.raises(ValueError, match="lanes must be at least 1"):
            coalescing.traffic(look, "x_ptr", lanes=0)

    def test_masked_lanes_touch_nothing(self):
        x, out = torch.zeros(5), torch.zeros(5)
        look = microscope.look(narrow.copy_kernel, (1,), x, out, 5, BLOCK=128)
        assert coalescing.traffic(look, "x_ptr") == (1, 1)
        with pytest.raises(ValueError, match="has no tensor 'z'"):
            coalescing.traffic(look, "z")


class TestBanks:
    def test_conflicts(self):
        assert banks.conflicts([]) == 0
        assert banks.conflicts([7] * 32) == 1
        assert banks.conflicts(range(32)) == 1
        assert banks.conflicts([0, 32, 64, 1]) == 3
        with pytest.raises(TypeError):
            banks.conflicts([0.5])
        for stride in range(66):
            words = [stride * lane for lane in range(32)]
            assert banks.conflicts(words) == solutions.cycles(stride)

    def test_layouts(self):
        for layout in banks.LAYOUTS.values():
            places = {layout(i, j) for i in range(32) for j in range(32)}
            assert len(places) == 1024
        assert banks.cycles(banks.plain) == (1, 32)
        assert banks.cycles(banks.padded) == banks.cycles(banks.swizzled) == (1, 1)


def test_slow_ones_are_found_out_and_their_mends_are_not():
    wrong, right = bugs.GALLERY["scattered"].verdicts()
    assert "13% of the bytes" in wrong or "12% of the bytes" in wrong
    assert "100% of the bytes" in right
    wrong, right = bugs.GALLERY["no-promise"].verdicts()
    assert "128-bit" not in wrong
    assert "2 128-bit loads" in right
    wrong, right = bugs.GALLERY["bank-conflict"].verdicts()
    assert "a column 32" in wrong
    assert "a column 1" in right


def test_a_tile_that_the_compiler_sees_is_turned_round_and_numbers_are_not():
    scattered, ordered, swapped = map(
        bugs.layout_of,
        (bugs.scattered_kernel, bugs.ordered_kernel, bugs.swapped_kernel),
    )
    assert "128-bit" not in scattered
    assert "4 128-bit loads" in ordered
    assert "4 128-bit loads" in swapped
    assert "sizePerThread = [4, 1]" in swapped


def test_the_diff_of_a_mend_is_its_lines():
    lines = bugs.GALLERY["scattered"].diff().splitlines()
    assert any(line.endswith("lanes % BLOCK_M") for line in lines if line[0] == "-")
    assert any(line.endswith("lanes // BLOCK_N") for line in lines if line[0] == "+")
    assert not any("tl.store" in line for line in lines)


def test_slow_ones_are_right(device):
    x = torch.randn(50, 70, device=device)
    kernels = (bugs.scattered_kernel, bugs.ordered_kernel, bugs.swapped_kernel)
    for kernel in kernels:
        out = torch.empty_like(x)
        kernel[(2, 2)](x, out, 50, 70, BLOCK_M=32, BLOCK_N=64)
        assert torch.equal(out, 2 * x)
    y = torch.randn(4096, device=device)
    for kernel in (bugs.unpromised_kernel, bugs.promised_kernel):
        out = torch.zeros_like(y)
        kernel[(2,)](y, out, 1024, BLOCK=1024)
        assert torch.equal(out[1024:3072], 2 * y[1024:3072])
        assert not out[:1024].any()
