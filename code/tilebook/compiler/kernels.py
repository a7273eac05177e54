"""Three programs of the little language: a sum, a softmax and a product."""

from tilebook.compiler import language as tile
from tilebook.compiler.syntax import program


@program
def add(x_ptr, y_ptr, out_ptr, n, BLOCK):
    """The sum of two vectors of n; BLOCK entries a program."""
    offs = tile.program_id(0) * BLOCK + tile.arange(0, BLOCK)
    mask = offs < n
    x = tile.load(x_ptr + offs, mask=mask, other=0.0)
    y = tile.load(y_ptr + offs, mask=mask, other=0.0)
    tile.store(out_ptr + offs, x + y, mask=mask)


@program
def softmax(x_ptr, out_ptr, n, stride_x, stride_out, BLOCK):
    """The softmax of a row of n a program; BLOCK is n or more."""
    row = tile.program_id(0).to(tile.i64)
    offs = tile.arange(0, BLOCK)
    mask = offs < n
    x = tile.load(x_ptr + row * stride_x + offs, mask=mask, other=-tile.inf)
    x = x.to(tile.f32)
    power = tile.exp(x - tile.max(x, axis=0))
    out = power / tile.sum(power, axis=0)
    tile.store(out_ptr + row * stride_out + offs, out, mask=mask)


@program
def matmul(
    a_ptr,
    b_ptr,
    out_ptr,
    m,
    n,
    k,
    stride_am,
    stride_bk,
    stride_om,
    BLOCK_M,
    BLOCK_N,
    BLOCK_K,
):
    """The product of [m, k] and [k, n], a tile of it a program."""
    rows = tile.program_id(0) * BLOCK_M + tile.arange(0, BLOCK_M)
    columns = tile.program_id(1) * BLOCK_N + tile.arange(0, BLOCK_N)
    terms = tile.arange(0, BLOCK_K)
    a_rows = a_ptr + rows.to(tile.i64)[:, None] * stride_am
    b_columns = b_ptr + columns[None, :]
    acc = tile.zeros((BLOCK_M, BLOCK_N), tile.f32)
    for start in range(0, k, BLOCK_K):
        offs = start + terms
        a = tile.load(
            a_rows + offs[None, :],
            mask=(rows < m)[:, None] & (offs < k)[None, :],
            other=0.0,
        )
        b = tile.load(
            b_columns + offs.to(tile.i64)[:, None] * stride_bk,
            mask=(offs < k)[:, None] & (columns < n)[None, :],
            other=0.0,
        )
        acc = tile.dot(a, b, acc)
    mask = (rows < m)[:, None] & (columns < n)[None, :]
    to = out_ptr + rows.to(tile.i64)[:, None] * stride_om + columns[None, :]
    tile.store(to, acc.to(out_ptr.dtype), mask=mask)
