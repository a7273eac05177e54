"""Two tiles beside each other: every column in one of them, and in one only."""

import pytest
import torch

from tilebook import compile_only, device, testing
from tilebook.matmul import accuracy, beside, operands, ways
from tilebook.matmul.evidence import launches, matrix
from tilebook.matmul.operands import Task, placed

SMALL = beside.Config(16, 32, 16, 32, 1, 1, 1, 2)
ENDS = ("", "relu", "gelu_tanh", "silu_and_mul")
# A tile has 48 columns: less than the wider part, between, more, and several.
SHAPES = (
    (1, 8, 8),
    (16, 32, 32),
    (17, 40, 64),
    (33, 48, 40),
    (40, 56, 96),
    (5, 200, 8),
)


def draw(rows, columns, dtype, where, turned=False):
    shape = (columns, rows) if turned else (rows, columns)
    x = torch.randn(shape, dtype=torch.float64, device=where).to(dtype)
    return testing.guard(x.t() if turned else x).tensor


def task_of(m, n, k, where, *, dtype=torch.bfloat16, turn="NN", **ends):
    """A product that descriptors can describe, its result over poison."""
    a = draw(m, -(-k // 8) * 8, dtype, where, turn[0] == "T")[:, :k]
    b = draw(k, -(-n // 8) * 8, dtype, where, turn[1] == "T")[:, :n]
    if turn[0] == "T":
        a = draw(-(-m // 8) * 8, k, dtype, where, turned=True)[:m]
    if turn[1] == "T":
        b = draw(-(-k // 8) * 8, n, dtype, where, turned=True)[:k]
    return placed(a, b, **ends)


def assert_right(make, config=SMALL):
    with testing.guarded():
        task = make()
        beside.launch(task, config)
    accuracy.check(task)


def suite(where):
    for shape in SHAPES:
        assert_right(lambda shape=shape: task_of(*shape, where))
    for turn in ("NT", "TN", "TT"):
        assert_right(lambda turn=turn: task_of(24, 104, 40, where, turn=turn))
    for end in ENDS[1:]:
        bias = torch.randn(112, device=where).bfloat16()
        assert_right(
            lambda end=end, bias=bias: task_of(
                24, 112, 40, where, activation=end, bias=bias, scale=0.5
            )
        )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_sides(shape, dtype, device):
    assert_right(lambda: task_of(*shape, device, dtype=dtype))


@pytest.mark.parametrize("turn", ["NN", "NT", "TN", "TT"])
def test_any_order_of_memory(turn, device):
    for shape in ((24, 104, 40), (16, 48, 32)):
        assert_right(lambda shape=shape: task_of(*shape, device, turn=turn))


@pytest.mark.parametrize("end", ENDS)
def test_any_ending(end, device):
    bias = torch.randn(112, device=device).bfloat16()
    columns = 56 if end == "silu_and_mul" else 112
    # A residual is read where the result goes: no descriptor then.
    for residual in (None, torch.randn(24, columns, device=device).bfloat16()):
        assert_right(
            lambda residual=residual: task_of(
                24, 112, 40, device, activation=end, bias=bias, residual=residual
            )
        )


def test_a_wider_part_in_two_pieces(device):
    assert_right(
        lambda: task_of(40, 200, 40, device), SMALL._replace(block_n=64, pieces=2)
    )


def test_the_same_bits_each_time(device):
    task = task_of(40, 104, 200, device)
    beside.launch(task, SMALL)
    first = task.out.clone()
    for _ in range(20):
        task.out.fill_(float("nan"))
        beside.launch(task, SMALL)
        assert torch.equal(task.out, first)


@pytest.mark.parametrize(
    ("dtype", "words"), [(torch.float32, "two bytes"), (torch.int8, "two bytes")]
)
def test_what_is_refused(dtype, words, device):
    x = torch.zeros(32, 32, device=device, dtype=dtype)
    task = Task(x, x, torch.empty(32, 32, device=device))
    with pytest.raises(ValueError, match=words):
        beside.launch(task, SMALL)


def test_what_cannot_be_described_is_refused(device):
    x = torch.zeros(32, 33, device=device, dtype=torch.bfloat16)
    with pytest.raises(ValueError, match="a can't be described"):
        beside.launch(Task(x, x.t(), x.new_empty(32, 32)), SMALL)


MISTAKES = [
    ("start_n + BLOCK_N, B_TURNED", "start_n, B_TURNED"),
    ("more, start_m, start_n + BLOCK_N, m", "more, start_m, start_n, m"),
    ("pid_n * (BLOCK_N + MORE)", "pid_n * BLOCK_N"),
    ("tl.cdiv(n, BLOCK_N + MORE)", "n // (BLOCK_N + MORE)"),
    ("tl.dot(a, c, more, ", "tl.dot(a, c, None, "),
    ("start_k = step * BLOCK_K", "start_k = step * BLOCK_M"),
]


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_planted_mistakes_are_found(old, new, device):
    assert testing.caught(beside, old, new, suite, device)


def test_without_a_mistake_the_same_tests_pass(device):
    suite(device)


@pytest.fixture
def hopper(monkeypatch):
    there = device.Device("cuda", "a GPU", "gpu", "cuda", capability=(9, 0), sms=132)
    monkeypatch.setattr(device, "current", lambda: there)


def product(m, n, k, turn="NT", dtype=torch.bfloat16, **ends):
    a, b = (
        matrix(m, k, dtype, turned=turn[0] == "T"),
        matrix(k, n, dtype, turned=turn[1] == "T"),
    )
    return Task(a, b, matrix(m, n, operands.result_dtype(dtype)), "tf32", **ends)


def test_80_columns_make_one_turn_of_10240(hopper):
    """As many tiles as there are multiprocessors, and hardly fewer."""
    for rows, height in ((128, 128), (64, 64)):
        found = beside.config_for(product(rows, 10240, 8192))
        assert (found.block_m, found.block_n + found.more) == (height, 80)
    found = beside.config_for(product(512, 10240, 8192))
    wide = found.block_n + found.more
    assert 512 // found.block_m * (10240 // wide) == 128


def test_such_tiles_enter_the_race(hopper):
    entrants = ways.entrants(product(128, 10240, 8192))
    assert any(
        way.kernel == "beside" and way.config[:3] == (128, 64, 16) for way in entrants
    )
    long = product(128, 10240, 8192, dtype=torch.float32)
    assert all(way.kernel != "beside" for _, way in ways.fitting_ways(long))


@pytest.mark.parametrize("config", beside.CONFIGS, ids=str)
def test_shipped_tiles_fit_registers_and_shared_memory(config, hopper):
    for turn in ("NT", "NN"):
        task = product(512, 10240, 8192, turn)
        fitted = beside.room(task, config)
        assert fitted is not None
        (found,) = launches(
            lambda wrap, task=task, fitted=fitted: beside.launch(
                task._replace(wrap=wrap), fitted
            )
        )
        evidence = compile_only.compile(
            found.kernel, *found.args, target="sm_90", **found.meta
        ).evidence
        assert evidence.spill_store_bytes == evidence.stack_bytes == 0
        assert not evidence.warnings
        assert set(evidence.mma) == {"wgmma"}
        assert evidence.tma_loads
        assert evidence.shared_bytes <= 227 * 1024


@pytest.mark.parametrize("target", ["sm_80", "sm_100", "gfx942"])
def test_compiles_for_other_targets(target):
    task = product(256, 1280, 1024)
    (found,) = launches(lambda wrap: beside.launch(task._replace(wrap=wrap), SMALL))
    kernel = compile_only.compile(
        found.kernel, *found.args, target=target, **found.meta
    )
    assert kernel.evidence.mma
