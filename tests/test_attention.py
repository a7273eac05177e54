"""The rungs of `attention`: each against float64, within bounds derived."""

import pytest
import torch

from tilebook import attention as chapter
from tilebook import testing
from tilebook.attention import (
    backward,
    causal,
    descriptors,
    errors,
    forward,
    materialised,
    onepass,
    operands,
    reference,
    trials,
)
from tilebook.attention.choose import Config
from tilebook.attention.trials import Shape, close, drawn

SMALL = Config(16, 32, 4, 2)
DTYPES = operands.DTYPES
RUNGS = pytest.mark.parametrize(
    "rung", chapter.LADDER, ids=lambda rung: rung.__name__.rpartition(".")[2]
)


@pytest.fixture(autouse=True)
def several(monkeypatch, device):
    """Few rows to a tile where kernels are interpreted, so that there are several."""
    if device.type == "cpu":
        monkeypatch.setattr(forward, "forward_config", lambda task: SMALL)
        monkeypatch.setattr(onepass, "Config", lambda: SMALL)
        monkeypatch.setattr(causal, "Config", lambda: SMALL)
        monkeypatch.setattr(materialised, "BLOCK", 32)


def check_rung(rung, q, k, v, **told):
    """Compare the result and its logarithms, nothing around them written."""
    right = 0 if rung is causal else None
    with testing.guarded():
        task = operands.plain(q, k, v, told.get("scale"))._replace(right=right)
        rung.launch(task)
    ref, lse = reference.attention(
        q.double(), k.double(), v.double(), scale=task.scale, right=right
    )
    limits = errors.bounds(
        q, k, v, task.out, scale=task.scale, right=right,
        precision=task.precision if q.is_cuda else "ieee",
    )  # fmt: skip
    close(task.out, ref, limits.out)
    close(task.lse, lse, limits.lse)
    with testing.guarded():
        assert rung.attention(q, k, v, **told).equal(task.out)


def plain(shape, dtype, device):
    return [x.detach() for x in drawn(shape, dtype, device)]


@RUNGS
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "shape",
    [Shape(2, 4, 2, 50, 37, 24, 40), Shape(1, 1, 1, 1, 1, 1, 3)],
    ids=["ragged", "one"],
)
def test_rung_is_right(rung, shape, dtype, device):
    check_rung(rung, *plain(shape, dtype, device))


@RUNGS
def test_more_queries_than_keys_and_a_scale(rung, device):
    check_rung(rung, *plain(Shape(rows=70, columns=33), DTYPES[0], device), scale=0.7)


@RUNGS
def test_any_strides(rung, device):
    q, k, v = plain(Shape(2, 2, 1, 20, 24, 16, 16), DTYPES[1], device)
    views = [
        [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)],
        [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (q, k, v)],
        [x[:1].expand(2, -1, -1, -1) for x in (q, k, v)],
        [q[:, :, ::2], k[:, :, ::3], v[:, :, ::3]],
    ]
    for view in views:
        check_rung(rung, *view)


@RUNGS
def test_no_elements(rung, device):
    for shape in (
        Shape(0, 2, 1, 3, 3),
        Shape(1, 2, 1, 0, 3),
        Shape(2, 2, 1, 3, 0),
    ):
        q, k, v = plain(shape, DTYPES[0], device)
        out = rung.attention(q, k, v)
        assert out.shape == (*q.shape[:3], v.shape[3])
        assert not out.any()


@RUNGS
def test_large_logits_dont_overflow(rung, device):
    q, k, v = plain(Shape(rows=20, columns=40), DTYPES[0], device)
    check_rung(rung, 60 * q, 60 * k, v)


@RUNGS
def test_nan_and_infinity_stay_in_their_row(rung, device):
    q, k, v = plain(Shape(rows=40, columns=40), DTYPES[0], device)
    clean = rung.attention(q, k, v)
    q[0, 0, 3, 1] = float("nan")
    found = rung.attention(q, k, v)
    assert found[0, 0, 3].isnan().all()
    found[0, 0, 3] = clean[0, 0, 3]
    assert found.equal(clean)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_descriptors_bring_the_same(dtype, device):
    """Also the ragged end, and features that a tile pads."""
    given = plain(Shape(1, 4, 2, 50, 70, 24, 40), dtype, device)
    for right in (None, 0):
        tasks = []
        for described in (False, True):
            task = operands.plain(*given)._replace(right=right, described=described)
            told = descriptors.looped(task, 32, "k", "v")
            assert told["DESCRIBED"] == described
            forward.launch(task)
            tasks.append(task)
        assert tasks[0].out.equal(tasks[1].out)
        assert tasks[0].lse.equal(tasks[1].lse)


def test_what_cannot_be_described():
    x = torch.zeros(2, 2, 8, 16)
    assert descriptors.describable(x)
    for bad in (
        x[..., 1:],
        x[:1].expand(2, -1, -1, -1),
        x[:0],
        torch.zeros(2, 2, 8, 17),
        x.transpose(2, 3),
    ):
        assert not descriptors.describable(bad)


def test_rows_that_lie_far_apart_are_copied():
    near = torch.empty(2, 3, 4, 8)
    assert operands.aligned(near) is near
    steps = (1, 1, operands.FARTHEST, 1)
    far = torch.empty(operands.FARTHEST + 1).as_strided((1, 1, 2, 1), steps)
    assert operands.aligned(far).is_contiguous()


def test_the_reference_agrees_with_pytorch():
    q, k, v = plain(Shape(2, 4, 2, 20, 30, 16, 8), torch.float64, "cpu")
    told = {"scale": 0.3}
    mask = torch.rand(20, 30) < 0.5
    mask[3] = False
    fn = torch.nn.functional.scaled_dot_product_attention
    for ours, theirs in (
        ({}, {}),
        ({"right": 0}, {"is_causal": True}),
        ({"bias": mask}, {"attn_mask": mask}),
        ({"bias": mask.double()}, {"attn_mask": mask.double()}),
    ):
        out, _ = reference.attention(q, k, v, **told, **ours)
        testing.assert_close(
            out, fn(q, k, v, enable_gqa=True, **told, **theirs), length=1000
        )


def test_dropout_leaves_the_share_that_it_should():
    keep = reference.kept(7, 2, 2, 100, 100, 0.3)
    assert abs(keep.double().mean() - 0.7) < 5 * (0.21 / keep.numel()) ** 0.5
    assert not keep[0].equal(keep[1])
    assert not keep[0, 0].equal(keep[0, 0].t())
    again = reference.kept(7, 1, 2, 60, 70, 0.3)
    assert again[0].equal(keep[0, :, :60, :70])
    assert not reference.kept(8, 1, 2, 60, 70, 0.3).equal(again)


def test_refusals_of_the_rungs(device):
    q, k, v = plain(Shape(), torch.float32, device)
    for rung in chapter.LADDER:
        for given, kind, message in (
            ((q[0], k, v), ValueError, "q must have 4 dimensions"),
            ((q, k.half(), v), TypeError, "k must have the dtype of q"),
            ((q.double(), k, v), TypeError, "q must be float32"),
            ((q, k[:, :, :3], v), ValueError, "v must have shape"),
            ((q, k[:, :0], v[:, :0]), ValueError, "k must have heads that divide"),
            ((q, 3, v), TypeError, "k must be a torch.Tensor"),
        ):
            with pytest.raises(kind, match=message):
                rung.attention(*given)
    with pytest.raises(ValueError, match="scale must be positive"):
        causal.attention(q, k, v, scale=-1.0)


def test_the_ladder_is_in_order():
    assert chapter.LADDER[0] is materialised
    assert chapter.LADDER[-1] is forward
    assert backward.keys_kernel is not backward.queries_kernel


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("length", [1, 127, 128, 129, 1000, 4097])
@RUNGS
def test_lengths_compiled(rung, length, dtype, device):
    shape = Shape(1, 4, 2, length, length, 64, 64)
    check_rung(rung, *plain(shape, dtype, device))


@pytest.mark.gpu
@pytest.mark.parametrize("d", [16, 24, 32, 40, 64, 72, 80, 96, 112, 128, 160, 192, 256])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_all_sizes_of_heads_compiled(d, dtype, device):
    for right in (None, 0):
        trials.agree(drawn(Shape(2, 4, 2, 300, 200, d, d), dtype, device), right=right)


@pytest.mark.gpu
def test_the_same_bits_each_time(device):
    q, k, v = plain(Shape(2, 8, 2, 1000, 1000, 128, 128), torch.bfloat16, device)
    testing.deterministic(
        lambda: chapter.attention(q, k, v, causal=True, return_lse=True)
    )


@pytest.mark.gpu
@pytest.mark.large
def test_more_than_2_31_elements(device):
    """The last head of many is as right as alone."""
    batch, heads, length, d = 5, 64, 65536, 128
    q = torch.randn(1, 1, length, d, dtype=torch.bfloat16, device=device)
    wide = torch.empty(batch, heads, length, d, dtype=torch.bfloat16, device=device)
    assert wide.numel() > 2**31
    wide.copy_(q.expand_as(wide))
    out = chapter.attention(wide[:, :, :256], wide, wide)
    alone = chapter.attention(q[:, :, :256], q, q)
    assert out[-1, -1].equal(alone[0, 0])
    out = chapter.attention(wide, wide[:, :, :64], wide[:, :, :64])
    alone = chapter.attention(q, q[:, :, :64], q[:, :, :64])
    assert out[-1, -1].equal(alone[0, 0])
