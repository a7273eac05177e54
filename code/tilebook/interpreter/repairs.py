"""The faults of Triton's interpreter, their remedies, and how to tell they are needed.

A repair's probe asks the interpreter as it stands. A test runs every probe on Triton
as shipped, where it must find the fault in the releases that have it, and as
repaired, where it must not: so it is noticed when upstream no longer needs a repair.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from triton.runtime import interpreter as upstream

from tilebook.interpreter import (
    arithmetic,
    libdevice,
    memory,
    probes,
    reductions,
    syntax,
)
from tilebook.interpreter.patches import replace

# An owner (of upstream's interpreter), an attribute, and what makes the new one.
Change = tuple[Any, str, Callable[[Any], Any]]


@dataclasses.dataclass(frozen=True)
class Repair:
    """One fault of the interpreter and its remedy.

    Attributes:
        name: short, for tests and the doctor.
        fault: what goes wrong without it.
        works: a probe, true where the interpreter as it now stands is right.
        changes: what to replace.
        fixed_in: the first Triton release without the fault; None if all have it.
    """

    name: str
    fault: str
    works: Callable[[], bool]
    changes: tuple[Change, ...]
    fixed_in: tuple[int, int] | None = None

    def needed(self) -> bool:
        """Whether the interpreter, as it now stands, has the fault."""
        try:
            return not self.works()
        except Exception:
            # Several faults are exceptions: an operation that isn't there at all.
            return True


_BUILDER = upstream.InterpreterBuilder
_REDUCE = upstream.ReduceOps
_SCAN = upstream.ScanOps
_SYNTAX = upstream.ASTTransformer

REPAIRS: tuple[Repair, ...] = (
    Repair(
        "narrow-arithmetic",
        "bfloat16 and float8 are computed on their bit patterns as if integers",
        probes.narrow_arithmetic,
        (
            (_BUILDER, "binary_op", arithmetic.binary_op),
            (_BUILDER, "unary_op", arithmetic.unary_op),
        ),
    ),
    Repair(
        "bfloat16-rounding",
        "float32 to bfloat16 truncates instead of rounding to nearest even",
        probes.bfloat16_rounding,
        ((_BUILDER, "cast_impl", arithmetic.cast),),
    ),
    Repair(
        "float8-rounding",
        "conversion to 8-bit floats rounds ties wrongly and overflows to NaN",
        probes.float8_rounding,
        ((_BUILDER, "create_fp_to_fp", arithmetic.fp_to_fp),),
    ),
    Repair(
        "float-to-int",
        "floats out of an integer's range wrap around where a GPU clamps",
        probes.float_to_int,
        ((_BUILDER, "cast_impl", arithmetic.cast),),
    ),
    Repair(
        "bfloat16-constants",
        "tl.full with bfloat16 raises",
        probes.bfloat16_constants,
        ((_BUILDER, "get_bf16", arithmetic.bfloat16_constant),),
        fixed_in=(3, 9),
    ),
    Repair(
        "dot",
        "tl.dot multiplies bfloat16's bit patterns; NaN in 8-bit floats is a number",
        probes.dot,
        ((_BUILDER, "create_dot", arithmetic.dot),),
    ),
    Repair(
        "fma",
        "tl.fma rounds twice, and takes bfloat16's bits for integers",
        probes.fma,
        ((_BUILDER, "create_fma", arithmetic.fma),),
    ),
    Repair(
        "nan-in-min-max",
        "tl.maximum and tl.minimum return NaN where a GPU returns the number",
        probes.nan_in_min_max,
        (
            (_BUILDER, "create_maxnumf", arithmetic.choose(np.fmax)),
            (_BUILDER, "create_minnumf", arithmetic.choose(np.fmin)),
        ),
        fixed_in=(3, 9),
    ),
    Repair(
        "clamp",
        "tl.clamp returns NaN where a GPU returns a bound, and is wrong in bfloat16",
        probes.clamp,
        ((_BUILDER, "create_clampf", arithmetic.clamp),),
    ),
    Repair(
        "one-bit-integers",
        "int1 arithmetic saturates instead of wrapping around",
        probes.one_bit_integers,
        ((_BUILDER, "binary_op", arithmetic.binary_op),),
        fixed_in=(3, 9),
    ),
    Repair(
        "umulhi",
        "tl.umulhi sign-extends signed operands",
        probes.umulhi,
        ((_BUILDER, "create_umulhi", arithmetic.umulhi),),
        fixed_in=(3, 9),
    ),
    Repair(
        "histogram",
        "tl.histogram counts a value equal to the number of bins in the last bin",
        probes.histogram,
        ((_BUILDER, "create_histogram", arithmetic.histogram),),
        fixed_in=(3, 9),
    ),
    Repair(
        "narrowing-reductions",
        "a scalar reduction that overflows its type raises instead of wrapping",
        probes.narrowing_reductions,
        ((upstream.ReduceScanOpInterface, "to_tensor", reductions.to_tensor),),
        fixed_in=(3, 9),
    ),
    Repair(
        "half-sums",
        "tl.sum adds bfloat16's bits, and rounds float16 only at the end",
        probes.half_sums,
        ((_REDUCE, "sum", reductions.rounded_sum),),
    ),
    Repair(
        "extremes",
        "tl.max and tl.argmax compare bfloat16's bits and stumble over NaN",
        probes.extremes,
        ((_REDUCE, "min_max", reductions.min_max),),
    ),
    Repair(
        "bfloat16-scans",
        "cumulative sums and products add bfloat16's bits",
        probes.bfloat16_scans,
        (
            (_SCAN, "cumsum", reductions.scan(np.add)),
            (_SCAN, "cumprod", reductions.scan(np.multiply)),
        ),
    ),
    Repair(
        "bfloat16-atomics",
        "tl.atomic_add of bfloat16 raises or adds bits",
        probes.bfloat16_atomics,
        ((_BUILDER, "create_atomic_rmw", memory.atomic_rmw),),
    ),
    Repair(
        "descriptor-atomics",
        "a descriptor's atomic_add and its like are missing",
        probes.descriptor_atomics,
        ((_BUILDER, "create_descriptor_reduce", memory.descriptor_reduce),),
    ),
    Repair(
        "nan-padding",
        "descriptors of narrow floats can't be padded with NaN",
        probes.nan_padding,
        ((_BUILDER, "create_descriptor_load", memory.nan_padded_load),),
    ),
    Repair(
        "scalar-arguments",
        "float arguments stay Python floats, and bool arguments raise",
        probes.scalar_arguments,
        ((upstream, "_implicit_cvt", memory.scalar_arguments),),
    ),
    Repair(
        "loop-bounds",
        "range() over a kernel's argument raises with NumPy 2.4",
        probes.loop_bounds,
        ((upstream, "_patch_lang_tensor", memory.index),),
        fixed_in=(3, 7),
    ),
    Repair(
        "device-assert",
        "tl.device_assert never fires",
        probes.device_assert,
        ((upstream.interpreter_builder, "options", memory.options),),
    ),
    Repair(
        "libdevice",
        "libdevice's functions return nothing",
        probes.libdevice,
        ((_BUILDER, "create_extern_elementwise", libdevice.extern_elementwise),),
    ),
    Repair(
        "and-or-not",
        "'a and b' of two blocks is b, 'not a' is False",
        probes.and_or_not,
        (
            (_SYNTAX, "visit_BoolOp", syntax.visit_bool_op),
            (_SYNTAX, "visit_UnaryOp", syntax.visit_unary_op),
            (_SYNTAX, "visit_Compare", syntax.visit_compare),
            (_SYNTAX, "visit_Assign", syntax.visit_assign),
            (upstream, syntax.BOTH, lambda _: syntax.logical_and),
            (upstream, syntax.EITHER, lambda _: syntax.logical_or),
            (upstream, syntax.NEGATION, lambda _: syntax.logical_not),
        ),
    ),
)


def install() -> None:
    """Put all repairs in place."""
    done: set[tuple[int, str]] = set()
    for repair in REPAIRS:
        for owner, name, make in repair.changes:
            if (id(owner), name) not in done:
                done.add((id(owner), name))
                replace(owner, name, make)
