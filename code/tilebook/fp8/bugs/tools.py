"""The tools that find the chapter's planted bugs, and operands made for them."""

import torch

from tilebook import compile_only, device, testing
from tilebook.fp8 import emulated, errors, formats, scaling
from tilebook.fp8.products import BLOCK
from tilebook.parallel.bugs import Bug, Case, Tool

NAN = float("nan")
WORST = 1 / 8
"""Of its largest number what a group may lose by the specification of MX."""
LENGTHS = (128, 256, 512, 1024, 2048, 4096)
"""Terms of the sums that `TENSOR_CORES` tries."""
LOSS = 4 * 33 * 2.0**-13
"""Of a sum of positive terms what 128 of them lose at most: each of four steps cuts
off 33 terms, the sum among them, less than 2^-13 of the largest each."""


def spread_out(rows: int, columns: int) -> torch.Tensor:
    """Draw numbers whose logarithms are as likely here as there, over two octaves.

    Args:
        rows: of the matrix.
        columns: of it.

    Returns:
        float32, on the device that is here.
    """
    luck = torch.Generator().manual_seed(20261128)
    x = torch.exp2(2 * torch.rand(rows, columns, generator=luck))
    x *= torch.randint(0, 2, x.shape, generator=luck) * 2 - 1
    return x.to(device.torch_device())


def _off(out: torch.Tensor, x: torch.Tensor, want: torch.Tensor) -> str | None:
    """Name the first number that comes back otherwise than rounding explains."""
    out, x, want = (each.double().cpu() for each in (out, x, want))
    # Half a step of e4m3fn, and below its normal numbers of the group's scale.
    scale = scaling.largest(want.nan_to_num(), "1x128") / formats.E4M3.largest
    scale = scale.clamp(min=scaling.SMALLEST)
    scale = scale.repeat_interleave(BLOCK, 1)[:, : x.shape[1]]
    allowed = torch.maximum(want.abs() * 2.0**-4, scale * 2.0**-10) * 1.001
    right = ((out - want).abs() <= allowed) | (out.isnan() & want.isnan())
    if bool(right.all()):
        return None
    i, j = (~right).nonzero()[0].tolist()
    return (
        f"{int((~right).sum())} of {x.numel()} numbers come back wrong; the first, "
        f"x[{i}, {j}] = {x[i, j]:g}, as {out[i, j]:g}, expected {want[i, j]:g}"
    )


def _ragged(bug: Bug, case: Case) -> str | None:
    (x,) = bug.friendly()
    for k in testing.lengths():
        if 0 < k <= x.shape[1]:
            part = x[:, :k].contiguous()
            if complaint := _off(case.run(part), part, bug.truth(part)):
                return f"k = {k}: {complaint}"
    return None


def _special(bug: Bug, case: Case) -> str | None:
    groups = {
        "zeros": lambda x: x[1].zero_(),
        "one NaN": lambda x: x[1, 5].fill_(NAN),
        "one infinity": lambda x: x[1, 5].fill_(float("inf")),
        "nothing but 1e-38": lambda x: x[1].fill_(1e-38),
    }
    found = []
    for name, change in groups.items():
        (x,) = bug.friendly()
        change(x)
        if complaint := _off(case.run(x), x, bug.truth(x)):
            found.append(f"{name}: {complaint}")
    return "\n".join(found) or None


def _steps(bug: Bug, case: Case) -> str | None:
    (xs,) = bug.friendly()
    for steps in range(2, 6):
        grown = torch.stack([xs[0], *[16 * xs[0]] * steps])
        back = case.run(grown)
        most, there = float(back.abs().max()), float(grown[-1].abs().max())
        if most != there:
            return (
                f"{steps} steps after inputs grew sixteenfold the largest number that "
                f"comes back is {most:g}, of {there:g}"
            )
    return None


def _derived(bug: Bug, case: Case) -> str | None:
    (x,) = bug.inputs()
    found, expected = errors.relative(case.run(x), x), errors.expected()
    if abs(found / expected - 1) < 0.1:
        return None
    return (
        f"the relative error is {found:.4f}; rounding to e4m3fn makes {expected:.4f}, "
        f"to e5m2 {errors.expected(formats.E5M2):.4f}"
    )


def _octave(bug: Bug, case: Case) -> str | None:
    sizes = torch.arange(256, 512, 2.0, device=device.torch_device())
    x = torch.zeros(len(sizes), 32, device=sizes.device)
    x[:, 0] = sizes
    lost = 1 - case.run(x)[:, 0] / sizes
    worst = int(lost.argmax())
    if float(lost[worst]) <= WORST:
        return None
    return (
        f"{int((lost > WORST).sum())} of {len(sizes)} groups lose more than an eighth "
        f"of their largest number; of {sizes[worst]:g} {float(lost[worst]):.0%} is lost"
    )


def _signed_scales(bug: Bug, case: Case) -> str | None:
    a, b, scale_a, scale_b = bug.inputs()
    a, b = torch.ones_like(a.float()).to(a.dtype), torch.ones_like(b.float())
    groups = scale_b.shape[0]
    scale_b = torch.exp2(torch.arange(float(groups), device=b.device))
    scale_b = scale_b[:, None].repeat(1, scale_a.shape[1])
    out = case.run(a, b.to(a.dtype), torch.ones_like(scale_a), scale_b)
    used = torch.log2(out[0] / a.shape[1]).cpu()
    own = torch.arange(len(used)) // BLOCK
    wrong = (used != own).nonzero().flatten()
    if not len(wrong):
        return None
    first = int(wrong[0])
    return (
        f"column {first} belongs to group {int(own[first])} and has the scale of group "
        f"{used[first]:g}; {len(wrong)} of {len(used)} columns have another's"
    )


def _poisoned(bug: Bug, case: Case) -> str | None:
    inputs = bug.inputs()
    with testing.guarded():
        out = case.run(*inputs)
    if not bool(out.isnan().any()):
        return None
    return (
        f"with NaN in memory that nobody has written {int(out.isnan().sum())} of "
        f"{out.numel()} elements are NaN"
    )


def _tensor_cores(bug: Bug, case: Case) -> str | None:
    a, b = bug.inputs()
    for k in LENGTHS:
        part = a[:, :k].contiguous(), b[:k]
        plan = case.launch(*part)
        emulated.run(case.kernel, plan.grid, *plan.args, **plan.meta)
        off = errors.relative(plan.out, bug.truth(*part))
        if off > LOSS:
            return (
                f"k = {k:,}: the relative error is {off:.3f}; 128 terms lose "
                f"{LOSS:.3f} at most"
            )
    return None


def _loads(bug: Bug, case: Case) -> str | None:
    plan = case.launch(*bug.inputs())
    found = compile_only.compile(
        case.kernel, *plan.args, target="sm_90", num_warps=8, **plan.meta
    ).evidence
    if not found.global_loads:
        return None
    loads = ", ".join(f"{n} loads of {bits} bits" for bits, n in
                      found.global_loads.items())  # fmt: skip
    return f"an operand passes through registers, {loads}\n{found.line()}"


RAGGED = Tool("ragged lengths, testing.lengths()", _ragged)
SPECIAL = Tool("groups that are special, against float64", _special)
STEPS = Tool("steps whose inputs grow", _steps)
DERIVED = Tool("the error that rounding makes, errors.expected()", _derived)
OCTAVE = Tool("every largest magnitude of an octave", _octave)
SIGNED_SCALES = Tool("scales that tell their group, 2^0, 2^1, 2^2 ...", _signed_scales)
POISON = Tool("poisoned memory, testing.guarded()", _poisoned)
TENSOR_CORES = Tool("sums as tensor cores keep them, emulated.run()", _tensor_cores)
LOADS = Tool("what is compiled, compile_only.compile()", _loads)
