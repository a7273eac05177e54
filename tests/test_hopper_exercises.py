"""The checker takes our solutions and refuses plausible wrong ones."""

from functools import partial

import pytest
import torch
import triton

from tilebook import compile_only
from tilebook.hopper import cooperative, launching, pingpong, selftest, solutions
from tilebook.hopper.exercises import COLUMNS, EXERCISES, ROWS, TERMS
from tilebook.hopper.launching import Config
from tilebook.testing import CheckFailed, check, exercise, mutants, mutated_module

VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])
CHECK = partial(check, quiet=True)
ANSWERS = {
    "hopper-shared": (229376, 5),
    "hopper-l2": (9375.0, 7291.7),
    "hopper-ends": (0.8452, 1792),
}
KERNELS = {
    "hopper-tile": solutions.tile_kernel,
    "hopper-ring": solutions.ring_kernel,
    "hopper-third": solutions.third_kernel,
    "hopper-pieces": solutions.pieces_kernel,
}
# Each is a mistake that is easily made at that exercise.
WRONG_ANSWERS = {
    "hopper-shared": [
        (114688, 5),  # elements
        (262144, 5),  # a place for the whole tile
        (229376, 6),  # one place for both groups
        (196608, 5),  # no place
        (212992, 7),  # half a place, no places
        229376,
    ],
    "hopper-l2": [
        (4687.5, 3645.8),  # a byte an element
        (18750.0, 14583.3),  # a multiply-add for an operation
        (9375.0, 6250.0),  # the longer side alone
        (12500.0, 7291.7),  # 128 by 128
        (71.0, 55.2),  # of one SM
    ],
    "hopper-ends": [
        (0.916, 1792),  # twice the clocks: multiply-adds
        (0.732, 1792),  # half of them: one group's
        (0.8452, 1781),  # no multiple of 64
        (0.8452, 1728),  # rounded down
        (0.183, 1792),  # the end over the products
    ],
}
WRONG_FUNCTIONS = {
    "by the chunk": lambda chunk, slots: (chunk & 1, (chunk & 1) ^ 1),
    "both alike": lambda chunk, slots: (chunk // slots & 1, chunk // slots & 1),
    "the other way round": lambda chunk, slots: (
        (chunk // slots & 1) ^ 1,
        chunk // slots & 1,
    ),
    "by the slot": lambda chunk, slots: (chunk % slots & 1, (chunk % slots & 1) ^ 1),
    "the use itself": lambda chunk, slots: (chunk // slots, chunk // slots - 1),
    "first round apart": lambda chunk, slots: (
        chunk // slots & 1,
        1 if chunk < slots else chunk // slots & 1,
    ),
}
# Old and new text, in the module of the solutions.
WRONG_KERNELS = {
    "hopper-tile": {
        "one half's bytes": (
            "arrived, 2 * (a_desc.block_type.nbytes + b_desc.block_type.nbytes)",
            "arrived, a_desc.block_type.nbytes + b_desc.block_type.nbytes",
        ),
        "too many bytes": (
            "arrived, 2 * (a_desc.block_type.nbytes + b_desc.block_type.nbytes)",
            "arrived, 4 * (a_desc.block_type.nbytes + b_desc.block_type.nbytes)",
        ),
        "one half twice": (
            "async_load(a_desc, [0, half * K], arrived, a.index(half))",
            "async_load(a_desc, [0, 0], arrived, a.index(half))",
        ),
        "not waited for": ("    mbarrier.wait(arrived, 0)\n    layout: gl.constexpr = "
                           "gl.NVMMADistributedLayout(\n        version=[3, 0], "
                           "warps_per_cta=[4, 1], instr_shape=[16, N, 16]\n    )\n"
                           "    shape: gl.constexpr = [a_desc.block_type.shape[0], N]\n"
                           "    acc = warpgroup_mma_init(gl.zeros(shape, gl.float32, "
                           "layout))\n    for half",
                           "    layout: gl.constexpr = "
                           "gl.NVMMADistributedLayout(\n        version=[3, 0], "
                           "warps_per_cta=[4, 1], instr_shape=[16, N, 16]\n    )\n"
                           "    shape: gl.constexpr = [a_desc.block_type.shape[0], N]\n"
                           "    acc = warpgroup_mma_init(gl.zeros(shape, gl.float32, "
                           "layout))\n    for half"),
        "sums begin anew": (
            "acc = warpgroup_mma(a.index(half), b.index(half), acc, is_async=True)",
            "acc = warpgroup_mma(a.index(half), b.index(half), acc, use_acc=False, "
            "is_async=True)",
        ),
    },
    "hopper-ring": {
        "freed at once": (
            "before = (chunk + SLOTS - 1) % SLOTS\n"
            "        mbarrier.arrive(free.index(before), pred=chunk > 0)",
            "mbarrier.arrive(free.index(slot))",
        ),
        "never freed": (
            "mbarrier.arrive(free.index(before), pred=chunk > 0)", "pass"
        ),
        "freed before the first": (
            "mbarrier.arrive(free.index(before), pred=chunk > 0)",
            "mbarrier.arrive(free.index(before))",
        ),
        "consumer by the chunk": (
            "mbarrier.wait(arrived.index(slot), (chunk // SLOTS) & 1)",
            "mbarrier.wait(arrived.index(slot), chunk & 1)",
        ),
        "producer's parity": ("((chunk // SLOTS) & 1) ^ 1", "(chunk // SLOTS) & 1"),
        "no wait for a free slot": (
            "        mbarrier.wait(free.index(slot), ((chunk // SLOTS) & 1) ^ 1)\n", ""
        ),
        "last product not waited for": (
            "sums = warpgroup_mma_wait(0, deps=(acc,))\n    place = places.index(PART)",
            "sums = acc\n    place = places.index(PART)",
        ),
        "no fence": (
            "fence_async_shared()\n    async_store(out_desc, [PART * M, 0], place)",
            "async_store(out_desc, [PART * M, 0], place)",
        ),
        "store not waited for": (
            "async_store(out_desc, [PART * M, 0], place)\n    tma.store_wait(0)",
            "async_store(out_desc, [PART * M, 0], place)",
        ),
    },
    "hopper-third": {
        "two arrivals": ("barriers(SLOTS, 1), barriers(SLOTS, 3)",
                         "barriers(SLOTS, 1), barriers(SLOTS, 2)"),
        "one arrival": ("barriers(SLOTS, 1), barriers(SLOTS, 3)",
                        "barriers(SLOTS, 1), barriers(SLOTS, 1)"),
        "bytes of one": ("PARTS * a_desc.block_type.nbytes",
                         "a_desc.block_type.nbytes"),
        "all the same rows": ("async_load(a_desc, [part * M, chunk * K], here, place)",
                              "async_load(a_desc, [0, chunk * K], here, place)"),
        "stored over one another": ("async_store(out_desc, [PART * M, 0], place)",
                                    "async_store(out_desc, [0, 0], place)"),
        "one place for all": ("place = places.index(PART)", "place = places.index(0)"),
    },
    "hopper-pieces": {
        "not waited for": ("    tma.store_wait(0)\n    place.store(tile)\n",
                           "    place.store(tile)\n"),
        "no fence": ("    place.store(tile)\n    fence_async_shared()\n",
                     "    place.store(tile)\n"),
        "pieces mixed up": ("    put(two, out_desc, WIDTH, place)\n"
                            "    put(three, out_desc, 2 * WIDTH, place)",
                            "    put(two, out_desc, 2 * WIDTH, place)\n"
                            "    put(three, out_desc, WIDTH, place)"),
        "last not waited for": ("    put(four, out_desc, 3 * WIDTH, place)\n"
                                "    tma.store_wait(0)",
                                "    put(four, out_desc, 3 * WIDTH, place)"),
        "three pieces": ("    put(four, out_desc, 3 * WIDTH, place)\n", ""),
        "every other column": ("tile.reshape([M, 2, N // 2]).permute((0, 2, 1))",
                               "tile.reshape([M, N // 2, 2])"),
    },
}  # fmt: skip


def test_every_exercise_is_ours_and_has_a_hint():
    names = [each.name for each in EXERCISES]
    assert len(names) == 8
    assert set(names) == {*ANSWERS, *KERNELS, "hopper-parities"}
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
        ("hopper-shared", (114688, 5), "elements"),
        ("hopper-shared", (262144, 5), "two pieces"),
        ("hopper-shared", (229376, 7), "place of its own"),
        ("hopper-l2", (4687.5, 3645.8), "two bytes"),
    ],
)
def test_near_misses_are_told_what_they_are(name, got, said):
    with pytest.raises(CheckFailed, match=said):
        CHECK(name, got)


def test_the_answers_are_those_of_the_kernels_own_counts():
    own = launching.shared_bytes(Config(128, 256, 64, 4, 2), 2) - launching.BARRIERS
    assert own == ANSWERS["hopper-shared"][0]
    assert Config(128, 256, 64, 4, 2) in cooperative.CONFIGS
    most = ANSWERS["hopper-shared"][1]
    for chunks in (most, most + 1):
        size = launching.shared_bytes(Config(128, 128, 64, chunks), 1)
        assert (size <= launching.SHARED) == (chunks == most)
    assert Config(128, 128, 64, most) in pingpong.CONFIGS


def test_our_parities_pass():
    CHECK("hopper-parities", solutions.parities)


@pytest.mark.parametrize("name", WRONG_FUNCTIONS)
def test_wrong_parities_are_refused(name):
    with pytest.raises(CheckFailed):
        CHECK("hopper-parities", WRONG_FUNCTIONS[name])


@pytest.mark.parametrize("name", KERNELS)
def test_our_kernels_pass(name):
    CHECK(name, KERNELS[name], seed=7)


@pytest.mark.parametrize(
    ("name", "mistake"), [(n, m) for n, each in WRONG_KERNELS.items() for m in each]
)
def test_wrong_kernels_are_refused(name, mistake):
    with (
        mutated_module(solutions, *WRONG_KERNELS[name][mistake]),
        pytest.raises(CheckFailed),
    ):
        CHECK(name, getattr(solutions, KERNELS[name].fn.__name__), seed=7)


def test_a_hang_says_who_waits_for_what():
    edit = WRONG_KERNELS["hopper-ring"]["never freed"]
    with (
        mutated_module(solutions, *edit),
        pytest.raises(CheckFailed, match="nobody can go on"),
    ):
        CHECK("hopper-ring", solutions.ring_kernel, seed=7)


def test_one_group_is_not_three():
    """A right product in another way than the one that was asked for."""
    watch = exercise("hopper-third").watch
    assert watch(solutions.third_kernel) is None
    assert "1 partitions multiply" in watch(solutions.ring_kernel)
    edit = {"four places": ("ring(out_desc, 1).index(0)", "ring(out_desc, 4)")}
    puts = {
        f"put({name}, out_desc, {column}, place)": f"put({name}, out_desc, {column}, "
        f"place.index({i}))"
        for i, (name, column) in enumerate(
            (("one", "0"), ("two", "WIDTH"), ("three", "2 * WIDTH"),
             ("four", "3 * WIDTH"))
        )
    }  # fmt: skip
    ((_, kernel),) = mutants(solutions.pieces_kernel, edit)
    for old, new in puts.items():
        ((_, kernel),) = mutants(kernel, {"place": (old, new)})
    with pytest.raises(CheckFailed, match="4 places: one is enough"):
        CHECK("hopper-pieces", kernel, seed=7)


@pytest.mark.parametrize("name", KERNELS)
def test_solutions_compile_for_a_card(name):
    wide = 4 if name == "hopper-pieces" else 1
    x = torch.empty((512, 512), dtype=torch.bfloat16, device="meta")
    described = (
        launching.describe(x, ROWS, TERMS, False),
        launching.describe(x, TERMS, COLUMNS * wide, False),
        launching.describe(x, ROWS, COLUMNS, False),
    )
    ring = {"SLOTS": 4} if name in ("hopper-ring", "hopper-third") else {}
    args = (*described, 512) if ring else described
    made = compile_only.compile(KERNELS[name], *args, **ring, num_warps=4).evidence
    assert "wgmma" in made.mma
    assert made.spill_store_bytes == 0
    # With a fourth partition the ptxas of Triton 3.8 and later serialises.
    if name != "hopper-third" or VERSION < (3, 8):
        assert not [n for n in made.warnings if n.code.startswith("C75")]


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
    assert (selftest.CHUNK % selftest.SLOTS, selftest.PARITY) == (1, 0)
    assert selftest.CONSUMER == cooperative.META["REGISTERS"] == 232
    assert selftest.SUMS == 256
