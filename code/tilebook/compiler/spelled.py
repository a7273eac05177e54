"""Layouts as TTGIR spells them, read by us and by the installed Triton.

spelled.read("#ttg.blocked<{sizePerThread = [1, 4], ...}>", (32, 32))
"""

from __future__ import annotations

import functools
import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import triton
from triton._C.libtriton import gluon_ir, ir

from tilebook import _ship, _worker
from tilebook.compiler import kinds
from tilebook.compiler.layouts import Linear, layout

_TOKEN = re.compile(r"#[\w.]+|\w+|-?\d+|[\[\]<>{}=,]")
_DEFINITION = re.compile(r"^(#\w+) = (#ttg\.\w+<.*>)$", re.M)
_USE = re.compile(r"(?:tensor|memdesc)<((?:\d+x)+)[^<>,]*(?:<\w+>)?, (#\w+)\b")
SHARED = ("swizzled_shared", "nvmma_shared", "shared_linear")
"""Kinds of layouts of shared memory that `read` knows."""
SHOWS_SHARED = not triton.__version__.startswith("3.6.")
"""Whether the installed Triton has matrices for them, too."""


def read(text: str, shape: Sequence[int]) -> Linear:
    """Return the matrix of a layout.

    Args:
        text: the layout, as TTGIR has it behind the equals sign, without names of
            other layouts.
        shape: of the tile.

    Returns:
        From "register", "lane" and "warp", or from "offset", to the place.

    Raises:
        ValueError: the text isn't a layout, or of a kind that isn't known here.
    """
    tokens = _TOKEN.findall(text)
    if not tokens or "".join(tokens) != re.sub(r"[\s:+]", "", text):
        raise ValueError(f"{text!r} is no layout")
    try:
        found = _value(tokens)
    except (IndexError, AttributeError):
        raise ValueError(f"{text!r} ends too early") from None
    return _linear(found, tuple(shape))


def kind(text: str) -> str:
    """Return the kind of a layout, such as "blocked"."""
    return text.partition("<")[0].removeprefix("#ttg.")


def rank(text: str) -> int:
    """Return how many dimensions a layout has; a buffer of several tiles has more."""
    if kind(text) == "nvmma_shared":
        return 2
    sides = re.search(r"(?:order|warpsPerCTA) = \[([\d, ]+)\]", text)
    place = re.search(r"\[\[([\d, ]+)\]", text)
    found = sides or place
    return found[1].count(",") + 1 if found else 1


def named(ttgir: str) -> dict[str, str]:
    """Return the layouts that a module names, written out.

    Args:
        ttgir: of a compiled kernel.

    Returns:
        By name, such as "#blocked", what `read` takes; not all are of a kind it knows.
    """
    found: dict[str, str] = {}
    for name, text in _DEFINITION.findall(ttgir):
        # Names within are of layouts further up.
        found[name] = re.sub(r"#\w+(?![\w.])", lambda m: found.get(m[0], m[0]), text)
    return found


def used(ttgir: str) -> list[tuple[str, tuple[int, ...]]]:
    """Return the layouts that a module's tiles have, each with its tile's sides.

    Args:
        ttgir: of a compiled kernel.

    Returns:
        What `read` takes, each pair once; sliced and operands' layouts, which are
        spelled where they are used, are among them.
    """
    layouts = named(ttgir)
    found = {
        (layouts[name], _sides(sides)[-rank(layouts[name]) :])
        for sides, name in _USE.findall(ttgir)
        if name in layouts
    }
    inline = r"tensor<((?:\d+x)+)[^<>,]*(?:<\w+>)?, (#ttg\.(?:slice|dot_op)<\{.*?\}>)>"
    for sides, text in re.findall(inline, ttgir):
        whole = re.sub(r"#\w+(?![\w.])", lambda m: layouts.get(m[0], m[0]), text)
        if whole.count("<") == whole.count(">"):
            found.add((whole, _sides(sides)))
    return sorted(found)


def _sides(text: str) -> tuple[int, ...]:
    return tuple(int(side) for side in text.split("x") if side)


def _value(tokens: list[str]) -> Any:
    """Read a value off the front: a number, a word, a list, or a kind as a dict."""
    token = tokens.pop(0)
    if token == "[":
        found = []
        while tokens[0] != "]":
            found.append(_value(tokens))
            if tokens[0] == ",":
                tokens.pop(0)
        tokens.pop(0)
        return found
    if token.startswith("#"):
        return _kind(token, tokens)
    return json.loads(token) if re.fullmatch(r"-?\d+|true|false", token) else token


def _kind(token: str, tokens: list[str]) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": token.removeprefix("#ttg.")}
    if not tokens or tokens[0] != "<":
        return found
    depth = 0
    while True:
        token = tokens.pop(0)
        depth += {"<": 1, ">": -1}.get(token, 0)
        if depth == 0:
            return found
        if tokens[0] == "=":
            tokens.pop(0)
            found[token] = _value(tokens)


def _linear(of: dict[str, Any], shape: tuple[int, ...]) -> Linear:
    match of:
        case {"kind": "blocked"}:
            given = of["sizePerThread"], of["threadsPerWarp"], of["warpsPerCTA"]
            return kinds.blocked(*given, of["order"], shape)
        case {"kind": "slice", "dim": axis, "parent": parent}:
            whole = (*shape[:axis], 1, *shape[axis:])
            return kinds.sliced(_linear(parent, whole), axis)
        case {"kind": "nvidia_mma", "versionMajor": 2 | 3 as version}:
            columns = of["instrShape"][1]
            return kinds.mma(version, of["warpsPerCTA"], shape, columns)
        case {"kind": "dot_op", "opIdx": index, "parent": parent} if parent[
            "kind"
        ] == "nvidia_mma" and parent["versionMajor"] in (2, 3):
            given = of["kWidth"], parent["versionMajor"], parent["warpsPerCTA"]
            return kinds.operand(index, *given, shape)
        case {"kind": "amd_mfma", "instrShape": [16 | 32 as side, other, *_]} if (
            side == other
        ):
            return kinds.mfma(side, of["warpsPerCTA"], shape, of["isTransposed"])
        case {"kind": "linear"}:
            parts = {name: of[name] for name in ("register", "lane", "warp")}
            return layout(shape, **parts)
        case {"kind": "swizzled_shared"}:
            given = of["vec"], of["perPhase"], of["maxPhase"], of["order"]
            return kinds.swizzled(*given, shape)
        case {"kind": "nvmma_shared"} if len(shape) == 2:
            given = of["swizzlingByteWidth"], of["elementBitWidth"], shape
            return kinds.tiled(*given, of["transposed"])
        case {"kind": "shared_linear"}:
            return layout(shape, offset=of["offset"])
    raise ValueError(f"layouts of kind {of['kind']} aren't known here")


@functools.lru_cache(maxsize=4096)
def installed(
    text: str, shape: tuple[int, ...], warps: int = 4, target: str = "cuda:90"
) -> Linear:
    """Return the matrix that the installed Triton has for a layout.

    Args:
        text: as for `read`.
        shape: of the tile.
        warps: of the program, as many as the layout has.
        target: as TTGIR says it.

    Returns:
        From "register", "lane" and "warp", or from "offset", to the place.

    Raises:
        RuntimeError: Triton can't read the text, or, before 3.7, it is a layout of
            shared memory.
    """
    if kind(text) in SHARED and not SHOWS_SHARED:
        # It would end the process.
        raise RuntimeError("Triton 3.6 has no matrices of layouts of shared memory")
    request = _ship.dumps((text, tuple(shape), warps, target))
    bases = _worker.call(
        "compiled", "tilebook.compiler.spelled:installed_request", request
    )
    return layout(shape, **bases)


def installed_request(request: bytes) -> dict[str, list[list[int]]]:
    """Ask Triton for the bases of a layout; runs in the worker.

    Args:
        request: text, shape, warps and target, packed by `_ship.dumps`.

    Returns:
        Bases by the name of the number whose bits they are of.
    """
    text, shape, warps, target = _ship.loads(request)
    lanes = 64 if target.startswith("hip:gfx9") else 32
    shared = kind(text) in SHARED
    sides = "x".join(map(str, shape))
    of = f"!ttg.memdesc<{sides}xi8, {text}, #ttg.shared_memory>"
    source = (
        f'module attributes {{"ttg.num-ctas" = 1 : i32, "ttg.num-warps" = {warps} : '
        f'i32, ttg.target = "{target}", "ttg.threads-per-warp" = {lanes} : i32}} {{\n'
        f"  tt.func public @f(%x: {of if shared else f'tensor<{sides}xi8, {text}>'}) "
        "{\n    tt.return\n  }\n}\n"
    )
    context = ir.context()
    ir.load_dialects(context)
    builder = gluon_ir.GluonOpBuilder(context)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "layout.ttgir"
        path.write_text(source, encoding="utf-8")
        module = ir.parse_mlir_module(str(path), context)
    module.context = context
    value = module.get_function("f").args(0)
    if shared:
        found = builder.get_gluon_layout_from_memdesc(value)
    else:
        found = builder.get_gluon_layout_from_tensor(value)
    bases = builder.to_linear_layout(found._to_ir(builder), list(shape))
    if shared:
        return {"offset": bases.offset_bases}
    names = {"register": "reg", "lane": "lane", "warp": "warp"}
    return {name: getattr(bases, f"{short}_bases") for name, short in names.items()}
