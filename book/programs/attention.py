"""What the pages run beneath the kernels of ``attention``; see `bookext.programs`."""

import numpy as np

from tilebook.browser.bench import cdiv, compare, empty, normal

MODULES = {
    "onepass": "onepass",
    "bugs.kernels": ("late", "padded", "corner", "modulo"),
    "solutions": ("split", "sink", "delta", "queries", "group"),
}


def onepass(onepass_kernel):
    heads, sq, sk, d = 2, 20, 50, 16
    q, k, v = normal(1, heads, sq, d), normal(1, heads, sk, d), normal(1, heads, sk, d)
    out, lse = empty(1, heads, sq, d), empty(1, heads, sq)
    strides = [step for x in (q, k, v, out) for step in x.stride()[:3]]
    onepass_kernel[(heads * cdiv(sq, 16),)](
        q, k, v, out, lse, *strides, sq, sk, heads, 1, d**-0.5,
        D=d, E=d, BLOCK_D=d, BLOCK_E=d, BLOCK_M=16, BLOCK_N=16, PRECISION="ieee",
    )  # fmt: skip
    scores = q.astype(float) @ k.astype(float).swapaxes(2, 3) * d**-0.5
    p = np.exp(scores - scores.max(axis=3, keepdims=True))
    p /= p.sum(axis=3, keepdims=True)
    compare(out, p @ v.astype(float), roundings=4 * sk)


def late(late_kernel):
    # Causal: the last query sees every key, the first the first of them.
    heads, m, n, d = 2, 16, 16, 16
    q, k, v = 300 * normal(heads, m, d), normal(heads, n, d), normal(heads, n, d)
    out = empty(heads, m, d)
    late_kernel[(heads,)](
        q, k, v, out, m, n, 1, d**-0.5, D=d, ROWS=16, KEYS=16
    )  # fmt: skip
    scores = q.astype(float) @ k.astype(float).swapaxes(1, 2) * d**-0.5
    scores = np.where(np.tril(np.ones((m, n))), scores, -np.inf)
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    compare(out, p @ v.astype(float), roundings=100 * n)


def padded(padded_kernel):
    heads, m, n, d = 2, 16, 20, 16
    q, k, v = normal(heads, m, d), normal(heads, n, d), normal(heads, n, d)
    out = empty(heads, m, d)
    padded_kernel[(heads,)](
        q, k, v, out, m, n, 1, d**-0.5, D=d, ROWS=16, KEYS=16
    )  # fmt: skip
    scores = q.astype(float) @ k.astype(float).swapaxes(1, 2) * d**-0.5
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    compare(out, p @ v.astype(float), roundings=4 * n)


def corner(corner_kernel):
    # Fewer queries than keys: the last query is as late as the last key.
    heads, m, n, d = 2, 16, 32, 16
    q, k, v = normal(heads, m, d), normal(heads, n, d), normal(heads, n, d)
    out = empty(heads, m, d)
    corner_kernel[(heads,)](
        q, k, v, out, m, n, 1, d**-0.5, D=d, ROWS=16, KEYS=16
    )  # fmt: skip
    scores = q.astype(float) @ k.astype(float).swapaxes(1, 2) * d**-0.5
    scores = np.where(np.tril(np.ones((m, n)), n - m), scores, -np.inf)
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    compare(out, p @ v.astype(float), roundings=4 * n)


def modulo(modulo_kernel):
    # Two heads of queries share one of keys.
    heads, m, n, d, group = 4, 16, 32, 16, 2
    q = normal(heads, m, d)
    k, v = normal(heads // group, n, d), normal(heads // group, n, d)
    out = empty(heads, m, d)
    modulo_kernel[(heads,)](
        q, k, v, out, m, n, group, d**-0.5, D=d, ROWS=16, KEYS=16
    )  # fmt: skip
    wide = [np.repeat(x.astype(float), group, axis=0) for x in (k, v)]
    scores = q.astype(float) @ wide[0].swapaxes(1, 2) * d**-0.5
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    compare(out, p @ wide[1], roundings=4 * n)


def split(split_kernel):
    splits, m, e = 3, 10, 16
    part, log = normal(splits, m, e), normal(splits, m)
    out, lse = empty(m, e), empty(m)
    split_kernel[(m,)](part, log, out, lse, splits, m, E=e, BLOCK_E=16)
    weights = np.exp(log.astype(float))
    total = weights.sum(axis=0)
    joined = (weights[:, :, None] * part).sum(axis=0) / total[:, None]
    compare(out, joined, roundings=8 * splits)
    compare(lse, np.log(total), roundings=8 * splits, name="lse")


def sink(sink_kernel):
    m, n, d, sink = 20, 40, 16, 0.5
    q, k, v, out = normal(m, d), normal(n, d), normal(n, d), empty(m, d)
    sink_kernel[(cdiv(m, 16),)](
        q, k, v, out, m, n, d**-0.5, sink, D=d, BLOCK_M=16, BLOCK_N=16
    )
    e = np.exp(q.astype(float) @ k.astype(float).T * d**-0.5)
    total = e.sum(axis=1, keepdims=True) + np.exp(sink)
    compare(out, e / total @ v.astype(float), roundings=4 * n)


def delta(delta_kernel):
    m, e = 20, 24
    do, o, dlse, out = normal(m, e), normal(m, e), normal(m), empty(m)
    delta_kernel[(cdiv(m, 16),)](do, o, dlse, out, m, E=e, BLOCK_E=32, BLOCK_M=16)
    compare(out, (do.astype(float) * o).sum(axis=1) - dlse, roundings=2 * e)


def queries(queries_kernel):
    m, n, d = 20, 40, 16
    q, k, v, do = normal(m, d), normal(n, d), normal(n, d), normal(m, d)
    scale, dq = d**-0.5, empty(m, d)
    lse, delta = empty(m), empty(m)
    # What the forward pass leaves behind.
    wq, wk, wv, wdo = (x.astype(float) for x in (q, k, v, do))
    scores = np.where(np.tril(np.ones((m, n)), n - m), wq @ wk.T * scale, -np.inf)
    lse[:] = np.log(np.exp(scores).sum(axis=1))
    p = np.exp(scores - lse.astype(float)[:, None])
    delta[:] = (wdo * (p @ wv)).sum(axis=1)
    queries_kernel[(cdiv(m, 16),)](
        q, k, v, do, lse, delta, dq, m, n, scale, D=d, BLOCK_M=16, BLOCK_N=16
    )
    ds = p * (wdo @ wv.T - delta.astype(float)[:, None])
    compare(dq, ds @ wk * scale, roundings=8 * n, name="dq")


def group(group_kernel):
    heads, group, n, d = 2, 4, 40, 16
    q, k, v = normal(heads, group, d), normal(heads, n, d), normal(heads, n, d)
    out = empty(heads, group, d)
    group_kernel[(heads,)](
        q, k, v, out, n, d**-0.5, GROUP=group, D=d, BLOCK_G=16, BLOCK_N=16
    )
    scores = q.astype(float) @ k.astype(float).swapaxes(1, 2) * d**-0.5
    p = np.exp(scores - scores.max(axis=2, keepdims=True))
    p /= p.sum(axis=2, keepdims=True)
    compare(out, p @ v.astype(float), roundings=4 * n)
