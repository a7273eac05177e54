"""Stream-K: who takes which steps, and that whatever is shared comes together again."""

import itertools
import re

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.matmul import accuracy, shapes, shares, split, streamed
from tilebook.matmul.evidence import launches as recorded
from tilebook.matmul.evidence import matrix
from tilebook.matmul.operands import DTYPES, Task, placed
from tilebook.matmul.shapes import Shape

TURNS = ("NN", "NT", "TN", "TT")
# Six tiles of nine steps on four programs: four are whole and two shared, or all are.
SHARED = {
    "shorter": streamed.Config(32, 128, 32, 4, 4, 2, group=2),
    "longer": streamed.Config(32, 128, 32, 4, 4, 2, group=2, longer=True),
    "alone": streamed.Config(32, 128, 32, 4, 4, 2, group=1),
}


def aligned(m, n, k, turns, device):
    """Operands of two bytes that descriptors can describe, within larger ones."""
    made = []
    for (rows, columns), turn in zip(((m, k), (k, n)), turns, strict=True):
        x = torch.full((512, 512), float("nan"), device=device).bfloat16()
        x = x.t() if turn == "T" else x
        x[:rows, :columns] = torch.randn(rows, columns, device=device)
        made.append(x[:rows, :columns])
    return made


def run_shared(config, a, b, **besides):
    """Launch, check, and tell the grids and whether descriptors brought the tiles."""
    with testing.guarded():
        task = placed(a, b, **besides)
        task.out.fill_(float("nan"))
        streamed.launch(task, config)
    accuracy.check(task)
    given = recorded(lambda wrap: streamed.launch(task._replace(wrap=wrap), config))
    return [each.grid[0] for each in given], given[0].args[0] is not None


COUNTS = (1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 131, 132, 133, 160, 263, 264, 265)


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("programs", [1, 2, 4, 5, 132])
def test_every_step_is_taken_once_and_every_part_has_a_place(programs, longer):
    begin, owner = streamed.begin.fn, streamed.owner.fn
    for count in COUNTS:
        for steps in (1, 2, 3, 4, 5, 9, 128):
            whole, sharing = shares.schedule(count, steps, programs, longer)
            left = count - whole
            total = left * steps
            assert whole % programs == 0
            assert left < (2 if longer else 1) * programs
            assert bool(sharing) == bool(left)
            cuts = [begin(program, total, sharing) for program in range(sharing)]
            cuts.append(total)
            lengths = [end - start for start, end in itertools.pairwise(cuts)]
            assert sum(lengths) == total
            idle = -count % programs
            if idle * shares.SAVED < programs:
                assert sharing == left < programs
            if left:
                assert cuts[0] == 0
                assert max(lengths) - min(lengths) <= 1
                assert min(lengths) >= min(split.LEAST_STEPS, steps)
            for program, (start, end) in enumerate(itertools.pairwise(cuts)):
                assert owner(start, total, sharing) == program
                assert owner(end - 1, total, sharing) == program
            places = [
                program + tile
                for program, (start, end) in enumerate(itertools.pairwise(cuts))
                for tile in range(start // steps, -(-end // steps))
            ]
            assert len(set(places)) == len(places)
            assert max(places, default=0) <= max(sharing + left - 2, 0)


@pytest.mark.parametrize("longer", [False, True])
@pytest.mark.parametrize("tiles", [1, 2, 3, 4, 5, 7, 8, 9])
def test_tiles_around_whole_turns(tiles, longer, device):
    """As many tiles as programs, one more, one fewer, and nearly two turns of them."""
    config = streamed.Config(16, 16, 16, 4, 4, 2, group=2, longer=longer)
    a, b = shapes.operands(Shape(15, 16 * tiles - 3, 16 * 9 - 1), "NN", torch.float32)
    grids, brought = run_shared(config, a, b)
    assert not brought
    whole, sharing = shares.schedule(tiles, 9, 4, longer)
    assert grids[0] == (4 if whole else sharing)
    assert grids[1:] == ([tiles - whole] if tiles % 4 else [])


def test_a_turn_that_is_nearly_complete_is_not_cut(device):
    config = streamed.Config(16, 16, 16, 12, 4, 2)
    for tiles, expected in ((11, [11]), (23, [12]), (9, [12, 9])):
        for each in (config, config._replace(longer=True)):
            a, b = shapes.operands(Shape(15, 16 * tiles, 16 * 9), "NN", torch.float32)
            assert run_shared(each, a, b)[0] == expected
            assert shares.seams(placed(a, b), each) == (len(expected) == 2)


def test_short_sums_are_not_cut(device):
    """Not worth a share: each tile is a program's, and no second kernel adds any up."""
    config = streamed.Config(16, 16, 16, 4, 4, 2)
    for k in (63, 0):
        grids, _ = run_shared(
            config, *shapes.operands(Shape(15, 40, k), "NN", torch.float32)
        )
        assert grids == [3]


@pytest.mark.parametrize("turns", TURNS)
@pytest.mark.parametrize("shared", SHARED)
def test_what_descriptors_bring(shared, turns, device):
    """Ragged sides, and beyond them what must not be read as part of a sum."""
    a, b = aligned(33, 330, 286, turns, device)
    # Terms past the last are no zeros here, so that a matrix has to end where it does.
    grids, brought = run_shared(SHARED[shared], a, b)
    assert brought
    assert grids == ([4, 12] if shared == "longer" else [4, 4])
    _, brought = run_shared(SHARED[shared]._replace(engine=False), a, b)
    assert not brought


@pytest.mark.parametrize("activation", ["gelu", "silu_and_mul"])
@pytest.mark.parametrize("shared", SHARED)
def test_what_is_done_to_shared_tiles_besides(shared, activation, device):
    a, b = aligned(33, 330, 286, "NT", device)
    n = 165 if activation == "silu_and_mul" else 330
    besides = {
        "bias": torch.randn(330, 2, device=device).bfloat16()[:, 1],
        "residual": torch.randn(n, 33, device=device).t().bfloat16(),
        "activation": activation,
        "scale": 0.3,
    }
    run_shared(SHARED[shared], a, b, **besides)
    run_shared(SHARED[shared], a, b, **besides, out_dtype=torch.float32)


@pytest.mark.parametrize("shared", SHARED)
def test_shared_tiles_have_the_same_bits_each_time(shared, device):
    a, b = aligned(33, 330, 286, "NT", device)

    def call():
        task = placed(a, b)
        streamed.launch(task, SHARED[shared])
        return task.out

    testing.deterministic(call, repeats=here.sizes(20, 2))


@settings(max_examples=20)
@given(
    m=st.integers(1, 40),
    n=st.integers(1, 40),
    k=st.integers(0, 130),
    programs=st.integers(1, 13),
    group=st.integers(1, 3),
    longer=st.booleans(),
)
def test_any_number_of_shares(m, n, k, programs, group, longer):
    a, b = shapes.operands(Shape(m, n, k), "NN", torch.float32)
    task = placed(a, b)
    task.out.fill_(float("nan"))
    config = streamed.Config(16, 16, 16, programs, 4, 2, group, longer)
    streamed.launch(task, config)
    accuracy.check(task)


class TestConfigurations:
    def test_no_more_shares_than_steps(self, device):
        a, b = shapes.operands(Shape(3, 3, 3), "NN", torch.float32)
        assert streamed.config_for(placed(a, b)).programs == 1

    def test_tiles_worth_a_race(self):
        def tried(m, n, k, dtype=torch.bfloat16, turn=True):
            a, b = matrix(m, k, dtype), matrix(k, n, dtype, turned=turn)
            return streamed.configs(placed(a, b))

        large = tried(512, 10240, 8192)
        assert [x[:2] for x in large] == [(128, 256), *[(128, 128)] * 2, (128, 256)]
        assert [x.longer for x in large] == [False, False, False, True]
        assert [x[0] for x in tried(64, 22016, 4096)] == [64, 64, 64]
        assert [x[1] for x in tried(4096, 40, 4096)] == [64, 64]
        # Tiles of floats that nothing rounds are smaller, whatever else fits.
        assert tried(512, 512, 512, torch.float32)[0][:2] == (128, 128)
        for dtype in DTYPES:
            for sides in ((1, 1, 1), (17, 4095, 4097), (4095, 16, 9), (512, 512, 512)):
                for config in tried(*sides, dtype):
                    size = sum(config[:2]) * config.block_k * dtype.itemsize
                    assert size * config.num_stages <= 227 * 1024
                    assert config.num_stages > 1

    def test_descriptors_bring_what_tensor_cores_read_as_it_lies(self):
        def brought(dtype, m=512, n=512, k=512, *, turn=True):
            a, b = matrix(m, k, dtype), matrix(k, n, dtype, turned=turn)
            return streamed.config_for(placed(a, b)).engine

        assert brought(torch.bfloat16)
        assert brought(torch.bfloat16, turn=False)
        assert brought(torch.int8)
        assert not brought(torch.int8, turn=False)
        # Exact products of floats take them from registers.
        assert not brought(torch.float32)
        assert not brought(torch.bfloat16, k=509)
        # Less than tensor cores take.
        assert not brought(torch.bfloat16, m=32)


MISTAKES = [
    ("return program * total // sharing",
     "return program * (total // sharing)"),
    ("owner(before + steps - 1, total", "owner(before, total"),
    ("(first == 0) & (last == steps)", "(first == 0)"),
    ("(team + place) * STACK + member", "team * STACK + member"),
    ("tl.where(cut, whole + place, team", "tl.where(cut, place, team"),
    ("range(turns + shared)", "range(turns)"),
    ("tl.minimum(k, last.to(tl.int64) * BLOCK_K) - begun", "k - begun"),
    ("start_k = step * BLOCK_K", "start_k = (step - first) * BLOCK_K"),
    ("A_TURNED=a_turned", "A_TURNED=b_turned"),
    ("mask=start + j <= last", "mask=start + j < last"),
    ("grouped(whole * STACK + tile,", "grouped(tile,"),
    ("place, member = tile // STACK, tile % STACK",
     "place, member = tile % STACK, tile // STACK"),
    ("* BLOCK_M + rows\n", "* BLOCK_M + tl.arange(0, ROWS)\n"),
]  # fmt: skip


def suite(device):
    """What the tests above look at, in a few cases."""
    for config in SHARED.values():
        run_shared(config, *shapes.operands(Shape(33, 330, 286), "NN", torch.float32))
        for turns in ("NT", "TN"):
            run_shared(config, *aligned(33, 330, 286, turns, device))


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_planted_mistakes_are_found(old, new, device):
    assert testing.caught(streamed, old, new, suite, device)


def test_without_a_mistake_the_same_tests_pass(device):
    suite(device)


def compiled(m, n, k, turns="NT", dtype=torch.bfloat16, target="sm_90", **besides):
    """Both kernels of every way that is raced, by way; the second is often the same."""
    a, b = (
        matrix(rows, columns, dtype, turned=turn == "T")
        for rows, columns, turn in zip((m, k), (k, n), turns, strict=True)
    )
    changes = besides.pop("changes", {})
    only = besides.pop("only", None)
    task = placed(a, b, **besides)
    for config in streamed.configs(task)[:only]:
        if config.longer:
            continue
        changed = config._replace(**changes)
        first, second = recorded(
            lambda wrap, c=changed: streamed.launch(task._replace(wrap=wrap), c)
        )
        yield (
            changed,
            *(
                compile_only.compile(x.kernel, *x.args, target=target, **x.meta)
                for x in (first, second)
            ),
        )


def assert_clean(artefact):
    found = artefact.evidence
    assert not found.stack_bytes
    assert not max(found.spill_store_bytes, found.spill_load_bytes)
    assert not found.warnings
    assert found.shared_bytes <= 227 * 1024


def assert_never_idle(artefact):
    """A product under way while the next is started, and loads of stages ahead."""
    assert set(artefact.evidence.mma) == {"wgmma"}
    assert "isAsync = true" in artefact.ttgir
    assert re.search(r"warp_group_dot_wait .* \{pendings = 1 : i32\}", artefact.ttgir)
    assert "ttg.local_load" not in artefact.ttgir


def raced():
    """Two products in each order of memory, by either way for tiles to come.

    Without a GPU, where every compilation is paid for on few cores, the second product
    is left out in half of them: each of its tiles is still seen in every order, and by
    both ways.
    """
    wide, low = (512, 10240, 8192), (64, 22016, 4096)
    for sides, turns, engine in itertools.product((wide, low), TURNS, (True, False)):
        marks = [pytest.mark.slow] if (sides, turns) != (wide, "NT") else []
        if sides is low and engine == (turns in ("NT", "TN")):
            marks.append(pytest.mark.gpu)
        yield pytest.param(sides, turns, engine, marks=marks)


@pytest.mark.parametrize(("sides", "turns", "engine"), [*raced()])
def test_machine_code_of_what_is_raced(sides, turns, engine):
    for config, first, second in compiled(*sides, turns, changes={"engine": engine}):
        assert_clean(first)
        assert_clean(second)
        assert_never_idle(first)
        evidence = first.evidence
        assert bool(evidence.tma_loads) == engine != bool(evidence.async_copies)
        assert not evidence.global_loads
        # Sums go out, and come back, 16 bytes at a time.
        assert set(evidence.global_stores) == {128}
        assert set(second.evidence.global_loads) == {128}
        assert set(second.evidence.global_stores) == {128}
        if config.num_warps == 4:
            # Two on a multiprocessor.
            assert evidence.registers * 128 * 2 <= 65536
            assert 2 * (evidence.shared_bytes + 1024) <= 228 * 1024


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
def test_machine_code_of_other_targets(target):
    changes = {"engine": target == "sm_100"}
    if target == "gfx942":
        changes["num_stages"] = 2
    given = compiled(512, 10240, 8192, target=target, changes=changes, only=1)
    for _, first, second in given:
        assert first.evidence.mma
        assert bool(first.evidence.tma_loads) == (target == "sm_100")
        if target != "gfx942":
            assert_clean(first)
            assert_clean(second)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["tf32", "tf32x3", "ieee"])
@pytest.mark.parametrize("turns", ["NN", "NT"])
def test_machine_code_of_float32(turns, precision):
    given = compiled(512, 5120, 4096, turns, torch.float32, precision=precision)
    for config, first, _ in given:
        assert_clean(first)
        assert config.engine == (turns == "NT" and precision == "tf32")


@pytest.mark.slow
@pytest.mark.parametrize("turns", ["NN", "NT"])
def test_machine_code_of_int8(turns):
    for config, first, _ in compiled(512, 5120, 4096, turns, torch.int8):
        assert_clean(first)
        assert config.engine == (turns == "NT")


@pytest.mark.slow
@pytest.mark.parametrize("engine", [True, False])
@pytest.mark.parametrize("activation", ["gelu", "silu", "silu_and_mul"])
def test_machine_code_of_what_is_done_besides(activation, engine, monkeypatch):
    if not engine:
        monkeypatch.setattr(shares, "engine", lambda task: False)
    n = 11008
    besides = {
        "bias": torch.empty(n, dtype=torch.bfloat16, device="meta"),
        "activation": activation,
        "scale": 0.5,
    }
    if activation == "gelu":
        besides["residual"] = matrix(512, n, torch.bfloat16)
    for config, first, second in compiled(512, n, 4096, "NT", **besides):
        assert config.engine == engine
        assert_clean(first)
        assert_clean(second)


@pytest.mark.parametrize(
    ("rows", "programs", "high"),
    [(4, 132, 4), (8, 132, 8), (16, 132, 8), (12, 132, 1), (1, 132, 1), (7, 12, 1)],
)
def test_tiles_above_one_another_go_together(rows, programs, high):
    """Whole strips only, and not where a tenth of the programs would be left out."""
    m, n, k = 128 * rows, 10240, 64
    a, b = matrix(m, k, torch.bfloat16), matrix(k, n, torch.bfloat16)
    task = Task(a, b, matrix(m, n, torch.bfloat16))
    config = shares.Config(128, 256, 64, programs)
    assert shares.stack(task, config) == high
