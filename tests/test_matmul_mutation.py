"""Planted mistakes in the ladder of `matmul`: each must turn a test red."""

import pytest
import torch

from tilebook import device as here
from tilebook import matmul as chapter
from tilebook import testing
from tilebook.matmul import (
    described,
    descriptors,
    epilogues,
    fitting,
    naive,
    operands,
    ordered,
    outer,
    persistent,
    tile,
)
from tilebook.matmul.operands import Task

CONFIGS = {
    outer: outer.Config(32, 16, 1),
    tile: tile.Config(16, 16, 32, 1),
    ordered: fitting.Config(16, 16, 32, 1, 1, group=2),
    persistent: fitting.Config(16, 16, 32, 1, 1, group=2),
    described: described.Config(16, 32, 32, 1, 1, group=2),
}
MISTAKES = [
    (naive, "column * out_n, out, mask=inside)", "column * out_n, out)"),
    (naive, "offs // n, offs % n", "offs % n, offs // n"),
    (naive, "        b_at += b_k\n", "        b_at += b_n\n"),
    (naive, "acc += a.to(ACC) * b.to(ACC)", "acc += a * b"),
    (outer, "a.to(ACC)[:, None] * b.to(ACC)[None, :]",
     "a.to(ACC)[:, None] + b.to(ACC)[None, :]"),
    (outer, "mask=(offs_m < m)[:, None] & (offs_n < n)[None, :]",
     "mask=(offs_m < m)[:, None]"),
    (tile, "mask=in_m & (offs_k < k)[None, :]", "mask=in_m"),
    (tile, "offs_k[:, None] * b_k + offs_n[None, :] * b_n",
     "offs_k[:, None] * b_n + offs_n[None, :] * b_k"),
    (tile, "tl.dot(a, b, acc, ", "tl.dot(a, b, None, "),
    (tile, "mask=in_m & in_n", "mask=in_m"),
    (ordered, "tl.arange(0, BLOCK_M) % tl.minimum(m - start_m, BLOCK_M).to(tl.int32)",
     "tl.arange(0, BLOCK_M)"),
    (ordered, "tl.arange(0, BLOCK_N) % tl.minimum(n - start_n, BLOCK_N).to(tl.int32)",
     "tl.arange(0, BLOCK_N)"),
    (ordered, "tl.load(b_ptr + b_at, mask=(offs_k < left)[:, None], other=0)",
     "tl.load(b_ptr + b_at)"),
    (ordered, "EVEN_K=task.k % config.block_k == 0", "EVEN_K=True"),
    (ordered, "b_ptr += BLOCK_K * b_k", "b_ptr += BLOCK_K * b_n"),
    (ordered, "tl.int64) * FACTOR", "tl.int64)"),
    (ordered, "acc = tl.zeros((BLOCK_M, BLOCK_N), ACC)",
     "acc = tl.full((BLOCK_M, BLOCK_N), 1, ACC)"),
    (persistent, "tiles_m * tiles_n, tl.num_programs(0)",
     "tiles_m * tiles_n, tl.num_programs(0) + 1"),
    (persistent, "grouped(tile, tiles_m, tiles_n, GROUP)",
     "grouped(tile, tiles_n, tiles_m, GROUP)"),
    (descriptors, "desc.load([column, row]).T", "desc.load([row, column]).T"),
    (described, "start_k = step * BLOCK_K", "start_k = step * BLOCK_M"),
    (descriptors, "right, start_m, start_n + COLUMNS // 2", "right, start_m, start_n"),
    (descriptors, "start_n, n = start_n // 2, n // 2", "n = n // 2"),
    (descriptors, "offs_n = start_n.to(tl.int64) + tl.arange(0, COLUMNS)",
     "offs_n = tl.arange(0, COLUMNS)"),
    (descriptors, "residual_desc.load([start_m, start_n])",
     "residual_desc.load([start_m, 0])"),
    (epilogues, "bias.to(acc.dtype)[None, :]", "0"),
    (epilogues, "acc = acc * scale", "acc = acc + scale"),
    (epilogues, "gate * tl.sigmoid(gate) * up", "up * tl.sigmoid(up) * gate"),
    (epilogues, "offs_m[:, None] * residual_m + offs_n[None, :] * residual_n",
     "offs_m[:, None] * residual_n + offs_n[None, :] * residual_m"),
    (epilogues, "0.044715 * x * x * x", "0.044715 * x * x"),
]  # fmt: skip


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Programs walk over several tiles, however many a card has room for."""
    for rung in (persistent, described):
        monkeypatch.setattr(rung, "programs", lambda tiles, per_sm: min(tiles, 4))


def name(value):
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


def tasks(rung, device):
    """A few products whose tiles are ragged where the rung takes such, and whole."""
    torch.manual_seed(0)

    def draw(*shape, dtype=torch.bfloat16):
        # Between bands of NaN: where no bounds are checked, they show stray reads.
        return testing.guard(torch.randn(shape, device=device).to(dtype)).tensor

    def of(a, b, out=None, **rest):
        # Between bands that nobody may write; what is never written is NaN.
        out = out or (a.shape[0], b.shape[1])
        return Task(a, b, torch.empty(out, dtype=a.dtype, device=device), **rest)

    wide = draw(40, 48)
    yield lambda: of(wide[:, :32], draw(32, 40))
    turned = draw(40, 24).t()
    yield lambda: of(turned, draw(40, 48))
    if rung is not described:
        yield lambda: of(draw(33, 37), draw(37, 19))
    if rung in (naive, outer, tile):
        return
    bias, rest = draw(64), draw(16, 40).t()
    yield lambda: of(
        draw(40, 40), draw(40, 64), (40, 32), scale=0.5, bias=bias,
        activation="silu_and_mul",
    )  # fmt: skip
    yield lambda: of(
        draw(40, 40), draw(40, 16), scale=0.5, bias=bias[:16], residual=rest,
        activation="gelu_tanh",
    )  # fmt: skip
    yield lambda: of(
        draw(40, 40), draw(40, 64), bias=bias, residual=draw(40, 64),
        activation="gelu_tanh",
    )  # fmt: skip


def expected(task):
    acc = task.scale * (task.a.double() @ task.b.double())
    acc = acc if task.bias is None else acc + task.bias.double()
    if task.activation == "silu_and_mul":
        acc = torch.nn.functional.silu(acc[:, ::2]) * acc[:, 1::2]
    elif task.activation:
        acc = torch.nn.functional.gelu(acc, approximate="tanh")
    return acc if task.residual is None else acc + task.residual.double()


def suite(module, device):
    """Products of the rungs that a module is part of, each within its bound."""
    shared = {epilogues: (ordered, described), descriptors: (described,)}
    rungs = shared.get(module, (module,))
    for rung in rungs:
        for make in tasks(rung, device):
            with testing.guarded():
                task = make()
                config = CONFIGS.get(rung)
                rung.launch(task, *([config] if config else []))
            scale = 2 * (task.a.double().abs() @ task.b.double().abs()) + 2
            if task.activation == "silu_and_mul":
                scale = scale[:, ::2] * scale[:, 1::2]
            testing.assert_close(
                task.out, expected(task), length=64, factor=64, scale=scale
            )


def text(value):
    return value if isinstance(value, str) and len(value) < 30 else name(value)


@pytest.mark.parametrize(("module", "old", "new"), MISTAKES, ids=text)
def test_planted_mistakes_are_found(module, old, new, device):
    if "% tl.minimum" in old and not here.interpreting():
        pytest.skip("what is read past the end is never stored: no bounds, no sign")
    assert testing.caught(module, old, new, suite, module, device)


@pytest.mark.parametrize("module", [*chapter.LADDER, epilogues], ids=name)
def test_without_a_mistake_the_same_tests_pass(module, device):
    suite(module, device)


def test_a_narrower_sum_is_found(device):
    """Adding up in bfloat16 loses ones beside 512."""
    a = torch.ones(1, 66, dtype=torch.bfloat16, device=device)
    a[0, 0], a[0, -1] = 512, -512
    b = torch.ones(66, 1, dtype=torch.bfloat16, device=device)
    old, new = (
        "acc = tl.dot(a, b, acc, ",
        "acc = acc.to(a.dtype).to(ACC) + tl.dot(a, b, ",
    )
    new += "None, "
    with testing.mutated_module(tile, old, new):
        assert float(tile.matmul(a, b)) != 64
    assert float(tile.matmul(a, b)) == 64
    assert operands.task_of(a, b)[1]
