"""What the page shows: pictures, tables, compiled kernels, and MX products."""

import re

import pytest
import torch
import triton

from tilebook import compile_only, fp8, ops
from tilebook.fp8 import errors, figures, formats, mx, scaling, show


def test_the_ladder_is_what_the_package_says_it_is():
    lines = fp8.__doc__.splitlines()
    told = [line.split("`")[1] for line in lines if line.startswith("* `")]
    assert told == [rung.__name__.rpartition(".")[2] for rung in fp8.LADDER]
    assert ops.scaled_matmul is fp8.scaled_matmul


def test_pictures_say_what_they_show():
    assert "e4m3fn: 126 numbers from 0.00195312 to 448" in figures.numbers().alt
    counts = "tensor 1, row 256, 1x128 1024, 128x128 8, mx 4096"
    assert counts in figures.granularities().alt


@pytest.mark.parametrize("granularity", scaling.GRANULARITIES)
def test_groups_are_drawn_where_they_are(granularity):
    drawn = figures.groups_of(granularity)
    assert drawn.shape == figures.SHAPE
    rows, columns, _ = scaling.GRANULARITIES[granularity]
    for dim, side in enumerate((rows, columns)):
        steps = (drawn.diff(dim=dim) != 0).any(1 - dim).nonzero()[:, 0] + 1
        size = figures.SHAPE[dim]
        assert steps.tolist() == list(range(side or size, size, side or size))


def test_tables():
    table = show.landmarks()
    assert table.loc["e4m3fn", "largest"] == 448
    assert table.loc["e5m2", "half a step"] == 0.125


def test_zero_imprecise_terms_are_no_terms_for_wgmma():
    lines = dict(re.findall(r"^(\w+):\n  (.*)$", show.limits(), re.M))
    assert list(lines) == ["None", "128", "64", "32", "0"]
    assert "mma.sync" in lines["0"]
    assert "wgmma" not in lines["0"]
    for name in ("None", "128", "64", "32"):
        assert "wgmma" in lines[name]
    assert "ptxas" not in lines["None"]


@pytest.mark.parametrize("target", ["sm_90", "sm_100", "gfx950"])
def test_block_scaled_products_compile(target):
    found = show.block_scaled(target)
    kind = {"sm_90": "wgmma", "sm_100": "tcgen05", "gfx950": "mfma"}[target]
    assert set(found.evidence.mma) == {kind}
    if target == "sm_90":
        # Of sixteen bits: nothing is multiplied in eight.
        assert "bf16.bf16" in found.ptx
        assert "e4m3.e4m3" not in found.ptx
    if target == "sm_100":
        assert "mxf8f6f4.block_scale" in show.instruction()


def quantized(m, k):
    return scaling.reference(torch.randn(m, k), "mx")


class TestMX:
    def test_product(self, device):
        version = tuple(map(int, triton.__version__.split(".")[:2]))
        if device.type == "cpu" and version < (3, 8):
            pytest.skip("the interpreter has no tl.dot_scaled before 3.8")
        a, b = quantized(20, 100), quantized(17, 100)
        operands = [x.to(device) for x in (a.codes, b.codes, a.scale, b.scale)]
        out = mx.matmul(*operands, out_dtype=torch.float32)
        assert errors.relative(out, mx.emulated(*operands)) < 2.0**-12

    def test_emulated(self):
        a, b = quantized(5, 70), quantized(4, 70)
        exact = mx.emulated(a.codes, b.codes, a.scale, b.scale)
        left, right = (scaling.dequantize(*x, "mx") for x in (a, b))
        assert torch.allclose(exact, left.double() @ right.double().t())

    def test_refusals(self, device):
        a = quantized(5, 70)
        codes, scale = a.codes.to(device), a.scale.to(device)
        with pytest.raises(ValueError, match="b must have shape"):
            mx.matmul(codes, codes[:, :64].contiguous(), scale, scale)
        with pytest.raises(ValueError, match="a must be contiguous"):
            mx.matmul(codes[:, ::2], codes, scale, scale)
        with pytest.raises(TypeError, match="scale_a must be float8_e8m0fnu, got"):
            mx.matmul(codes, codes, scale.float(), scale)
        none = mx.matmul(codes[:0], codes, scale[:0], scale)
        assert none.shape == (0, 5)

    def test_four_bits(self):
        x = torch.randn(8, 96)
        back = mx.fp4(x)
        assert 0.08 < errors.relative(back, x) < 0.15
        groups = back.view(8, 3, 32)
        top = x.view(8, 3, 32).abs().amax(2, keepdim=True)
        scale = torch.exp2(torch.floor(torch.log2(top))) / 4
        steps = (groups / scale).abs()
        known = formats.table(formats.E2M1)[:8]
        assert (steps[..., None] == known).any(-1).all()
        # A value of a group is the nearest there is, or the largest.
        away = (x.view(8, 3, 32).abs() / scale)[..., None] - known
        assert torch.allclose(
            away.abs().amin(-1), ((x.view(8, 3, 32) / scale).abs() - steps).abs()
        )
        assert not mx.fp4(torch.zeros(2, 40)).any()


def test_quantisers_say_what_they_compile_to():
    assert show.quantizers().count("no spills") == len(show.QUANTIZERS)
    assert isinstance(show.compiled(*show.RUNGS[0]), compile_only.Artefact)
