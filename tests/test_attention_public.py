"""`attention` in use: PyTorch's signature, packed sequences, refusals, compiling."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from tilebook import attention as chapter
from tilebook import library, testing
from tilebook.attention import (
    attention,
    attention_varlen,
    backward,
    errors,
    forward,
    operator,
    reference,
    scaled_dot_product_attention,
)
from tilebook.attention.choose import Config
from tilebook.attention.trials import Shape, close, drawn

F32, F64, BF16 = torch.float32, torch.float64, torch.bfloat16
SMALL = Config(16, 32, 4, 2)


@pytest.fixture(autouse=True)
def several(monkeypatch, device):
    if device.type == "cpu":
        monkeypatch.setattr(forward, "forward_config", lambda task: SMALL)
        monkeypatch.setattr(backward, "keys_config", lambda task: SMALL)
        monkeypatch.setattr(backward, "queries_config", lambda task: SMALL)


def plain(shape, dtype, device):
    return [x.detach() for x in drawn(shape, dtype, device)]


def test_the_signature_is_pytorchs():
    ours = inspect.signature(scaled_dot_product_attention)
    told = F.scaled_dot_product_attention.__doc__.partition("->")[0]
    names = told.partition("(")[2].rpartition(")")[0]
    given = [x.strip().partition("=") for x in names.split(",")]
    assert [(p.name, p.default) for p in ours.parameters.values()][3:] == [
        ("attn_mask", None), ("dropout_p", 0.0), ("is_causal", False), ("scale", None),
        ("enable_gqa", False),
    ]  # fmt: skip
    assert list(ours.parameters) == [name for name, _, _ in given]


@pytest.mark.parametrize(
    ("shapes", "mask", "told"),
    [
        (((5, 8), (7, 8), (7, 4)), None, {}),
        (((2, 5, 8), (2, 7, 8), (2, 7, 4)), (5, 7), {"scale": 0.2}),
        (((2, 4, 5, 8), (2, 2, 7, 8), (2, 2, 7, 8)), None, {"enable_gqa": True}),
        (((2, 3, 2, 5, 8), (2, 3, 2, 7, 8), (2, 3, 2, 7, 8)), (3, 1, 5, 7), {}),
        (((2, 1, 5, 8), (1, 3, 7, 8), (2, 3, 7, 8)), None, {"is_causal": True}),
        (((2, 3, 5, 8), (2, 3, 7, 8), (2, 3, 7, 8)), (2, 1, 1, 7), {}),
        (((1, 2, 2, 3, 8), (1, 2, 2, 0, 8), (1, 2, 2, 0, 8)), (1, 2, 1, 1, 0), {}),
    ],
)
def test_it_stands_in_for_pytorchs(shapes, mask, told, device):
    given = [torch.randn(shape, device=device, requires_grad=True) for shape in shapes]
    wide = [x.detach().double().requires_grad_() for x in given]
    masks = [None]
    if mask is not None:
        masks = [
            torch.randn(mask, device=device),
            torch.rand(mask, device=device) < 0.7,
        ]
    for each in masks:
        out = scaled_dot_product_attention(*given, each, **told)
        exact_mask = (
            each.double() if each is not None and each.is_floating_point() else each
        )
        exact = F.scaled_dot_product_attention(*wide, exact_mask, **told)
        testing.assert_close(out, exact, length=100)
        grad = torch.randn_like(out)
        found = torch.autograd.grad(out, given, grad)
        theirs = torch.autograd.grad(exact, wide, grad.double())
        for a, b in zip(found, theirs, strict=True):
            testing.assert_close(a, b, length=400)


def packed(lengths, shape, dtype, device):
    """Queries, keys and values of sequences one after another, and where they start."""
    sums = [torch.tensor(n).cumsum(0) for n in zip(*lengths, strict=True)]
    cu = [torch.cat([torch.zeros(1, dtype=torch.int64), x]) for x in sums]
    q, k, v = plain(
        shape._replace(rows=int(cu[0][-1]), columns=int(cu[1][-1])), dtype, device
    )
    q, k, v = (x[0].transpose(0, 1).contiguous().requires_grad_() for x in (q, k, v))
    return (q, k, v), [x.to(torch.int32).to(device) for x in cu]


@pytest.mark.parametrize(
    ("told", "ours"),
    [
        ({}, {}),
        ({"right": 0, "bottom": True}, {"causal": True, "align": "bottom-right"}),
        ({"left": 5, "right": 2, "cap": 2.0, "dropout": 0.25, "seed": torch.tensor(4)},
         {"window": (5, 2), "softcap": 2.0, "dropout": 0.25, "seed": 4}),
    ],
    ids=["plain", "causal", "window"],
)  # fmt: skip
@pytest.mark.parametrize("deterministic", [True, False], ids=["two", "one"])
def test_packed_sequences_are_each_alone(told, ours, deterministic, device):
    lengths = [(20, 33), (0, 5), (17, 16), (5, 0), (1, 1)]
    given, cu = packed(lengths, Shape(1, 4, 2, d=24, e=16), BF16, device)
    with testing.guarded():
        out, lse = attention_varlen(
            *given, *cu, return_lse=True, deterministic=deterministic, **ours
        )
    grad = torch.randn_like(out)
    with testing.guarded():
        found = torch.autograd.grad(out, given, grad)
    for i in range(len(lengths)):
        rows, cols = (slice(int(c[i]), int(c[i + 1])) for c in cu)
        parts = [
            x.detach()[at].transpose(0, 1)[None]
            for x, at in zip(given, (rows, cols, cols), strict=True)
        ]
        if not parts[0].numel():
            assert not found[1][cols].any()
            continue
        wide = [x.double().requires_grad_() for x in parts]
        exact, exact_lse = reference.attention(
            *wide, scale=24**-0.5, sequence=i, **told
        )
        arrives = grad[rows].transpose(0, 1)[None]
        limits = errors.bounds(*parts, arrives, scale=24**-0.5, sequence=i, **told)
        close(out[rows].transpose(0, 1)[None], exact, limits.out)
        close(lse[None, :, rows], exact_lse, limits.lse)
        theirs = torch.autograd.grad(exact, wide, arrives.double())
        for x, at, b, bound in zip(
            found, (rows, cols, cols), theirs, limits[2:5], strict=True
        ):
            close(x[at].transpose(0, 1)[None], b, bound)


def test_packed_sequences_may_leave_gaps_and_lie(device):
    (q, k, v), _ = packed([(30, 30)], Shape(1, 2, 1), F32, device)
    q = q.detach().requires_grad_()
    cu = torch.tensor([5, 20, 10, 99], device=device)
    out, lse = attention_varlen(q, k, v, cu, cu, return_lse=True)
    assert not out[:5].any()
    assert (lse[:, :5] == -torch.inf).all()
    alone = [x[5:20].transpose(0, 1)[None] for x in (q, k, v)]
    assert out[5:10].equal(attention(*alone)[0].transpose(0, 1)[:5])
    out[5:10].sum().backward()
    assert not q.grad[:5].any()
    none = torch.zeros(1, dtype=torch.int32, device=device)
    assert not attention_varlen(q, k, v, none, none).any()


def test_float64_goes_by_the_definition():
    given = drawn(Shape(1, 4, 2, 4, 5, 3, 2), F64)
    bias = torch.randn(4, 1, 5, dtype=F64, requires_grad=True)
    slopes, sinks = (torch.rand(4, dtype=F64, requires_grad=True) for _ in range(2))

    def all_options(q, k, v, bias, slopes, sinks):
        return attention(
            q, k, v, bias=bias, slopes=slopes, sinks=sinks, softcap=2.0, window=(3, 1),
            dropout=0.2, seed=5, return_lse=True, align="bottom-right",
        )  # fmt: skip

    assert torch.autograd.gradcheck(all_options, (*given, bias, slopes, sinks))
    cu = torch.tensor([0, 2, 4])
    q, k, v = (x[0, :, :4].transpose(0, 1) for x in given)
    out, lse = attention_varlen(q, k, v, cu, cu, causal=True, return_lse=True)
    first = attention(*(x[:2].transpose(0, 1)[None] for x in (q, k, v)), causal=True)
    assert out[:2].equal(first[0].transpose(0, 1))
    assert lse.shape == (4, 4)


def test_torchs_own_checks(device):
    q, k, v = drawn(Shape(2, 2, 1, 20, 17), BF16, device)
    bias = torch.randn(1, 1, 20, 17, device=device, requires_grad=True)
    slopes = torch.rand(1, 2, device=device, requires_grad=True)
    sinks = torch.rand(2, device=device, requires_grad=True)
    seed = torch.tensor(3, device=device)
    cu = torch.tensor([0, 12], dtype=torch.int32, device=device)
    tail = (0.25, 3, 0, True, 2.0, 0.1, True)
    op = operator.attention_operator
    testing.opcheck(op, q, k, v, bias, slopes, sinks, seed, None, None, *tail)
    packed_q, packed_k, packed_v = (x[:1].detach() for x in (q, k, v))
    testing.opcheck(
        op, packed_q, packed_k, packed_v, None, None, None, seed, cu, cu, *tail
    )
    turned = q.detach().transpose(1, 2).contiguous().transpose(1, 2)
    testing.opcheck(
        op, turned.requires_grad_(), k, v, None, None, None, None, None, None,
        0.25, None, None, False, 0.0, 0.0, False,
    )  # fmt: skip


def test_torch_compile_sees_one_graph(device):
    q, k, v = drawn(Shape(1, 2, 1, 20, 20), F32, device)

    def model(q, k, v):
        out, lse = attention(2 * q, k, v, causal=True, return_lse=True)
        return out.sin().sum() + lse.sum()

    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    ours = torch.autograd.grad(compiled(q, k, v), (q, k, v))
    theirs = torch.autograd.grad(model(q, k, v), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        assert a.equal(b)


def test_no_second_derivative_in_silence(device):
    q, k, v = drawn(Shape(rows=4, columns=4), F32, device)
    (first,) = torch.autograd.grad(
        attention(q, k, v).square().sum(), q, create_graph=True
    )
    with pytest.raises((RuntimeError, NotImplementedError)):
        torch.autograd.grad(first.sum(), q)


def test_no_tangent_in_silence(device):
    q, k, v = plain(Shape(rows=4, columns=4), F32, device)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(q, torch.ones_like(q))
        with pytest.raises(NotImplementedError):
            attention(dual, k, v)
    assert library.eager(q, k, v)


X = torch.zeros(2, 4, 6, 8)
REFUSALS = (
    ({"q": X[0]}, ValueError, "q must have 4 dimensions"),
    ({"q": 1}, TypeError, "q must be a torch.Tensor"),
    ({"q": X.int()}, TypeError, "q must be float32"),
    ({"k": X.half()}, TypeError, "k must have the dtype of q"),
    ({"k": X[:1]}, ValueError, "k must have shape"),
    ({"v": X[:, :, 1:]}, ValueError, "v must have shape"),
    ({"k": X[:, :3], "v": X[:, :3]}, ValueError, "k must have heads that divide the 4"),
    ({"v": X[..., :0]}, ValueError, "v must have from 1 to 256 features, got 0"),
    ({"k": X.to("meta")}, ValueError, "k must have the device of q"),
    ({"causal": 1}, ValueError, "causal must be False or True"),
    ({"align": "left"}, ValueError, "align must be 'top-left' or 'bottom-right'"),
    ({"window": 3}, TypeError, "window must be a pair"),
    ({"window": (1, -1)}, ValueError, "window must be at least 0"),
    ({"window": (1.0, None)}, TypeError, "window must be an int"),
    ({"scale": "1"}, TypeError, "scale must be a number"),
    ({"scale": float("nan")}, ValueError, "scale must be finite"),
    ({"softcap": 0.0}, ValueError, "softcap must be positive"),
    ({"softcap": True}, TypeError, "softcap must be a number"),
    ({"slopes": torch.ones(3)}, ValueError, "slopes must have shape"),
    ({"slopes": torch.ones(4, 2)}, ValueError, "slopes must have shape"),
    ({"slopes": torch.ones(4).int()}, TypeError, "slopes must be float32"),
    ({"sinks": torch.ones(1, 4)}, ValueError, "sinks must have 1 dimension"),
    ({"bias": torch.ones(5, 6)}, ValueError, "bias must broadcast to"),
    ({"bias": torch.ones(1, 2, 4, 6, 6)}, ValueError, "bias must broadcast to"),
    ({"bias": torch.ones(6, 6).half()}, TypeError, "bias must be bool"),
    ({"dropout": 1.5}, ValueError, "dropout must be from 0 to 1"),
    ({"dropout": float("nan")}, ValueError, "dropout must be from 0 to 1"),
    ({"seed": 0.5}, TypeError, "seed must be an int"),
    ({"seed": 2**63}, ValueError, "seed must fit into 64 bits"),
    ({"seed": torch.ones(1).long()}, ValueError, "seed must have shape"),
    ({"return_lse": None}, ValueError, "return_lse must be False or True"),
    ({"deterministic": 0}, ValueError, "deterministic must be None, False or True"),
)  # fmt: skip


@pytest.mark.parametrize(("told", "kind", "message"), REFUSALS)
def test_refusals_by_name(told, kind, message, monkeypatch):
    monkeypatch.setattr(forward, "launch", None)
    with pytest.raises(kind, match=message):
        attention(**{"q": X, "k": X, "v": X} | told)


PACKED = torch.zeros(6, 4, 8)
CU = torch.tensor([0, 3, 6])


@pytest.mark.parametrize(
    ("told", "kind", "message"),
    [
        ({"q": X}, ValueError, "q must have 3 dimensions"),
        ({"cu_seqlens_q": [0, 6]}, TypeError, "cu_seqlens_q must be a torch.Tensor"),
        ({"cu_seqlens_q": CU.float()}, TypeError, "cu_seqlens_q must be int32 or"),
        ({"cu_seqlens_k": CU[:2]}, ValueError, "cu_seqlens_k must have the shape of"),
        ({"cu_seqlens_k": CU[:0]}, ValueError, "cu_seqlens_k must have an element"),
        ({"k": PACKED[:, :3]}, ValueError, "v must have shape"),
        ({"slopes": torch.ones(3)}, ValueError, "slopes must have shape"),
    ],
)
def test_refusals_of_packed_sequences(told, kind, message):
    given = {"q": PACKED, "k": PACKED, "v": PACKED}
    given |= {"cu_seqlens_q": CU, "cu_seqlens_k": CU}
    with pytest.raises(kind, match=message):
        attention_varlen(**given | told)


@pytest.mark.parametrize(
    ("told", "kind", "message"),
    [
        ({"query": X[0, 0, 0]}, ValueError, "query must have 2 dimensions or more"),
        ({"key": X[:, :2], "value": X[:, :2]}, ValueError, "enable_gqa lets heads"),
        (
            {"is_causal": True, "attn_mask": X[0, 0, :, :6]},
            ValueError,
            "attn_mask must",
        ),
        ({"attn_mask": X[0, 0, :5, :6]}, ValueError, "attn_mask must broadcast"),
        ({"attn_mask": [0]}, TypeError, "attn_mask must be a torch.Tensor"),
        ({"value": X.double()}, TypeError, "value must have the dtype of query"),
        ({"dropout_p": -1}, ValueError, "dropout_p must be from 0 to 1"),
    ],
)
def test_refusals_of_the_stand_in(told, kind, message):
    with pytest.raises(kind, match=message):
        scaled_dot_product_attention(**{"query": X, "key": X, "value": X} | told)


def test_a_tensor_elsewhere_is_refused():
    with pytest.raises(ValueError, match=r"q must be on|q is on"):
        attention(X.to("meta"), X.to("meta"), X.to("meta"))


def test_nothing_changes_what_was_given(device):
    q, k, v = drawn(Shape(), F32, device)
    kept = [x.detach().clone() for x in (q, k, v)]
    attention(q, k, v, causal=True).sum().backward()
    assert all(a.equal(b) for a, b in zip((q, k, v), kept, strict=True))
    assert chapter.attention is attention


@pytest.mark.gpu
def test_cuda_graphs_replay_it(device):
    """Both ways, packed sequences and drawn seeds: nothing waits for the host."""
    q, k, v = drawn(Shape(2, 4, 2, 300, 300, 64, 64), BF16, device)
    given, cu = packed(
        [(200, 300), (100, 50)], Shape(1, 4, 2, d=64, e=64), BF16, device
    )

    def step():
        out = attention(q, k, v, causal=True, dropout=0.1)
        more = attention_varlen(*given, *cu)
        grads = torch.autograd.grad(out.sum() + more.sum(), (q, *given))
        return out, more, *grads

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = step()
    graph.replay()
    first = [x.clone() for x in found]
    graph.replay()
    assert found[1].equal(first[1])
    assert not found[0].equal(first[0]), "each replay draws its own seed"
    assert found[1].equal(attention_varlen(*given, *cu))


@pytest.mark.gpu
def test_inductor_compiles_it(device):
    q, k, v = drawn(Shape(2, 4, 2, 300, 300, 64, 64), BF16, device)

    def model(q, k, v):
        return attention(2 * q, k, v, causal=True).float().square().sum()

    ours = torch.autograd.grad(torch.compile(model, fullgraph=True)(q, k, v), (q, k, v))
    theirs = torch.autograd.grad(model(q, k, v), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        testing.assert_close(a, b.double(), length=100)
