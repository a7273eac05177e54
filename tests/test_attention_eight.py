"""Attention in eight bits against float64, with what rounding weights may cost."""

import itertools

import pytest
import torch

from tilebook import compile_only, testing
from tilebook import device as here
from tilebook.attention import (
    eight,
    eight_errors,
    eight_operands,
    eight_public,
    reference,
)
from tilebook.attention.choose import Config
from tilebook.attention.eight_operands import (
    E4M3,
    GRANULARITIES,
    Eight,
    back,
    quantize_rows,
    quantize_values,
)
from tilebook.attention.eight_public import attention_fp8
from tilebook.attention.trials import close
from tilebook.matmul.evidence import launches
from tilebook.testing.mutation import caught

BITS = 12 if here.has("wgmma") else None
# Batches, heads, heads of keys, queries, keys, features, those of values; causal.
CASES = (
    *((2, 4, 2, 50, 37, 24, 40, False), (1, 2, 1, 40, 70, 32, 16, True)),
    *((1, 1, 1, 1, 1, 1, 3, False), (1, 2, 2, 150, 140, 64, 64, True)),
    *((1, 1, 1, 30, 20, 128, 64, True), (1, 1, 1, 20, 64, 16, 256, False)),
)


def drawn(case, device="cpu", *, loud=False):
    """Wide operands; `loud`, each head and each block of rows has a size of its own."""
    batch, heads, kv, rows, keys, d, e, _ = case
    q = torch.randn(batch, heads, rows, d, device=device)
    k = torch.randn(batch, kv, keys, d, device=device)
    v = torch.randn(batch, kv, keys, e, device=device)
    if loud:
        q[:, :, 128:] *= 3.0
        k[:, :, :128] *= 0.25
        k *= torch.logspace(0, 0.5, kv, device=device)[:, None, None]
        v *= torch.logspace(-2, 2, e, device=device)
    return q, k, v


def quantized(given, granularity):
    q, k, v = given
    return (
        quantize_rows(q, granularity),
        quantize_rows(k, granularity),
        quantize_values(v, granularity),
    )


def attended(eights, **options):
    q, k, v = eights
    return attention_fp8(
        q.codes, k.codes, v.codes, scale_q=q.scale, scale_k=k.scale, scale_v=v.scale,
        return_lse=True, **options,
    )  # fmt: skip


def assert_right(eights, found, *, causal=False, scale=None):
    """A result is that of what codes stand for, within its bound."""
    wide = back(*eights)
    scale = wide[0].shape[3] ** -0.5 if scale is None else scale
    told = {"scale": scale}
    want, lse = reference.attention(*wide, **told, right=0 if causal else None)
    apart = eight.cover(wide[2].shape[3]) <= eight.SUMMED
    limits = eight_errors.bounds(*wide, causal=causal, bits=BITS, apart=apart, **told)
    for x, exact, limit in zip(found, (want, lse), limits, strict=True):
        close(x, exact, limit)


def check(case, granularity="block", device="cpu", *, loud=False, **options):
    eights = quantized(drawn(case, device, loud=loud), granularity)
    with testing.guarded():
        found = attended(eights, causal=case[-1], **options)
    assert_right(eights, found, causal=case[-1], **options)


@pytest.mark.sanitize
@pytest.mark.parametrize("case", CASES, ids=str)
def test_any_shape(case, device):
    check(case, device=device)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_every_granularity(granularity, device):
    torch.manual_seed(0)
    for causal in (False, True):
        case = (2, 2, 1, 140, 150, 32, 40, causal)
        check(case, granularity, device, loud=True)


def test_a_scale_of_ones_own(device):
    check(CASES[0], device=device, scale=0.9)


def test_any_strides(device):
    q, k, v = quantized(drawn((2, 2, 1, 20, 24, 16, 16, False), device), "head")
    want = attended((q, k, v))

    def apart(x, a, b):
        return x.transpose(a, b).contiguous().transpose(a, b)

    for a, b in ((1, 2), (2, 3)):
        views = [Eight(apart(x.codes, a, b), apart(x.scale, 0, 1)) for x in (q, k, v)]
        for found, expected in zip(attended(views), want, strict=True):
            assert found.equal(expected)


def test_no_elements(device):
    for sizes in ((0, 2, 1, 3, 3), (1, 2, 1, 0, 3), (2, 2, 1, 3, 0)):
        out, lse = attended(quantized(drawn((*sizes, 16, 16, False), device), "block"))
        assert out.shape == (sizes[0], 2, sizes[3], 16)
        assert not out.any()
        assert (lse == -torch.inf).all()


def test_large_logits(device):
    q, k, v = drawn((1, 1, 1, 20, 40, 32, 16, True), device)
    eights = quantized((60 * q, 60 * k, v), "head")
    assert_right(eights, attended(eights, causal=True), causal=True)


def test_what_isnt_a_number_stays_in_its_row(device):
    eights = quantized(drawn((1, 1, 1, 40, 40, 32, 16, False), device), "head")
    clean, _ = attended(eights)
    eights[0].codes.view(torch.uint8)[0, 0, 3, 1] = 0x7F
    found, _ = attended(eights)
    assert found[0, 0, 3].isnan().all()
    found[0, 0, 3] = clean[0, 0, 3]
    assert found.equal(clean)


def test_the_same_bits_each_time(device):
    eights = quantized(drawn(CASES[3], device), "block")
    first = attended(eights)
    for _ in range(20 if device.type == "cuda" else 1):
        for a, b in zip(attended(eights), first, strict=True):
            assert a.equal(b)


class TestOperands:
    def test_values_lie_as_products_take_them(self):
        """Where a product's columns are, and what a product takes from that thread."""
        v = torch.arange(40.0).view(1, 1, 40, 1)
        on_side = eight_operands.turned(v)[0, 0, 0]
        assert on_side.shape == (48,)
        for group, a, t, b in itertools.product(range(2), (0, 1), range(4), (0, 1)):
            place = 16 * group + 4 * t + 2 * a + b
            assert on_side[place] == 16 * group + 8 * a + 2 * t + b
        assert eight_operands.upright(on_side.view(1, 1, 1, 48), 40).equal(v)

    @pytest.mark.parametrize("granularity", GRANULARITIES)
    def test_what_comes_back(self, granularity, interpreted):
        given = drawn((2, 4, 2, 150, 140, 24, 40, False), loud=True)
        for found, x in zip(back(*quantized(given, granularity)), given, strict=True):
            # Eight bits have steps of an eighth, and 2^-9 of the largest over 448.
            limit = x.abs() / 15 + x.abs().amax() * 2.0**-17
            assert ((found - x).abs() <= limit).all()

    def test_scales_are_as_many_as_promised(self, interpreted):
        given = drawn((2, 4, 2, 150, 128, 16, 40, False))
        shapes = {
            "tensor": [(1, 1, 1)] * 3,
            "head": [(2, 4, 1), (2, 2, 1), (2, 2, 1)],
            "block": [(2, 4, 2), (2, 2, 1), (2, 2, 40)],
        }
        for granularity, wanted in shapes.items():
            found = quantized(given, granularity)
            assert [tuple(x.scale.shape) for x in found] == wanted
            assert all(x.codes.is_contiguous() for x in found)

    def test_a_rotation_changes_no_product(self):
        turn = eight_operands.rotation(64, torch.Generator().manual_seed(1)).double()
        torch.testing.assert_close(turn @ turn.T, torch.eye(64).double())
        one = torch.zeros(64).double()
        one[5] = 1000.0
        assert (one @ turn).abs().max() < 126
        for d in (0, 48):
            with pytest.raises(ValueError, match="power of two"):
                eight_operands.rotation(d, torch.Generator())


class TestRefusal:
    def told(self, **more):
        q, k, v = quantized(drawn((1, 4, 2, 20, 24, 16, 16, False)), "head")
        return {
            "q": q.codes, "k": k.codes, "v": v.codes, "scale_q": q.scale,
            "scale_k": k.scale, "scale_v": v.scale,
        } | more  # fmt: skip

    @pytest.mark.parametrize(
        ("more", "error", "words"),
        [
            ({"q": torch.zeros(1, 4, 20, 16)}, TypeError, "q must"),
            ({"q": torch.zeros(4, 20, 16).to(E4M3)}, ValueError, "q must"),
            ({"k": torch.zeros(1, 2, 24, 8).to(E4M3)}, ValueError, "k must"),
            ({"k": torch.zeros(1, 3, 24, 16).to(E4M3)}, ValueError, "v must"),
            ({"v": torch.zeros(1, 2, 16, 24).to(E4M3)}, ValueError, "v must"),
            ({"v": torch.zeros(1, 2, 257, 32).to(E4M3)}, ValueError, "v must have"),
            ({"scale_q": torch.ones(1, 3, 1)}, ValueError, "scale_q must have"),
            ({"scale_k": torch.ones(1, 2)}, ValueError, "scale_k must"),
            ({"scale_v": torch.ones(1, 2, 1).double()}, TypeError, "scale_v must"),
            ({"scale": 0.0}, ValueError, "scale must be above 0"),
            ({"scale": "1"}, TypeError, "scale must be a number"),
            ({"out_dtype": torch.float32}, TypeError, "out_dtype must"),
        ],
    )
    def test_by_name(self, more, error, words, interpreted):
        with pytest.raises(error, match=words):
            attention_fp8(**self.told(**more))

    def test_heads_and_granularities(self, interpreted):
        told = self.told(
            k=torch.zeros(1, 3, 24, 16).to(E4M3), v=torch.zeros(1, 3, 16, 32).to(E4M3)
        )
        with pytest.raises(ValueError, match="divide the 4 of q, got 3"):
            attention_fp8(**told)
        for quantize in (quantize_rows, quantize_values):
            with pytest.raises(ValueError, match="granularity must be"):
                quantize(torch.zeros(1, 1, 2, 2), "row")
            with pytest.raises(TypeError, match="x must"):
                quantize(torch.zeros(1, 1, 2, 2).double())


def test_as_an_operator(interpreted):
    q, k, v = quantized(drawn((1, 2, 1, 20, 24, 16, 16, True)), "block")
    arguments = (q.codes, k.codes, v.codes, q.scale, k.scale, v.scale)
    # The other tests of it multiply what it is called with, which codes don't.
    torch.library.opcheck(
        eight_public.attention_fp8_operator,
        (*arguments, True, 0.25, torch.bfloat16),
        test_utils="test_faketensor",
    )


def kernels():
    torch.manual_seed(3)
    check(CASES[0])
    check((1, 2, 1, 140, 270, 32, 16, True), loud=True)
    check((1, 1, 1, 16, 270, 32, 16, False), loud=True)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("(0, 1, 3, 2, 4)", "(0, 1, 2, 3, 4)"),
        ("offs_n[None, :] <= offs_m", "offs_n[None, :] < offs_m"),
        ("seen = (offs_n < sk)", "seen = (offs_n <= sk)"),
        ("start // GROUP * scale_s", "0 * scale_s"),
        ("(highest - LIFT)", "(highest + LIFT)"),
        ("total * shrink + tl", "total + tl"),
        ("acc * shrink[:, None] + tl.dot", "acc + tl.dot"),
        ("m0 // GROUP * scale_qs", "0 * scale_qs"),
        ("top - LIFT + tl.log2", "top + tl.log2"),
        ("hk * scale_kh", "h * scale_kh"),
        ("offs_e * scale_ve", "0 * offs_e"),
        ("hk = h // group", "hk = h % 2"),
    ],
)
def test_each_mistake_is_noticed(old, new, interpreted):
    assert caught(eight, old, new, kernels)


@pytest.mark.parametrize("d", [64, 128, 256])
@pytest.mark.parametrize("causal", [False, True])
def test_compiles_clean(d, causal):
    """Products in eight bits, of weights for which no thread gave anything away."""
    made = compiled(d, causal)
    evidence = made.evidence
    assert not evidence.warnings
    assert not evidence.spill_store_bytes
    assert "e4m3.e4m3" in made.ptx
    assert "mma.sync" not in made.ptx
    # Of two rows the largest and the sum go through two exchanges each, in two loops.
    assert made.ptx.count("shfl.sync.bfly") == 16


def compiled(d, causal, length=4097):
    def empty(*shape, dtype=torch.float32):
        return torch.empty(*shape, dtype=dtype, device="meta")

    q = empty(4, 16, length, d, dtype=E4M3)
    v = empty(4, 16, d, -(-length // 16) * 16, dtype=E4M3)
    groups = -(-length // 128)
    task = eight_operands.task_of(
        q, q, v, empty(4, 16, groups), empty(4, 16, groups), empty(4, 16, d),
        causal, 0.1, torch.bfloat16,
    )  # fmt: skip
    config = eight.config_for(task, "sm_90")
    assert isinstance(config, Config)
    (found,) = launches(lambda wrap: eight.launch(task._replace(wrap=wrap), config))
    return compile_only.compile(found.kernel, *found.args, target="sm_90", **found.meta)


@pytest.mark.gpu
@pytest.mark.parametrize("case", [
    (2, 4, 2, 1000, 1000, 64, 64, True), (1, 2, 2, 4097, 500, 128, 128, True),
    (1, 8, 1, 300, 4097, 128, 128, False), (1, 2, 1, 700, 900, 256, 256, True),
], ids=str)  # fmt: skip
def test_on_a_card(case, device):
    for granularity in GRANULARITIES:
        check(case, granularity, device, loud=True)
