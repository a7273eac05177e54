"""What each pass of the installed Triton does to a kernel, as Triton itself prints it.

steps = pipeline.trace(kernel, x, out, n, BLOCK=1024, target="sm_90")
print(pipeline.difference(steps, "tritongpu-coalesce"))
"""

from __future__ import annotations

import contextlib
import difflib
import functools
import itertools
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import triton
from triton._C.libtriton import amd, nvidia
from triton.compiler import make_backend

from tilebook import _ship, _worker
from tilebook.compile_only import binaries, target_of

# "Title (flag)", from Triton 3.9 on "Title: flag{options}".
_PASS = re.compile(
    r"// -----// IR Dump Before (\w+)(?: \(|: )([\w-]+).*? \('([\w.]+)' operation.*\n"
)
VENDORS = nvidia.passes.ttgpuir, amd.passes.ttgpuir
_STAGE = "// ===== stage "
_PLACE = re.compile(r" loc\((?:[^()]|\((?:[^()]|\([^()]*\))*\))*\)")


@dataclass(frozen=True)
class Step:
    """One pass over one kernel.

    Args:
        stage: what the pass works towards: "ttir", "ttgir" or "llir".
        title: the pass's name in Triton's sources.
        flag: its name for command lines.
        before: the module it was given, without places.
        after: the module it left.
    """

    stage: str
    title: str
    flag: str
    before: str = field(repr=False)
    after: str = field(repr=False)

    @property
    def changed(self) -> bool:
        """Whether the pass did anything."""
        return self.before != self.after


def trace(
    kernel: Any, *args: Any, target: str = "sm_90", **meta: Any
) -> tuple[Step, ...]:
    """Compile a kernel and keep what every pass over tiles was given and left.

    Behind these, one pass writes down what a thread does, and there are no tiles left.

    Args:
        kernel: decorated with @triton.jit or @gluon.jit.
        args: as for `compile_only.compile`.
        target: as for `compile_only.compile`.
        meta: constexprs and options.

    Returns:
        The passes over the whole module, in the order in which they ran.

    Raises:
        triton.CompilationError: the kernel is wrong.
        ValueError: `target` is unknown.
    """
    gpu = target_of(target)
    kernel, meta = _ship.unwrap(kernel, args, meta)
    where = gpu.backend, gpu.arch, gpu.warp_size
    return _traced(_ship.dumps((kernel, args, meta, where)))


@functools.lru_cache(maxsize=64)
def _traced(request: bytes) -> tuple[Step, ...]:
    found = _worker.call(
        "compiled", "tilebook.compiler.pipeline:trace_request", request
    )
    return _steps(found)


def trace_request(request: bytes) -> str:
    """Compile with MLIR's dumps on; runs in the worker.

    Args:
        request: kernel, arguments, options and target, packed by `_ship.dumps`.

    Returns:
        What was printed.
    """
    with _dumped() as printed:
        binaries.compile_request(request)
    return "".join(printed)


def lowered(ttgir: str, target: str, **options: Any) -> tuple[Step, ...]:
    """Take a kernel that is TTGIR already further down, and keep what passes leave.

    Args:
        ttgir: of an artefact.
        target: for which it was compiled.
        options: that it was compiled with, from the artefact's metadata.

    Returns:
        The passes towards LLVM IR, as far as there are tiles.
    """
    gpu = target_of(target)
    where = gpu.backend, gpu.arch, gpu.warp_size
    request = _ship.dumps((ttgir, where, options))
    found = _worker.call(
        "compiled", "tilebook.compiler.pipeline:lower_request", request
    )
    return _steps(found)


def lower_request(request: bytes) -> str:
    """Compile TTGIR with MLIR's dumps on; runs in the worker.

    Args:
        request: text, target and options, packed by `_ship.dumps`.

    Returns:
        As `trace_request`.
    """
    ttgir, where, options = _ship.loads(request)
    target = triton.backends.compiler.GPUTarget(*where)
    with (
        tempfile.NamedTemporaryFile("w", suffix=".ttgir") as file,
        _dumped() as printed,
    ):
        file.write(ttgir)
        file.flush()
        triton.compile(file.name, target=target, options=options)
    return "".join(printed)


@contextlib.contextmanager
def _dumped() -> Iterator[list[str]]:
    """Have every pass print what it is given; yield a list that gets the text."""
    printed: list[str] = []
    backends = {type(make_backend(target_of(name))) for name in ("sm_90", "gfx942")}
    own = {backend: backend.add_stages for backend in backends}

    def marked(backend: Any, stages: dict, *rest: Any, **named: Any) -> None:
        own[type(backend)](backend, stages, *rest, **named)
        for stage, make in list(stages.items()):
            stages[stage] = functools.partial(_announced, stage, make)

    kept = os.dup(2)
    with tempfile.TemporaryFile() as file, triton.knobs.compilation.scope():
        triton.knobs.compilation.always_compile = True
        os.environ["MLIR_ENABLE_DUMP"] = "1"
        for backend in backends:
            backend.add_stages = marked
        ends = {vendor: vendor.add_to_llvmir for vendor in VENDORS}
        for vendor in VENDORS:
            vendor.add_to_llvmir = _stop
        os.dup2(file.fileno(), 2)
        try:
            with contextlib.suppress(_Enough):
                yield printed
        except Exception:
            # What MLIR says of an error is among what is printed.
            file.seek(0)
            for line in file:
                if b"error:" in line:
                    os.write(kept, line)
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            del os.environ["MLIR_ENABLE_DUMP"]
            for backend, add in own.items():
                backend.add_stages = add
            for vendor, add in ends.items():
                vendor.add_to_llvmir = add
            size = os.fstat(file.fileno()).st_size
            printed.append(os.pread(file.fileno(), size, 0).decode(errors="replace"))


class _Enough(Exception):
    """What follows has no tiles."""


def _stop(passes: Any, *_: Any) -> None:
    raise _Enough(passes)


def _announced(stage: str, make: Any, module: Any, metadata: dict) -> Any:
    os.write(2, f"{_STAGE}{stage}\n".encode())
    try:
        return make(module, metadata)
    except _Enough as enough:
        (passes,) = enough.args
        passes.run(module, "tiles")
        os.write(2, f"{_STAGE}end\n{module}".encode())
        raise


def _steps(printed: str) -> tuple[Step, ...]:
    found, modules = [], []
    *parts, end = printed.split(_STAGE)[1:]
    for part in parts:
        stage, _, text = part.partition("\n")
        _, *pieces = _PASS.split(text)
        for at in range(0, len(pieces), 4):
            title, flag, scope, module = pieces[at : at + 4]
            # A pass may run others over single functions, and print more on its way.
            if scope == "builtin.module":
                found.append((stage, title, flag))
                modules.append(plain(module.partition("\n// -----//")[0]))
    modules.append(plain(end.partition("\n")[2]))
    around = itertools.pairwise(modules)
    return tuple(Step(*step, *pair) for step, pair in zip(found, around, strict=True))


def plain(text: str) -> str:
    """Take places, and lines that only define places, out of a module.

    Args:
        text: a module as MLIR prints it.

    Returns:
        The same operations, one a line.
    """
    lines = re.sub(r"^#loc\d* = .*\n", "", text, flags=re.M)
    return _PLACE.sub("", lines).strip()


def named(steps: Sequence[Step], flag: str) -> Step:
    """Return the step of a pass: of several the first that changed something.

    Args:
        steps: from `trace`.
        flag: the pass's.

    Returns:
        The step.

    Raises:
        ValueError: the pass didn't run.
    """
    ran = [step for step in steps if step.flag == flag]
    if not ran:
        raise ValueError(f"{flag} didn't run")
    return next((step for step in ran if step.changed), ran[0])


def operations(module: str) -> Counter[str]:
    """Count a module's operations.

    Args:
        module: a step's text, or any of MLIR's.

    Returns:
        By name, such as "tt.load".
    """
    found = re.findall(
        r"^\s*(?:%\S+(?: = |, .*? = ))?\"?([a-z]+\.[\w.]+)", module, re.M
    )
    return Counter(found)


def difference(steps: Sequence[Step], flag: str, pattern: str = "") -> str:
    """Show what a pass took away and what it put in.

    Args:
        steps: from `trace`.
        flag: the pass's.
        pattern: regular expression; lines that don't match are left out.

    Returns:
        Lines with - and + in front, names and namespaces as they are.
    """
    step = named(steps, flag)
    pair = step.before.splitlines(), step.after.splitlines()
    found = difflib.unified_diff(*pair, n=0, lineterm="")
    lines = [x for x in found if not re.match(r"---|\+\+\+|@@", x)]
    return "\n".join(x for x in lines if re.search(pattern, x))
