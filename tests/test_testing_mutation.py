"""Planted mistakes reach everyone who holds what was edited, and are taken back."""

import importlib
import inspect
import sys
import textwrap

import pytest
import torch
import triton
import triton.language as tl

from tilebook import testing

RUNG = '''
"""A module as the book's are."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

BLOCK = 64
GREETING = "hello"


@triton.jit
def twice(x):
    return x * 2.0


@triton.jit
def scale_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)
    tl.store(out_ptr + offs, twice(x), mask=mask)


HELD = {"kernel": scale_kernel}


def held(x: torch.Tensor) -> torch.Tensor:
    out = torch.empty_like(x)
    HELD["kernel"][(1,)](x, out, x.numel(), BLOCK=BLOCK)
    return out


def _() -> int:
    return 100


first = _


def _() -> int:
    return 200


second = _


def blocks(n: int, more: int = 0) -> int:
    return triton.cdiv(n, BLOCK) + more


def scale(x: Unheard) -> NotEvaluated:
    out = torch.empty_like(x)
    scale_kernel[(blocks(x.numel()),)](x, out, x.numel(), BLOCK=BLOCK)
    return out


@torch.library.custom_op("tilebook_mutation::scaled", mutates_args=())
def scaled(x: torch.Tensor) -> torch.Tensor:
    return scale(x) + 0.0


class Box:
    def open(self):
        return [item + 1 for item in (1, 2)]


def counter():
    def count():
        return 1

    return count
'''.lstrip()

USER = """
from {package}.rung import Box, scale, scale_kernel, scaled, twice

import triton
import triton.language as tl


@triton.jit
def own_kernel(x_ptr, out_ptr, BLOCK: tl.constexpr):
    offs = tl.arange(0, BLOCK)
    tl.store(out_ptr + offs, twice(tl.load(x_ptr + offs)))
""".lstrip()


@pytest.fixture(scope="module")
def book(tmp_path_factory):
    """A package of two modules, one of which imports the other's names."""
    package = "mutation_book"
    root = tmp_path_factory.mktemp("book")
    (root / package).mkdir()
    (root / package / "__init__.py").write_text("")
    (root / package / "rung.py").write_text(RUNG)
    (root / package / "user.py").write_text(USER.format(package=package))
    sys.path.insert(0, str(root))
    yield importlib.import_module(f"{package}.user")
    sys.path.remove(str(root))
    for name in [n for n in sys.modules if n.split(".")[0] == package]:
        del sys.modules[name]


@pytest.fixture
def rung(book):
    return sys.modules["mutation_book.rung"]


@triton.jit
def add_one_kernel(x_ptr, out_ptr, n, BLOCK: tl.constexpr):
    offs = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = offs < n
    x = tl.load(x_ptr + offs, mask=mask, other=0.0)
    tl.store(out_ptr + offs, x + 1.0, mask=mask)


def increment(number, *, by=1):
    return number + by


def run(kernel, x):
    out = torch.full_like(x, -7.0)
    kernel[(triton.cdiv(x.numel(), 64),)](x, out, x.numel(), BLOCK=64)
    return out


def test_mutants_of_a_kernel_run_in_the_same_mode(device):
    x = torch.randn(100, device=device)
    edits = {
        "two instead of one": ("x + 1.0", "x + 2.0"),
        "short": ("offs < n", "offs < n - 3"),
    }
    found = dict(testing.mutants(add_one_kernel, edits))
    assert list(found) == list(edits)
    assert type(found["short"]) is type(add_one_kernel)
    assert torch.equal(run(found["two instead of one"], x), x + 2)
    assert run(found["short"], x)[-3:].tolist() == [-7.0] * 3
    assert torch.equal(run(add_one_kernel, x), x + 1)


def test_mutants_of_a_function_and_of_one_defined_inside_another():
    ((_, mutant),) = testing.mutants(
        increment, {"minus": ("number + by", "number - by")}
    )
    assert mutant(5, by=2) == 3
    assert "number - by" in inspect.getsource(mutant)
    factor = 3

    def triple(x):
        return x * factor

    ((_, mutant),) = testing.mutants(triple, {"plus": ("x * factor", "x + factor")})
    assert (triple(5), mutant(5)) == (15, 8)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mask=mask", "", "occurs 2 times"),
        ("nowhere", "", "occurs 0 times"),
        ("", "x", "occurs 0 times"),
        ("x + 1.0", "(x + 1.0)", "changes nothing"),
        ("x + 1.0", "x + 1.0)", "no longer Python"),
    ],
)
def test_an_edit_that_misses_is_an_error_before_anything_runs(old, new, message):
    edits = {"good": ("x + 1.0", "x"), "bad": (old, new)}
    with pytest.raises(ValueError, match=rf"add_one_kernel, bad: .*{message}"):
        next(testing.mutants(add_one_kernel, edits))


def test_what_has_no_source_is_refused():
    with pytest.raises(TypeError, match="neither a kernel nor"):
        next(testing.mutants(len, {}))


def test_autotuned_kernels_keep_their_decorators():
    tuned = triton.autotune([triton.Config({"BLOCK": 64})], key=["n"])(add_one_kernel)
    ((_, mutant),) = testing.mutants(tuned, {"off": ("x + 1.0", "x")})
    assert type(mutant) is type(add_one_kernel)


def test_a_mutated_kernel_reaches_wrappers_and_importers(book, rung, device):
    x = torch.randn(100, device=device)
    assert torch.equal(book.scale(x), 2 * x)
    with testing.mutated_module(rung, "twice(x), mask", "twice(x) + 1.0, mask") as same:
        assert same is rung
        assert book.scale_kernel is rung.scale_kernel
        assert torch.equal(book.scale(x), 2 * x + 1)
        assert torch.equal(book.scaled(x), 2 * x + 1)
        assert torch.equal(torch.ops.tilebook_mutation.scaled(x), 2 * x + 1)
    assert torch.equal(book.scale(x), 2 * x)
    assert book.scale_kernel is rung.scale_kernel


def test_a_suite_catches_a_mistake_or_does_not(book, rung, device):
    def suite(factor):
        x = torch.ones(64, device=device)
        assert torch.equal(book.scale(x), factor * x)

    assert testing.caught(rung, "x * 2.0", "x * 3.0", suite, 2)
    # A suite that looks at something else.
    assert not testing.caught(rung, "x * 2.0", "x * 3.0", suite, 3)
    with pytest.raises(ValueError, match="once"):
        testing.caught(rung, "nowhere", "x", suite, 2)
    suite(2)


def test_a_mutated_helper_reaches_kernels_that_inline_it(book, rung, device):
    x = torch.randn(64, device=device)
    out = torch.empty_like(x)
    book.own_kernel[(1,)](x, out, BLOCK=64)
    with testing.mutated_module(rung, "x * 2.0", "x * 3.0"):
        assert torch.equal(book.scale(x), 3 * x)
        book.own_kernel[(1,)](x, out, BLOCK=64)
        assert torch.equal(out, 3 * x)
    book.own_kernel[(1,)](x, out, BLOCK=64)
    assert torch.equal(out, 2 * x)


def test_compiled_kernels_are_forgotten_since_they_may_inline_a_helper(book, rung):
    class KernelInterface:
        """What a compiled kernel keeps, under the name that Triton's class has."""

        def __init__(self):
            self.fn = None
            self.hash = "old"
            self.device_caches = {0: "binary"}

    kernel = book.compiled_kernel = KernelInterface()
    with testing.mutated_module(rung, "x * 2.0", "x * 3.0"):
        assert (kernel.hash, kernel.device_caches) == (None, {})
        kernel.hash, kernel.device_caches[0] = "new", "another binary"
    assert (kernel.hash, kernel.device_caches) == (None, {})


def test_a_mutated_wrapper_reaches_who_imported_it(book, rung, device):
    x = torch.randn(100, device=device)
    held = book.scale
    with testing.mutated_module(rung, "blocks(x.numel())", "blocks(x.numel()) - 1"):
        with testing.guarded():
            short = held(x)
        assert torch.equal(short[:64], 2 * x[:64])
        assert bool(short[64:].isnan().all())
    assert torch.equal(held(x), 2 * x)


def test_a_mutated_operator_keeps_its_registration(book, rung, device):
    x = torch.randn(10, device=device)
    op = book.scaled
    with testing.mutated_module(rung, "scale(x) + 0.0", "scale(x) + 5.0"):
        assert book.scaled is op
        assert torch.equal(torch.ops.tilebook_mutation.scaled(x), 2 * x + 5)
    assert torch.equal(torch.ops.tilebook_mutation.scaled(x), 2 * x)


def test_constants_defaults_classes_and_inner_functions(book, rung):
    with testing.mutated_module(rung, "BLOCK = 64", "BLOCK = 32"):
        assert rung.blocks(64) == 2
    assert rung.blocks(64) == 1
    with testing.mutated_module(rung, "more: int = 0", "more: int = 4"):
        assert rung.blocks(64) == 5
    assert rung.blocks(64) == 1
    with testing.mutated_module(rung, "item + 1", "item + 2"):
        assert book.Box is rung.Box
        assert book.Box().open() == [3, 4]
    assert book.Box().open() == [2, 3]
    count = rung.counter()
    with testing.mutated_module(rung, "return 1\n", "return 9\n"):
        assert (count(), rung.counter()()) == (9, 9)
    assert (count(), rung.counter()()) == (1, 1)


def test_what_is_made_from_a_kernel_is_made_anew(rung, device):
    x = torch.randn(10, device=device)
    table = rung.HELD
    with testing.mutated_module(rung, "twice(x), mask", "twice(x) + 1.0, mask"):
        assert torch.equal(rung.held(x), 2 * x + 1)
    assert torch.equal(rung.held(x), 2 * x)
    assert rung.HELD is table


def test_functions_of_one_name_are_told_apart(rung):
    with testing.mutated_module(rung, "return 200", "return 300"):
        assert (rung.first(), rung.second()) == (100, 300)
    assert (rung.first(), rung.second()) == (100, 200)


def test_a_module_is_mutated_once_at_a_time(rung):
    with testing.mutated_module(rung, "return 1\n", "return 9\n"):
        again = testing.mutated_module(rung, "x * 2.0", "x * 3.0")
        with pytest.raises(ValueError, match="mutated already"), again:
            pytest.fail("entered")
    with testing.mutated_module(rung, "return 1\n", "return 8\n"):
        assert rung.counter()() == 8


def test_an_edit_that_fails_half_way_is_taken_back(rung):
    before = dict(vars(rung))
    broken = testing.mutated_module(rung, "BLOCK = 64", "BLOCK = (extra := 1) // 0")
    with pytest.raises(ZeroDivisionError), broken:
        pytest.fail("entered")
    assert dict(vars(rung)) == before


def test_everything_is_put_back_after_an_exception(rung):
    before = dict(vars(rung))
    with pytest.raises(KeyError), testing.mutated_module(rung, "x * 2.0", "x * 3.0"):
        raise KeyError
    after = dict(vars(rung))
    assert all(after[name] is value for name, value in before.items())
    assert after.keys() == before.keys()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("no such text", "x", "occurs 0 times"),
        ("more: int = 0", "more:  int = 0", "changes nothing"),
        ("import torch\n", "import torch as torch2\n", "changes an import"),
        ("def counter():", "@triton.jit\ndef counter():", "how counter is made"),
        ('GREETING = "hello"', "", "adds or drops"),
    ],
)
def test_edits_that_cant_be_swapped_in_are_refused(rung, old, new, message):
    with (
        pytest.raises(ValueError, match=message),
        testing.mutated_module(rung, old, new),
    ):
        pytest.fail("entered")


def test_the_sources_of_mutants_can_be_read(rung):
    with testing.mutated_module(rung, "triton.cdiv(n, BLOCK) + more", "n // BLOCK"):
        assert "n // BLOCK" in inspect.getsource(rung.blocks)
    assert textwrap.dedent(inspect.getsource(rung.blocks)).startswith("def blocks")
    assert "cdiv" in inspect.getsource(rung.blocks)
