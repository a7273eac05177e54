"""What the pages run beneath the kernels of ``memory``; see `bookext.programs`."""

from tilebook.browser.bench import cdiv, compare, empty, full, integers, normal

MODULES = {
    "chase": "chase",
    "sweep": "sweep",
    "strides": "pick",
    "narrow": "copy",
    "wide": "copy",
    "persistent": "persistent",
    "hinted": "hinted",
    "table": "table",
}


def chase(chase_kernel):
    # A ring of 16 places, each with the number of the next.
    links = full(0, 16, dtype="int64")
    links[:] = [(i + 5) % 16 for i in range(16)]
    at = full(0, 1, dtype="int64")
    chase_kernel[(1,)](links, at, 7)
    compare(at, [7 * 5 % 16], name="at")


def sweep(sweep_kernel):
    n = 1000
    x, out = integers(0, 10, n), empty(3, dtype="int32")
    sweep_kernel[(3,)](x, out, n, 2, BLOCK=128)
    blocks = [x[i : i + 128].sum() for i in range(0, n, 128)]
    compare(out, [2 * sum(blocks[i::3]) for i in range(3)])


def pick(pick_kernel):
    n, stride = 200, 3
    x, out = normal(n * stride + 1), empty(n)
    pick_kernel[(cdiv(n, 64),)](x, out, n, stride, 1, BLOCK=64)
    compare(out, x[1::stride][:n])


def copy(copy_kernel):
    n = 1000
    x, out = normal(n), empty(n)
    copy_kernel[(cdiv(n, 128),)](x, out, n, BLOCK=128)
    compare(out, x)


def persistent(copy_kernel):
    n = 1000
    x, out = normal(n), empty(n)
    copy_kernel[(3,)](x, out, n, BLOCK=128, STAGES=1)
    compare(out, x)


def hinted(copy_kernel):
    # The hints are for caches, which an interpreter hasn't.
    n = 1000
    x, out = normal(n), empty(n)
    copy_kernel[(cdiv(n, 128),)](
        x, out, n, BLOCK=128, LOAD="", KEEP="evict_first", STORE=".cs", LEAVE=""
    )
    compare(out, x)


def table(table_kernel):
    n, tiles, step = 1000, 4, 3
    x, entries, out = normal(n), normal(tiles, 128), empty(n)
    table_kernel[(cdiv(n, 128),)](
        x, entries, out, n, tiles, STEP=step, KEEP="", STREAM="", STORE="", BLOCK=128
    )
    rows = [p * step % tiles for p in range(cdiv(n, 128))]
    compare(out, x + entries[rows].reshape(-1)[:n])
