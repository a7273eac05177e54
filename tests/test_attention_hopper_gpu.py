"""Attention for Hopper on a card: as it ships, at sizes of every kind."""

import pytest
import torch

from tilebook import device as here
from tilebook.attention import cooperative, described, folded, launching, overlapped
from tilebook.attention.launching import Task
from tilebook.parallel.launch import capture

pytestmark = pytest.mark.gpu
RUNGS = (described, cooperative, overlapped, folded)
BF16, FP16 = torch.bfloat16, torch.float16
# Batches, heads, heads of keys, queries, keys, columns; causal; keys before its own.
SHAPES = (
    *((2, 4, 4, 1024, 1024, 128, True, None), (2, 4, 4, 1024, 1024, 64, False, None)),
    *((1, 8, 2, 1000, 1000, 128, True, None), (1, 6, 3, 1000, 777, 64, False, None)),
    *((1, 2, 1, 4097, 4097, 64, True, None), (1, 2, 2, 4097, 4097, 128, False, None)),
    *((3, 2, 1, 1, 1, 128, True, None), (3, 4, 2, 1, 4097, 64, False, None)),
    *((1, 2, 2, 777, 300, 128, True, None), (1, 2, 2, 300, 777, 128, True, None)),
    *((1, 4, 2, 1000, 1000, 256, True, None), (1, 4, 4, 1000, 513, 256, False, None)),
    *((1, 4, 2, 500, 500, 96, True, None), (1, 2, 2, 500, 500, 72, False, None)),
    *((1, 2, 1, 300, 300, 32, True, None), (1, 2, 1, 300, 300, 200, True, None)),
    *((1, 4, 2, 4097, 4097, 128, True, 1024), (1, 2, 2, 1000, 1200, 64, False, 100)),
    *((1, 2, 2, 1000, 1000, 256, True, 129), (2, 16, 2, 64, 64, 128, True, None)),
)


def name(value):
    return getattr(value, "__name__", str(value)).rpartition(".")[2]


each_rung = pytest.mark.parametrize("rung", RUNGS, ids=name)


@pytest.fixture
def hopper(device):
    if not here.has("wgmma"):
        pytest.skip("needs Hopper's tensor cores")
    return device


def task_for(shape, dtype=BF16, device="cuda", beside=0):
    """A task over what is not a number, with heads side by side as a layer makes them;
    `beside` more columns between them hold what is not a number either."""
    batches, heads, kv, rows, keys, columns, causal, left = shape

    def drawn(count, length):
        wide = torch.full(
            (batches, length + 1, count, columns + beside), torch.nan, device=device
        )
        tight = torch.randn(batches, length, count, columns, device=device)
        wide[:, :length, :, :columns] = tight
        return wide.to(dtype)[:, :length, :, :columns].transpose(1, 2)

    out = drawn(heads, rows).fill_(torch.nan)
    lse = torch.full((batches, heads, rows), torch.nan, device=device)
    q, k, v = drawn(heads, rows), drawn(kv, keys), drawn(kv, keys)
    return Task(q, k, v, out, lse, columns**-0.5, left, 0 if causal else None)


def expected(task):
    """Results in float64, and how far off they may be.

    Weights are rounded once to the dtype of values, the result once more. Tensor cores
    add with a little less than float32's precision.
    """
    outs, bounds, logs, nears = [], [], [], []
    share = task.q.shape[1] // task.k.shape[1]
    unit = torch.finfo(task.q.dtype).eps / 2
    least = torch.finfo(task.q.dtype).smallest_normal * unit
    i = torch.arange(task.q.shape[2], device=task.q.device)[:, None]
    j = torch.arange(task.k.shape[2], device=task.q.device)
    seen = (j <= i) | (task.right is None)
    if task.left is not None:
        seen = seen & (j >= i - task.left)
    for at in range(launching.heads_of(task)):
        batch, head = divmod(at, task.q.shape[1])
        q = task.q[batch, head].double()
        k, v = (x[batch, head // share].double() for x in (task.k, task.v))
        scores = (q @ k.mT * task.scale).masked_fill(~seen, -torch.inf)
        weights, lse = scores.softmax(-1), scores.logsumexp(-1)
        size = (q.abs() @ k.abs().mT).amax(-1, keepdim=True) * task.scale
        near = 2.0**-21 * (size * 16 + 64)
        outs.append(weights @ v)
        bound = (1.01 * unit + 2 * near) * (weights @ v.abs())
        bound += 1.01 * unit * outs[-1].abs() + least * v.abs().sum(0)
        bounds.append(bound)
        logs.append(lse)
        nears.append(2 * near[:, 0] + 2.0**-20 * (1 + lse.abs()))
    shape = task.out.shape
    found = torch.stack(outs).view(shape), torch.stack(bounds).view(shape)
    return *found, *(torch.stack(x).view(shape[:3]) for x in (logs, nears))


def assert_right(task):
    out, bound, lse, near = expected(task)
    off = (task.out.double() - out).abs() - bound
    assert (off <= 0).all(), f"off by {off.max().item()} more than the bound"
    assert ((task.lse.double() - lse).abs() <= near).all()
    whole = task.out._base.clone()
    whole[:, : task.out.shape[2], :, : task.out.shape[3]] = torch.nan
    assert whole.isnan().all(), "something beside the result was written"


@each_rung
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_any_shape(rung, shape, hopper):
    for dtype, beside in ((BF16, 8), (FP16, 0)):
        task = task_for(shape, dtype, hopper, beside)
        rung.launch(task)
        assert_right(task)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("columns", [64, 128, 256])
@each_rung
def test_every_configuration(rung, columns, causal, hopper):
    shape = (1, 8, 4, 2500, 2500, columns, causal, None)
    for config in rung.CONFIGS[columns]:
        task = task_for(shape, device=hopper)
        rung.launch(task, config)
        assert_right(task)


@pytest.mark.parametrize("columns", [64, 128, 256])
@pytest.mark.parametrize("causal", [False, True])
@each_rung
def test_repeats_to_the_bit(rung, causal, columns, hopper):
    """Weights are read from registers while others are computed: see that none of
    them are taken for others (triton#9433)."""
    task = task_for((2, 16, 4, 2048, 2048, columns, causal, None), device=hopper)
    rung.launch(task)
    out, lse = task.out.clone(), task.lse.clone()
    for _ in range(20):
        task.out.fill_(torch.nan)
        rung.launch(task)
        assert torch.equal(task.out, out)
        assert torch.equal(task.lse, lse)
    assert_right(task)


@each_rung
def test_heads_keep_to_themselves(rung, hopper):
    task = task_for((2, 2, 2, 200, 190, 128, False, None), device=hopper)
    task.k[0, 1], task.v[1, 0] = torch.nan, torch.inf
    rung.launch(task)
    assert task.out[0, 1].isnan().all()
    assert not task.out[1, 0].isfinite().any()
    assert task.out[[0, 1], [0, 1]].isfinite().all()


@each_rung
def test_as_a_function(rung, hopper):
    """Against PyTorch's own, with operands that have to be copied, too."""
    q, k, v = (
        torch.randn(2, heads, 500, 64, device=hopper, dtype=BF16) for heads in (8, 2, 2)
    )
    for x in (q, q.mT.contiguous().mT):
        out, lse = rung.attention(x, k, v, causal=True, scale=0.2)
        wanted = torch.nn.functional.scaled_dot_product_attention(
            q.float(), *(y.float().repeat_interleave(4, 1) for y in (k, v)),
            is_causal=True, scale=0.2,
        )  # fmt: skip
        torch.testing.assert_close(out.float(), wanted, atol=0.02, rtol=0.02)
        assert lse.isfinite().all()


def test_in_a_graph(hopper):
    """Programs that count their tiles, replayed."""
    task = task_for((2, 8, 2, 1000, 1000, 128, True, None), device=hopper)
    graph = capture(lambda: folded.launch(task))
    for _ in range(3):
        task.out.fill_(torch.nan)
        graph.replay()
    torch.cuda.synchronize()
    assert_right(task)


def test_on_two_streams(hopper):
    """Each has its counter."""
    tasks = [
        task_for((2, 8, 8, 2048, 2048, 64, True, None), device=hopper) for _ in "ab"
    ]
    streams = [torch.cuda.Stream() for _ in tasks]
    torch.cuda.synchronize()
    for _ in range(5):
        for task, stream in zip(tasks, streams, strict=True):
            with torch.cuda.stream(stream):
                folded.launch(task)
    torch.cuda.synchronize()
    for task in tasks:
        assert_right(task)


@pytest.mark.large
@each_rung
def test_beyond_32_bits(rung, hopper):
    """More than 2^31 elements of keys, most of them a head's that is read once."""
    keys = 2**23 + 100
    k = torch.zeros(3, 1, keys, 128, dtype=BF16, device=hopper)
    q = torch.ones(3, 1, 64, 128, dtype=BF16, device=hopper)
    k[2, 0, -1] = 10.0
    v = torch.zeros_like(k)
    v[2, 0, -1] = 3.0
    out, lse = rung.attention(q, k, v)
    assert (out[2] == 3).all()
    assert not out[:2].any()
    assert torch.allclose(lse[:2], torch.tensor(float(keys)).log().to(hopper))
