"""`softmax` and `log_softmax` as they are used: shapes, dims, masks, dtypes, choice."""

import hypothesis.strategies as st
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given

from tilebook import device as here
from tilebook import softmax as chapter
from tilebook import testing
from tilebook.softmax import (
    accuracy,
    arguments,
    backward,
    backward_long,
    choose,
    cooperative,
    fused,
    log_softmax,
    masked,
    online,
    persistent,
    public,
    ragged,
    resident,
    several,
    softmax,
    split,
)
from tilebook.softmax.operands import DTYPES, Task

INF = float("inf")
BOTH = pytest.mark.parametrize(
    ("ours", "theirs"),
    [(softmax, torch.softmax), (log_softmax, torch.log_softmax)],
    ids=["softmax", "log"],
)


def assert_right(out, x, dim=-1, *, log=False, temperature=1.0, dtype=None):
    fn = torch.log_softmax if log else torch.softmax
    assert out.is_contiguous()
    assert out.dtype == (dtype or x.dtype)
    expected = testing.reference(lambda x: fn(x / temperature, dim), x)
    scale, length = accuracy.forward(
        x, dim, log=log, temperature=temperature, chunks=40
    )
    testing.assert_close(out, expected, length=length, factor=length, scale=scale)


@BOTH
@pytest.mark.parametrize(
    "shape",
    [(), (1,), (7,), (0,), (3, 5), (2, 0, 3), (0, 4), (2, 3, 5), (1, 1, 4, 1)],
    ids=str,
)
def test_every_dim_of_any_shape(ours, theirs, shape, device):
    x = torch.randn(shape, device=device)
    for dim in range(-max(x.ndim, 1), max(x.ndim, 1)):
        with testing.guarded():
            out = ours(x, dim)
        assert out.shape == theirs(x, dim).shape
        if out.numel():
            assert_right(out, x, dim, log=ours is log_softmax)


@pytest.mark.parametrize("dim", [0, 1, 2])
def test_any_strides(dim, device):
    x = torch.randn(2, 3, 16, dtype=torch.bfloat16, device=device)
    views = dict(testing.layouts(x)) | dict(testing.expanded(x))
    views |= {"permuted": x.permute(1, 2, 0), "stepped": x[:, :, ::3]}
    for name, view in views.items():
        kept = view.clone()
        with testing.guarded():
            out = softmax(view, dim)
        assert_right(out, view, dim), name
        assert torch.equal(view, kept)


def test_a_view_that_is_still_to_be_negated(device):
    z = torch.randn(3, 8, dtype=torch.complex64, device=device)
    negated = z.conj().imag
    assert negated.is_neg()
    assert_right(softmax(negated), negated.resolve_neg())


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    dim=st.integers(0, 3),
    order=st.permutations(range(4)),
    step=st.integers(1, 2),
    which=st.integers(0, 3),
    log=st.booleans(),
)
def test_views_of_any_kind(shape, dim, order, step, which, log):
    x = torch.randn([n * step for n in shape], dtype=torch.float64)
    x = x.to(here.torch_device(), DTYPES[which])
    x = x.permute([d for d in order if d < x.ndim])
    x = x[tuple(slice(None, None, step) for _ in shape)]
    dim %= x.ndim
    out = (log_softmax if log else softmax)(x, dim)
    assert_right(out, x, dim, log=log)


class TestDtype:
    @pytest.mark.parametrize("dtype", DTYPES, ids=str)
    @pytest.mark.parametrize(
        "given",
        [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.int16],
        ids=str,
    )
    def test_conversion_comes_first(self, dtype, given, device):
        x = (torch.randn(2, 20, device=device) * 3).to(given)
        out = softmax(x, dtype=dtype)
        assert_right(out, x.to(dtype), dtype=dtype)
        theirs = torch.softmax(x, 1, dtype=dtype)
        assert theirs.dtype == out.dtype

    def test_widening_is_the_kernels(self, device):
        x = torch.randn(2, 24, dtype=torch.bfloat16, device=device)
        same, widened = arguments.typed(x, torch.float32)
        assert same is x
        assert widened == torch.float32
        for view in (x, x[:, 1:], x[:, :23], x.T):
            out = softmax(view, dtype=torch.float32)
            assert_right(out, view.float())

    @BOTH
    def test_other_dtypes_are_refused(self, ours, theirs, device):
        with pytest.raises(TypeError, match=r"x without dtype= must be .*got int64"):
            ours(torch.ones(3, device=device).long())
        with pytest.raises(TypeError, match=r"dtype must be one of .*got torch\.int32"):
            ours(torch.ones(3, device=device), dtype=torch.int32)
        z = torch.ones(3, dtype=torch.complex64, device=device)
        with pytest.raises(TypeError, match=r"x must be real, got torch\.complex64"):
            ours(z, dtype=torch.float32)


class TestTemperature:
    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
    @pytest.mark.parametrize("temperature", [0.1, 1, 3.0, 1e3])
    def test_divides(self, dtype, temperature, device):
        x = torch.randn(2, 30, dtype=dtype, device=device)
        for dim in (0, 1):
            out = softmax(x, dim, temperature=temperature)
            assert_right(out, x, dim, temperature=temperature)
        out = log_softmax(x, temperature=temperature)
        assert_right(out, x, log=True, temperature=temperature)

    @pytest.mark.parametrize("temperature", [0, -1.0, INF, float("nan"), 1e-40])
    def test_out_of_range(self, temperature, device):
        with pytest.raises(ValueError, match="temperature must be positive"):
            softmax(torch.ones(3, device=device), temperature=temperature)

    def test_a_difference_that_float32_does_not_hold(self, device):
        """As the notes say; where it holds it, heat is no trouble."""
        x = torch.tensor([-3e38, 3e38, 2e38], device=device)
        assert log_softmax(x, temperature=8e37)[0] == -INF
        out = log_softmax(x[1:], temperature=8e37)
        torch.testing.assert_close(out, torch.log_softmax(x[1:] / 8e37, 0))

    def test_no_number(self, device):
        with pytest.raises(TypeError, match="temperature must be a number, got str"):
            softmax(torch.ones(3, device=device), temperature="hot")


def left_out(x, mask, causal):
    """The operand as PyTorch would be given it."""
    if mask is not None:
        x = x.masked_fill(~mask, -INF)
    if causal:
        keep = torch.ones(x.shape[-2:], dtype=torch.bool, device=x.device).tril()
        x = x.masked_fill(~keep, -INF)
    return x


class TestMask:
    @BOTH
    @pytest.mark.parametrize(
        "shape",
        [None, (2, 1, 3, 20), (20,), (1, 1), (), (3, 1), (1, 2, 1, 20), (2, 2, 3, 20)],
        ids=str,
    )
    def test_broadcasts(self, ours, theirs, shape, device):
        x = torch.randn(2, 2, 3, 20, device=device)
        mask = None if shape is None else torch.rand(shape, device=device) > 0.4
        for causal in (False, True):
            with testing.guarded():
                out = ours(x, mask=mask, causal=causal)
            wanted = theirs(left_out(x, mask, causal), -1)
            torch.testing.assert_close(out, wanted, equal_nan=True)
            assert torch.equal(out == 0, wanted == 0)

    @pytest.mark.parametrize("causal", [False, True])
    def test_long_rows_and_any_strides(self, causal, device, monkeypatch):
        chunked = masked.Config(16, 1)
        monkeypatch.setattr(masked, "config_for", lambda n, size: chunked)
        x = torch.randn(2, 4, 40, dtype=torch.float16, device=device)
        mask = torch.rand(4, 80, device=device)[:, ::2] > 0.3
        for view in (x, x.transpose(0, 1), x[:, ::2], x[:, :, ::2]):
            keep = mask[: view.shape[1], : view.shape[2]]
            out = softmax(view, mask=keep, causal=causal)
            wanted = torch.softmax(left_out(view, keep, causal).double(), -1)
            torch.testing.assert_close(
                out.double(), wanted, equal_nan=True, rtol=2e-3, atol=1e-6
            )

    @pytest.mark.parametrize("shape", [(40, 5), (3, 8, 4), (1, 1, 30, 6)], ids=str)
    def test_more_rows_than_programs(self, shape, device, monkeypatch):
        monkeypatch.setattr(masked, "MOST_PROGRAMS", 7)
        x = torch.randn(shape, device=device)
        mask = torch.rand(shape[-1], device=device) > 0.3
        mask[0] = True
        for keep, causal in ((mask, False), (None, True), (mask, True)):
            with testing.guarded():
                out = softmax(x, mask=keep, causal=causal)
            wanted = torch.softmax(left_out(x, keep, causal), -1)
            torch.testing.assert_close(out, wanted)

    def test_what_is_left_out_may_be_anything(self, device):
        x = torch.randn(3, 10, device=device)
        x[:, 4], x[:, 5] = float("nan"), INF
        mask = torch.ones(10, dtype=torch.bool, device=device)
        mask[4:6] = False
        out = softmax(x, mask=mask)
        assert_right(out[:, mask].contiguous(), x[:, mask])
        assert not out[:, ~mask].any()

    @BOTH
    def test_a_row_of_which_nothing_is_left_is_nan(self, ours, theirs, device):
        x = torch.randn(2, 3, device=device)
        mask = torch.tensor([[True], [False]], device=device)
        out = ours(x, mask=mask)
        assert out[0].isfinite().all()
        assert out[1].isnan().all()

    def test_along_another_dim(self, device):
        x = torch.randn(4, 5, 6, device=device)
        mask = torch.rand(5, 1, device=device) > 0.3
        mask[0] = True
        for dim in (0, 1):
            out = softmax(x, dim, mask=mask)
            wanted = torch.softmax(left_out(x, mask, False), dim)
            assert out.is_contiguous()
            torch.testing.assert_close(out, wanted, equal_nan=True)

    def test_a_single_number(self, device):
        x = torch.randn((), device=device)
        assert softmax(x, mask=torch.tensor(True, device=device)) == 1
        assert softmax(x, mask=torch.tensor(False, device=device)).isnan()

    def test_causal_rows_are_attentions(self, device):
        scores = torch.randn(2, 5, 7, device=device)
        value = torch.eye(7, device=device).expand(2, 7, 7)
        # Queries and keys whose products are these scores.
        key = torch.eye(7, device=device).expand(2, 7, 7)
        theirs = F.scaled_dot_product_attention(
            scores, key, value, is_causal=True, scale=1.0
        )
        torch.testing.assert_close(softmax(scores, causal=True), theirs)

    def test_refused(self, device):
        x = torch.ones(2, 3, device=device)
        flags = torch.ones(3, dtype=torch.bool, device=device)
        for kwargs, error, message in (
            ({"mask": flags.float()}, TypeError, "mask must be bool, got float32"),
            ({"mask": flags[:2]}, ValueError, r"mask must broadcast .*\(2, 3\), got"),
            ({"mask": flags[None, None]}, ValueError, r"got \(1, 1, 3\)"),
            ({"mask": 1}, TypeError, "mask must be a torch.Tensor, got int"),
            ({"mask": flags.to("meta")}, ValueError, "mask must be on"),
            ({"causal": 1}, TypeError, "causal must be a bool, got int"),
            ({"causal": True, "dim": 0}, ValueError, "causal needs dim to be the las"),
        ):
            with pytest.raises(error, match=message):
                softmax(x, **kwargs)
        with pytest.raises(ValueError, match="causal needs"):
            softmax(x[0], causal=True)


class TestRefused:
    @pytest.mark.parametrize(
        ("x", "dim", "error", "message"),
        [
            ([1.0], -1, TypeError, "x must be a torch.Tensor, got list"),
            (torch.ones(2, 2), 2, ValueError, "dim must be from -2 to 1, got 2"),
            (torch.ones(()), 1, ValueError, "dim must be from -1 to 0, got 1"),
            (torch.ones(2), 0.0, TypeError, "dim must be an int, got float"),
            (torch.ones(2, device="meta"), 0, ValueError, "x must be on .*, got meta"),
        ],
    )
    def test_unfit(self, x, dim, error, message, device):
        if isinstance(x, torch.Tensor) and not x.is_meta:
            x = x.to(device)
        with pytest.raises(error, match=message):
            softmax(x, dim)


def rows(
    m, n, itemsize=2, aligned=True, even=True, engine=False, together=False
):  # fmt: skip
    return choose.Rows(m, n, itemsize, aligned, even, engine, together)


class TestChoice:
    def test_by_length(self):
        def chosen(n, itemsize=2, **more):
            return choose.choose(rows(10**6, n, itemsize, **more))[0]

        assert chosen(256) is several
        assert chosen(4096) is fused
        assert chosen(16384) is fused
        assert chosen(16385) is persistent
        assert chosen(32768, itemsize=4) is fused
        assert chosen(4097, aligned=False) is ragged
        assert chosen(4097, aligned=False, even=False) is fused
        assert chosen(50257, aligned=False) is online
        assert chosen(2**21) is online
        assert chosen(65536, engine=True) is resident
        assert chosen(65536, engine=True, together=True) is resident
        assert chosen(65536, 4, engine=True, together=True) is cooperative
        assert chosen(50257, 4, aligned=False, together=True) is cooperative
        assert chosen(50257, aligned=False, together=True) is online
        assert chosen(2**18, together=True) is cooperative
        assert chosen(512, engine=True, together=True) is several
        assert chosen(513, aligned=False) is ragged
        assert chosen(511, aligned=False) is several
        assert chosen(513, aligned=False, even=False) is several

    def test_thresholds_are_those_the_chapter_tells(self):
        assert (choose.SEVERAL, choose.RAGGED) == (2 * 1024, 1024)
        assert choose.JOINT == 8 * 2**20
        assert (choose.PERSISTENT, fused.LARGEST) == (16 * 1024, 32 * 1024)
        assert choose.COOPERATIVE == resident.longest(1) == 256 * 1024
        assert backward.LARGEST == 64 * 1024
        assert choose.GRADIENT_RAGGED == 32 * 1024

    def test_few_long_rows_are_split(self):
        sms = here.current().sms or 2
        assert choose.choose(rows(1, 2**20))[0] is split
        assert choose.choose(rows(sms, 2**20))[0] is online
        assert choose.choose(rows(1, 1024))[0] is several

    def test_few_that_are_much_together_are_held(self, monkeypatch):
        sms = (here.current().sms or 2) // choose.FEW
        monkeypatch.setattr(choose, "JOINT", sms * 2**21)
        for n, rung in ((2**20, cooperative), (2**20 - 8, split)):
            assert choose.choose(rows(sms, n, together=True))[0] is rung
            assert choose.choose(rows(sms, n))[0] is split

    def test_a_gradient_of_rows_that_start_anywhere(self):
        def chosen(n, itemsize):
            return choose.choose_gradient(rows(10**6, n, itemsize, aligned=False))[0]

        assert chosen(4097, 4) is chosen(4097, 8) is chosen(513, 2) is backward
        assert chosen(4097, 2) is backward_long

    def test_more_rows_than_programs(self):
        for n, rung in ((4, persistent), (4096, persistent), (2**17, online)):
            assert choose.choose(rows(2**44, n))[0] is rung
        assert choose.choose_gradient(rows(2**44, 4))[1].stages == 2

    def test_a_gradient_narrower_than_what_arrives_is_aligned(self):
        for n in (4096, 4100):
            y, grad = (torch.empty(8, n, device="meta") for _ in range(2))
            dx = torch.empty(8, n, dtype=torch.bfloat16, device="meta")
            found = choose.describe_gradient(y, grad, dx, plain=True)
            assert found.aligned
            assert choose.choose_gradient(found)[0] is backward

    def test_every_choice_takes_what_it_is_chosen_for(self):
        """For every length near a threshold or a limit, and every kind of rows."""
        lengths = {
            base // size + off
            for base in (1, 2048, 4096, 16384, 32768, 65536, 131072, 262144, 2**20)
            for size in (2, 4, 8)
            for off in (-8, -1, 0, 1, 8)
        }
        for dtype in DTYPES:
            for n in sorted(n for n in lengths if n > 0):
                x = torch.empty(300, n, dtype=dtype, device="meta")
                wide = torch.empty(300, n + 3, dtype=dtype, device="meta")[:, :n]
                for view in (x, wide):
                    facts = choose.describe(view, torch.empty_like(x), plain=False)
                    rung, config = choose.choose(facts)
                    assert getattr(rung, "refusal", lambda x: None)(view) is None
                    # What lies outside a row's body is in no tile.
                    least = n - 16 // x.itemsize if rung is ragged else n
                    assert rung is online or config.block >= least

    @pytest.mark.parametrize(
        ("shape", "rung"),
        [((3, 2, 100), several), ((8, 2100), fused), ((2, 1101), ragged)],
        ids=str,
    )
    def test_what_is_chosen_is_launched(self, shape, rung, device, monkeypatch):
        launched = []
        original = rung.launch_as

        def spy(config, x, out, task):
            launched.append(rung)
            original(config, x, out, task)

        monkeypatch.setattr(rung, "launch_as", spy)
        x = torch.randn(shape, device=device)
        assert_right(softmax(x), x)
        assert launched == [rung]

    def test_a_long_row(self, device):
        x = torch.randn(1, 40000, device=device)
        assert_right(softmax(x), x)


MISTAKES = [
    (public, "return _over(Task(inverse_t, log), x, dim, dtype)",
     "return _over(Task(1.0, log), x, dim, dtype)"),
    (public, "x, mask = x.movedim(dim, -1).contiguous(), mask.movedim(dim, -1)",
     "x, mask = x.movedim(dim, -1).contiguous(), mask"),
    (public, "if n > 1 and rows.stride(1) != 1:", "if n > 1 and rows.stride(1) == 7:"),
    (arguments, "else x.to(dtype)), dtype", "else x), dtype"),
    (arguments, "return dim % most", "return abs(dim)"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "old", "new"), MISTAKES)
def test_planted_mistakes_are_found(module, old, new, device):
    x = torch.randn(4, 4, 4, device=device) * 3
    mask = torch.rand(4, 4, 4, device=device) > 0.3
    mask[..., 0], mask[0] = True, True

    def suite():
        for dim in (0, -2, -1):
            assert_right(softmax(x, dim, temperature=2.0), x, dim, temperature=2.0)
            out = softmax(x, dim, mask=mask)
            wanted = torch.softmax(left_out(x, mask, False), dim)
            torch.testing.assert_close(out, wanted, equal_nan=True)
        assert_right(softmax(x[0].T), x[0].T)
        out = softmax(x, dtype=torch.bfloat16)
        assert_right(out, x.bfloat16(), dtype=torch.bfloat16)

    suite()
    with (
        testing.mutated_module(module, old, new),
        pytest.raises((AssertionError, RuntimeError, ValueError)),
    ):
        suite()


def test_repeats_are_equal(device):
    x = torch.randn(3, 2100, dtype=torch.bfloat16, device=device)
    testing.deterministic(lambda: softmax(x), 3)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("m", "n"),
    [
        *((4096, 256), (4096, 1000), (2048, 1024), (2048, 4097), (512, 8192)),
        *((256, 32768), (256, 50257), (256, 65536), (192, 131072), (4, 2**20)),
    ],
)
def test_lengths_of_the_experiments(dtype, m, n, device):
    x = torch.randn(m, n, dtype=dtype, device=device)
    for log, fn in ((False, softmax), (True, log_softmax)):
        with testing.guarded():
            out = testing.deterministic(lambda fn=fn: fn(x))
        assert_right(out, x, log=log)


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize("dim", [0, 1, 2])
def test_any_dim_of_large_tensors(dim, device):
    x = torch.randn(65, 515, 258, dtype=torch.bfloat16, device=device)
    assert_right(softmax(x, dim), x, dim)


@pytest.mark.gpu
@pytest.mark.large
@pytest.mark.parametrize(
    ("shape", "dim"),
    [((2**31 + 8, 1), 1), ((2**30 + 8, 2), 1), ((3, 2**30), 0), ((2**20, 2049), 1)],
    ids=str,
)
def test_more_than_2_to_the_31_elements(shape, dim, device):
    x = torch.randn(shape, dtype=torch.bfloat16, device=device)
    out = softmax(x, dim)
    first = [slice(None)] * 2
    for at in (0, shape[1 - dim] // 2, shape[1 - dim] - 3):
        first[1 - dim] = slice(at, at + 3)
        part = tuple(first)
        assert_right(out[part].contiguous(), x[part], dim)


def test_the_package_exports_it():
    assert chapter.softmax is softmax
    assert chapter.log_softmax is log_softmax
    assert Task().wrap(3) == 3
    assert fused.LARGEST >= several.LONGEST
