"""The stand-in for Triton's library, against that library; programs of the pages."""

import enum
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from triton._C import libtriton as library
from triton.runtime.jit import BaseBackend

from tilebook.browser import libtriton
from tilebook.browser.arrays import Argument, Tensor
from tilebook.browser.memory import BadAddress, Memory, bounds_of
from tilebook.puzzles import PUZZLES, solutions, wrong
from tilebook.testing import CheckFailed, check
from tilebook.testing.source import python_function

NATIVE = library.interpreter
# A page has no torch; what is run is said by the arguments.
START = """
import importlib.util, json, os, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *x: None if name == "torch" else find(name, *x)
sys.modules["torch"] = None
from tilebook import browser
browser.start(stand_in=sys.argv[1] == "stand-in")
"""
PROGRAMS = """
import hashlib
import numpy as np
from tilebook.browser import running
found = {}
for name, text in json.load(sys.stdin).items():
    said = []
    result = running.run(text, said.append)
    space = vars(sys.modules["program"])
    total = hashlib.sha256()
    for key in sorted(space):
        if isinstance(space[key], np.ndarray):
            total.update(key.encode() + np.ascontiguousarray(space[key]).tobytes())
    found[name] = {
        "said": "".join(said),
        "error": result["error"],
        "trace": result["trace"],
        "arrays": total.hexdigest(),
    }
print(json.dumps(found))
"""
ANSWERS = """
from tilebook.browser import running
found = {}
for name, text in json.load(sys.stdin).items():
    said = []
    error = running.run(text, said.append, trace=False)["error"]
    found[name] = error["message"] if error else "".join(said)
print(json.dumps(found))
"""


def part(name: str) -> ModuleType:
    """A module of the book's extension."""
    folder = str(Path(__file__).resolve().parents[1] / "book" / "_ext")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"bookext.{name}")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict]:
    """What a script prints in a process that has what a page has."""
    folder = tmp_path_factory.mktemp("page")
    with zipfile.ZipFile(io.BytesIO(part("runtime").package())) as archive:
        archive.extractall(folder)

    def run(script: str, library: str = "stand-in", given: object = None) -> dict:
        settings = {**os.environ, "TRITON_INTERPRET": "0", "PYTHONPATH": str(folder)}
        settings.pop("TILEBOOK_DEVICE", None)
        done = subprocess.run(
            [sys.executable, "-c", START + script, library],
            env=settings,
            input=json.dumps(given),
            capture_output=True,
            text=True,
            cwd=folder,
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch) -> Memory:
    """An empty memory, which the stand-in uses too."""
    made = Memory()
    monkeypatch.setattr(libtriton, "memory", made)
    return made


def addresses(array: np.ndarray, elements: list[int]) -> np.ndarray:
    """Where elements are, counted from an array's first."""
    start = array.__array_interface__["data"][0]
    places = [(start + i * array.itemsize) % 2**64 for i in elements]
    return np.array(places, dtype=np.uint64)


# Memory


@pytest.mark.parametrize("dtype", ["uint8", "float16", "int32", "float64"])
def test_what_is_scattered_is_gathered(memory: Memory, dtype: str):
    array = np.zeros(10, dtype=dtype)
    memory.register(array)
    where = addresses(array, [3, 9, 0])
    memory.scatter(where, np.array([1, 2, 3], dtype=dtype), "store")
    assert array.tolist() == [3, 0, 0, 1, 0, 0, 0, 0, 0, 2]
    assert memory.gather(where, array.dtype, "load").tolist() == [1, 2, 3]


def test_of_several_stores_to_one_place_the_last_stays(memory: Memory):
    array = np.zeros(2)
    memory.register(array)
    memory.scatter(addresses(array, [1, 1, 1]), np.array([1.0, 2.0, 3.0]), "store")
    assert array.tolist() == [0, 3]


@pytest.mark.parametrize("element", [-1, 10, 2**40])
def test_a_lane_outside_is_an_error_and_nothing_is_written(
    memory: Memory, element: int
):
    array = np.zeros(10, dtype=np.float32)
    memory.register(array)
    where = addresses(array, [4, element])
    for act in (
        lambda: memory.gather(where, array.dtype, "load"),
        lambda: memory.scatter(where, np.ones(2, np.float32), "store"),
    ):
        with pytest.raises(BadAddress, match="at address 0x"):
            act()
    assert not array.any()


def test_the_last_bytes_of_an_element_have_to_be_inside_too(memory: Memory):
    array = np.zeros(4, dtype=np.uint8)
    memory.register(array)
    assert memory.gather(addresses(array, [2]), np.dtype("<u2"), "load") == [0]
    with pytest.raises(BadAddress):
        memory.gather(addresses(array, [3]), np.dtype("<u2"), "load")


def test_lanes_may_fall_into_several_arrays(memory: Memory):
    one, other = np.arange(4.0), np.arange(10.0, 14.0)
    for array in (one, other):
        memory.register(array)
    where = np.concatenate([addresses(one, [1]), addresses(other, [2, 3])])
    assert memory.gather(where, one.dtype, "load").tolist() == [1, 12, 13]
    memory.scatter(where, np.array([-1.0, -2.0, -3.0]), "store")
    assert (one[1], *other[2:]) == (-1, -2, -3)


def test_addresses_need_not_be_aligned(memory: Memory):
    array = np.arange(16, dtype=np.uint8)
    memory.register(array)
    where = addresses(array, [1, 5])
    assert memory.gather(where, np.dtype("<u4"), "load").tolist() == [
        0x04030201,
        0x08070605,
    ]
    memory.scatter(where[:1], np.array([0xAABBCCDD], dtype="<u4"), "store")
    assert array[:6].tolist() == [0, 0xDD, 0xCC, 0xBB, 0xAA, 5]


def test_an_array_s_bounds_are_those_of_its_elements():
    array = np.zeros((4, 6), dtype=np.float32)
    start = array.__array_interface__["data"][0]
    assert bounds_of(array) == (start, start + 96)
    assert bounds_of(array[1:3, ::2]) == (start + 24, start + 24 + 24 + 20)
    assert bounds_of(array[::-1]) == (start, start + 96)
    assert len(set(bounds_of(array[:0]))) == 1


def test_memory_forgets(memory: Memory):
    array = np.zeros(3)
    address = memory.register(array)
    assert memory.at(address) is array
    memory.forget()
    assert memory.at(address) is None
    with pytest.raises(BadAddress):
        memory.gather(addresses(array, [0]), array.dtype, "load")


# Against Triton's own library

lanes = st.lists(st.integers(0, 5), min_size=1, max_size=12)


def kind(values: list[int], dtype: str, low: int) -> np.ndarray:
    return np.array([v + low for v in values], dtype=np.int64).astype(dtype)


@pytest.mark.parametrize(
    ("op", "dtype"),
    [
        *((op, "int32") for op in ("ADD", "AND", "OR", "XOR", "XCHG", "MAX", "MIN")),
        *((op, "uint32") for op in ("UMAX", "UMIN")),
        *(("FADD", dtype) for dtype in ("float16", "float32", "float64")),
    ],
)
@given(where=lanes, data=st.data())
def test_atomics_do_what_the_library_s_do(op: str, dtype: str, where: list, data):
    values = data.draw(st.lists(st.integers(0, 9), min_size=12, max_size=12))
    on = data.draw(st.lists(st.booleans(), min_size=12, max_size=12))
    low = 0 if dtype == "uint32" else -4
    value = kind(values[: len(where)], dtype, low)
    mask = np.array(on[: len(where)])
    results = []
    for part, ops in ((NATIVE, NATIVE.RMW_OP), (libtriton, None)):
        array = kind([1, 3, 5, 7, 2, 4], dtype, low)
        libtriton.memory.register(array)
        name = getattr(ops, op) if ops else enum.Enum("RMW_OP", op)[op]
        found = part.atomic_rmw(
            name, addresses(array, where), value, mask, NATIVE.MEM_SEMANTIC.RELAXED
        )
        results.append((array.tolist(), found[mask].tolist()))
        libtriton.memory.forget()
    assert results[0] == results[1]


@given(where=lanes, data=st.data())
def test_compare_and_swap_does_what_the_library_s_does(where: list, data):
    few = st.lists(st.integers(0, 2), min_size=12, max_size=12)
    compared, value = (
        np.array(data.draw(few)[: len(where)], dtype=np.int32) for _ in range(2)
    )
    results = []
    for part in (NATIVE, libtriton):
        array = np.array([0, 1, 2, 0, 1, 2], dtype=np.int32)
        libtriton.memory.register(array)
        found = part.atomic_cas(
            addresses(array, where), compared, value, NATIVE.MEM_SEMANTIC.RELAXED
        )
        results.append((array.tolist(), found.tolist()))
        libtriton.memory.forget()
    assert results[0] == results[1]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3)])
def test_loads_and_stores_are_the_library_s(shape: tuple, memory: Memory):
    rng = np.random.default_rng(0)
    array = rng.standard_normal(20).astype(np.float32)
    memory.register(array)
    chosen = rng.permutation(20)[: int(np.prod(shape))]
    where = addresses(array, chosen.tolist()).reshape(shape)
    mask = rng.random(shape) > 0.4
    other = np.full(shape, 7.0, dtype=np.float32)
    native = NATIVE.load(where, mask, other, array.dtype)
    assert np.array_equal(libtriton.load(where, mask, other, array.dtype), native)
    libtriton.store(where, other, mask)
    ours = array.copy()
    array[:] = 0
    NATIVE.store(where, ours.reshape(-1)[chosen].reshape(shape), mask)
    assert np.array_equal(array[chosen].reshape(shape)[mask], other[mask])


@pytest.mark.parametrize("name", libtriton.OPTIONS)
def test_options_are_the_library_s(name: str):
    theirs = getattr(library.ir, name).__members__
    # Some came with a later Triton than is here.
    assert set(theirs) <= set(libtriton.OPTIONS[name].split())


@pytest.mark.parametrize("value", [None, True, 1, -1, 2**31, -(2**31), 2**63, 1.5])
def test_types_of_numbers_are_the_library_s(value: object):
    theirs = library.native_specialize_impl(BaseBackend, value, False, False, True)
    ours = libtriton.native_specialize_impl(BaseBackend, value, False, False, True)
    assert ours == theirs


@pytest.mark.parametrize("name", libtriton.TYPES)
def test_types_of_tensors_are_the_library_s(name: str):
    torch = pytest.importorskip("torch")
    tensor = torch.empty(3, dtype=getattr(torch, name))
    for const in (False, True):
        theirs = library.native_specialize_impl(BaseBackend, tensor, const, False, True)
        assert libtriton.native_specialize_impl(None, tensor, const, False, True) == (
            theirs[0],
            None,
        )


def test_what_no_kernel_takes_is_refused():
    with pytest.raises(TypeError, match="takes no dict"):
        libtriton.native_specialize_impl(None, {}, False, False, True)


# Arithmetic

finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(a=finite, b=finite, c=finite)
def test_a_fused_multiply_add_rounds_once(a: float, b: float, c: float):
    one = [np.array([x], dtype=np.float32) for x in (a, b, c)]
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    with np.errstate(all="ignore"):
        got = libtriton.fma_fp32(*one)[0]
    if not exact:
        assert got == 0
    elif np.isfinite(got):
        with np.errstate(over="ignore"):
            near = [np.nextafter(got, np.float32(x)) for x in (-np.inf, np.inf)]
        distance = abs(Fraction(float(got)) - exact)
        for other in near:
            if np.isfinite(other):
                assert distance <= abs(Fraction(float(other)) - exact)
    else:
        assert abs(exact) >= Fraction(float(np.finfo(np.float32).max))


def test_a_sum_that_lands_on_a_tie_isn_t_rounded_twice():
    # In float64 the sum is half way between two float32, but it isn't really.
    a, b, c = 1 + 2.0**-12, 1 + 2.0**-12, 2.0**-60
    one = [np.array([x], dtype=np.float32) for x in (a, b, c)]
    exact = Fraction(a) * Fraction(b) + Fraction(c)
    assert Fraction(float(libtriton.fma_fp32(*one)[0])) == min(
        (
            Fraction(float(np.float32(1 + 2.0**-11 + x * 2.0**-23)))
            for x in range(-2, 3)
        ),
        key=lambda value: abs(value - exact),
    )
    assert libtriton.fma_fp64(*(np.array([x]) for x in (a, b, c)))[0] == float(exact)


def test_infinities_and_nan_go_through():
    inf = np.array([np.inf, np.nan, -np.inf])
    one = np.ones(3)
    assert np.array_equal(libtriton.fma_fp64(inf, one, one), inf, equal_nan=True)
    got = libtriton.fma_fp32(*(x.astype(np.float32) for x in (inf, one, one)))
    assert np.array_equal(got, inf.astype(np.float32), equal_nan=True)


# Arguments


def test_a_tensor_counts_strides_in_elements():
    tensor = np.zeros((4, 6), dtype=np.float16).view(Tensor)
    assert tensor.stride() == (6, 1)
    assert tensor.T[::2].stride() == (2, 6)
    assert tensor[1].stride(0) == 1
    assert Argument(tensor.T).stride() == (1, 6)


def test_strides_that_are_no_whole_elements_are_refused():
    record = np.zeros(4, dtype=[("a", "f4"), ("b", "u1")])
    with pytest.raises(ValueError, match="whole elements"):
        Argument(record["a"])


def test_what_only_the_compiler_has_says_so():
    part = libtriton.Part("triton._C.libtriton.llvm")
    assert part.context is part.context
    with pytest.raises(RuntimeError, match="compiler"):
        part.context()


def test_the_stand_in_comes_before_triton_or_not_at_all():
    with pytest.raises(RuntimeError, match="its own library"):
        libtriton.install()


# Programs

NODE = """
import {{ readFileSync }} from "node:fs";
const {{ loadPyodide }} = await import({runtime} + "/pyodide.mjs");
const python = await loadPyodide({{ indexURL: {runtime} + "/" }});
await python.loadPackage("numpy", {{ messageCallback: () => {{}} }});
for (const name of [{runtime} + "/triton.zip", {package}]) {{
    const data = new Uint8Array(readFileSync(name));
    python.unpackArchive(data, "zip", {{ extractDir: "/lib/book" }});
}}
python.runPython(`
import os, sys
os.environ["TRITON_INTERPRET"] = "0"
sys.path.insert(0, "/lib/book")
from tilebook import browser
browser.start()
from tilebook.browser.running import run_json
`);
const run = python.globals.get("run_json");
const found = {{}};
for (const [name, text] of Object.entries(JSON.parse(readFileSync({texts})))) {{
    let said = "";
    const {{ error }} = JSON.parse(run(text, (x) => {{ said += x; }}));
    found[name] = {{ said, error }};
}}
console.log(JSON.stringify(found));
"""


def every_text() -> dict[str, str]:
    """All programs but the puzzles, by what pages call them."""
    programs = part("programs")
    return {programs.short(name): programs.program(name) for name in programs.places()}


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("node") is None or not part("runtime").present(),
    reason="needs Node and make browser-runtime",
)
def test_programs_do_the_same_as_webassembly(page: Callable, tmp_path: Path):
    runtime = part("runtime")
    (tmp_path / "tilebook.zip").write_bytes(runtime.package())
    (tmp_path / "texts.json").write_text(json.dumps(every_text()))
    script = NODE.format(
        runtime=json.dumps(str(runtime.folder())),
        package=json.dumps(str(tmp_path / "tilebook.zip")),
        texts=json.dumps(str(tmp_path / "texts.json")),
    )
    (tmp_path / "run.mjs").write_text(script)
    done = subprocess.run(
        ["node", "run.mjs"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    native = page(PROGRAMS, "library", every_text())
    assert found.keys() == native.keys()
    # Sums of products have another order there, and exponentials another last digit.
    number = re.compile(r"-?\d+\.\d+(?:e-?\d+)?|-?\b0\b|-?inf|nan")
    for name, one in found.items():
        texts = [json.dumps({key: x[key] for key in one}) for x in (one, native[name])]
        assert len({number.sub("0", text) for text in texts}) == 1, name
        ours, theirs = ([float(x) for x in number.findall(text)] for text in texts)
        assert np.allclose(ours, theirs, rtol=2e-4, atol=1e-6, equal_nan=True), name


@pytest.mark.slow
def test_programs_do_the_same_on_the_stand_in_and_on_the_library(
    page: Callable,
):
    ours = page(PROGRAMS, given=every_text())
    theirs = page(PROGRAMS, "library", every_text())
    assert ours.keys() == theirs.keys()
    for name, found in ours.items():
        assert found == theirs[name], name
    # A kernel that is a bug says so; every other one is right.
    for name, found in ours.items():
        bug = ".bugs." in name
        assert bug == (found["error"] is not None), f"{name}: {found['error']}"
        assert bug or ": right." in found["said"], name
        assert found["trace"]["launches"], name


@pytest.mark.slow
def test_puzzles_are_judged_in_a_page_as_they_are_elsewhere(page: Callable):
    whole = part("whole").whole
    texts, expected = {}, {}
    for one in PUZZLES:
        home = python_function(getattr(solutions, one.kernel)).__module__
        text = whole(home, one.kernel) + "from tilebook.testing import check\n"
        asked = f'check("{one.name}", {one.kernel}, seed=1)\n'
        texts[one.name] = text + asked
        for mistake, (old, new) in wrong.MISTAKES[one.name].items():
            assert old in text
            texts[f"{one.name}: {mistake}"] = text.replace(old, new) + asked
    for one, mistake, kernel in wrong.wrong_kernels():
        with pytest.raises(CheckFailed) as caught:
            check(one.name, kernel, seed=1, quiet=True)
        expected[f"{one.name}: {mistake}"] = str(caught.value)
    found = page(ANSWERS, given=texts)
    for one in PUZZLES:
        assert found.pop(one.name).startswith(f"{one.name}: right in ")
    assert found.keys() == expected.keys()
    # What is off by rounding may differ in a digit, since sums have another order.
    for name, message in expected.items():
        assert wrong.said(found[name])["case"] == wrong.said(message)["case"], name
        assert found[name].splitlines()[0] == message.splitlines()[0]
