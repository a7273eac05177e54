"""What the page shows: pictures, tables, compiled kernels, and MX products."""

import re

import pytest
import torch
import triton

from tilebook import compile_only, fp8, ops
from tilebook.fp8 import elsewhere, errors, figures, formats, mx, scaling, show

VERSION = tuple(int(part) for part in triton.__version__.split(".")[:2])


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


def test_a_tile_of_sums_that_is_there_twice_is_half_as_large():
    narrow, wide, tall = re.findall(r"registers, (no|[\d,]+ B) spill", show.too_wide())
    assert narrow == "no"
    assert min(int(x.removesuffix(" B")) for x in (wide, tall)) > 500


def test_the_trace_goes_from_the_tile_to_the_codes():
    table = show.trace()
    assert list(table.index) == ["x", "x", "amax", "scale", "inverse", "y"]
    shapes = [(16, 256), (16, 2, 128), *[(16, 2)] * 3, (16, 256)]
    assert table["shape"].tolist() == shapes


def test_costs_are_those_of_the_datasheet():
    """At 3,350 GB/s, 989 and 1,979 TFLOP/s; what the text concludes of them."""
    table = show.costs()
    few, many = table.loc[16], table.loc[8192]
    assert few["bf16, µs"] == pytest.approx(2 * 8192**2 / 3.35e6, abs=0.06)
    assert few["eight bits, µs"] == pytest.approx(8192**2 / 3.35e6, abs=0.06)
    assert many["eight bits, µs"] == pytest.approx(2 * 8192**3 / 1.979e9, rel=1e-3)
    share = many["quantising the rows, µs"] / many["eight bits, µs"]
    assert share == pytest.approx(3 * 1979 / (2 * 3.35) / 8192, rel=0.01)
    assert share == pytest.approx(1 / 9, rel=0.05)


class TestElsewhere:
    """What the table of other hardware says, and the text of it."""

    @pytest.fixture
    def table(self):
        return elsewhere.table()

    def test_ampere_has_one_of_the_formats(self, table):
        refused = table.loc[("e4m3fn", "sm_80")]
        assert refused.tolist() == ["type fp8e4nv not supported"] * 2
        if VERSION >= (3, 7):
            # The ptxas of 3.6 fails on what comes of the other.
            assert ".f16.f16" in table.loc[("e5m2", "sm_80"), "product"]

    @pytest.mark.parametrize("name", elsewhere.DTYPES)
    def test_units(self, table, name):
        short = name.removesuffix("fn")
        found = table["product"][name]
        assert found["sm_89"].startswith("mma.sync")
        assert found["sm_90"].startswith("wgmma")
        for target in ("sm_89", "sm_90"):
            assert f".{short}.{short}" in found[target]
        assert found["sm_100"].startswith("tcgen05")
        assert found["gfx942"].endswith("_f16")
        assert found["gfx950"].endswith("f8f6f4")

    @pytest.mark.parametrize("name", elsewhere.DTYPES)
    def test_rounding(self, table, name):
        short = name.removesuffix("fn")
        found = table["quantiser"][name]
        assert found["sm_90"] == found["sm_100"] == f"cvt.rn.satfinite.{short}x2.f32"
        assert found["gfx942"] == "bit by bit"
        if VERSION >= (3, 7):
            assert found["gfx950"].startswith("v_cvt")

    def test_ada_cuts_off_before_it_rounds(self, table):
        """Until some version before 3.9, whose instruction takes float32."""
        found = table.loc[("e4m3fn", "sm_89"), "quantiser"]
        made = elsewhere.compiled("quantiser", "e4m3fn", "sm_89")
        by_halves = found.endswith(".e4m3x2.f16x2") and "cvt.rz.f16.f32" in made.ptx
        assert by_halves or found.endswith(".e4m3x2.f32")
        if VERSION < (3, 8) or VERSION >= (3, 9):
            assert by_halves == (VERSION < (3, 8))
        # Just above the middle of 16 and 18 in float32, and the middle in float16.
        x = torch.tensor([17.0]).nextafter(torch.tensor([18.0]))
        middle = torch.tensor([17.0])
        assert formats.round_to(x, formats.E4M3).item() == 18
        assert formats.round_to(middle, formats.E4M3).item() == 16
        assert x.half().float().item() == 17

    def test_what_a_compiler_says_is_short(self):
        inner = ValueError("at 3:4\n  the line\nit fails")
        outer = RuntimeError("something")
        outer.__cause__ = inner
        assert elsewhere._said(outer) == "it fails"
        assert elsewhere._said(ValueError()) == "ValueError"


def test_the_chapters_numbers_of_mx():
    """What its cell prints, to the digits that the text draws conclusions from."""
    torch.manual_seed(3)
    left, right = torch.randn(64, 1024), torch.randn(32, 1024)
    exact = left.double() @ right.double().t()
    found = {}
    for rounding in formats.ROUNDINGS:
        a, b = (scaling.reference(x, "mx", rounding=rounding) for x in (left, right))
        product = mx.emulated(a.codes, b.codes, a.scale, b.scale)
        found[rounding] = errors.relative(product, exact)
    assert found["up"] < found["down"] < 0.05
    four = mx.fp4(left).double() @ mx.fp4(right).double().t()
    assert 1 / 7 < errors.relative(four, exact) < 1 / 5
    groups = left.view(-1, 32).abs().amax(1)
    cut = torch.exp2(torch.log2(groups) % 1) > 448 / 256
    assert 1 / 8 < float(cut.float().mean()) < 1 / 5


def test_quantisers_say_what_they_compile_to():
    # Triton 3.7 spills four registers of one: see `test_compiles_clean`.
    assert show.quantizers().count("no spills") >= len(show.QUANTIZERS) - 1
    assert isinstance(show.compiled(*show.RUNGS[0]), compile_only.Artefact)
