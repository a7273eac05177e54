"""What the pages run beneath the kernels of ``compiler``; see `bookext.programs`."""

from tilebook.browser.bench import cdiv, compare, empty, normal

MODULES = {"twins": "twins"}


def twins(add_kernel):
    n = 1000
    x, y = normal(n), normal(n)
    out = empty(n)
    add_kernel[(cdiv(n, 128),)](x, y, out, n, BLOCK=128)
    compare(out, x + y)
