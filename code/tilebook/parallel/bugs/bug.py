"""What a planted bug is: a wrong kernel, how to meet it, and who finds it."""

import difflib
import inspect
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import triton

from tilebook import device, microscope, testing

BLOCK = 256


@dataclass(frozen=True)
class Launch:
    """One launch, spelled out, so that a GPU and the microscope run the same.

    Args:
        grid: programs along each axis.
        args: positional arguments of the kernel.
        meta: its constexprs, by name.
        out: the tensor that holds the answer afterwards.
    """

    grid: tuple[int, ...]
    args: tuple[Any, ...]
    meta: dict[str, Any]
    out: torch.Tensor


def launch_map(x: torch.Tensor) -> Launch:
    """One program per block of x, which fills an output like x."""
    out = torch.empty_like(x)
    n = x.numel()
    grid = (triton.cdiv(n, BLOCK),)
    return Launch(grid, (x, out, n), {"BLOCK": BLOCK}, out)


def _as_it_is(out: torch.Tensor) -> torch.Tensor:
    return out


@dataclass(frozen=True)
class Case:
    """A kernel with the host code that launches it.

    Args:
        kernel: the jitted kernel.
        launch: allocates and says how to launch; takes the input tensors.
        finish: what the host does with the kernel's output.
        strays: the launch of the unfriendly inputs would leave its tensors, so
            it runs on the interpreter everywhere, where straying is an error
            and not somebody else's data.
    """

    kernel: Any
    launch: Callable[..., Launch]
    finish: Callable[[torch.Tensor], torch.Tensor] = _as_it_is
    strays: bool = False

    def run(self, *inputs: Any) -> torch.Tensor:
        """Launch on inputs and return the answer."""
        plan = self.launch(*inputs)
        if self.strays and not device.interpreting():
            microscope.look(
                self.kernel, plan.grid, *plan.args, **plan.meta, raise_error=True
            )
        else:
            self.kernel[plan.grid](*plan.args, **plan.meta)
        return self.finish(plan.out)

    def look(self, *inputs: Any) -> microscope.Look:
        """Launch on inputs under the microscope, on any machine."""
        plan = self.launch(*inputs)
        return microscope.look(self.kernel, plan.grid, *plan.args, **plan.meta)

    def source(self) -> str:
        """The kernel's source, then the launching function's."""
        parts = (self.kernel.fn, self.launch)
        return "\n\n".join(textwrap.dedent(inspect.getsource(p)) for p in parts)


@dataclass(frozen=True)
class Tool:
    """A way of finding bugs: what the book calls it, and how it is run.

    Args:
        name: as the chapter names it.
        find: takes a bug and one of its two cases; returns the tool's own
            message, or None where it finds nothing.
    """

    name: str
    find: Callable[["Bug", Case], str | None] = field(repr=False)


@dataclass(frozen=True)
class Bug:
    """One planted bug of the gallery.

    Args:
        name: key in the gallery.
        title: heading of its case in the chapter.
        symptom: what a user of the kernel notices.
        source: where bugs of this form were met.
        tool: what finds it.
        wrong: kernel and launch with the mistake.
        mended: the same without it.
        expected: what the kernel should compute, as a test would write it in
            PyTorch.
        friendly: makes the inputs of the test that lets it pass.
        inputs: makes the inputs on which it fails.
        length: roundings that an output passes through, see `testing.bound`.
        slips_through: where the friendly test passes the wrong kernel:
            "anywhere" or "interpreter" (the compiler refuses the kernel).
    """

    name: str
    title: str
    symptom: str
    source: str
    tool: Tool
    wrong: Case = field(repr=False)
    mended: Case = field(repr=False)
    expected: Callable[..., torch.Tensor] = field(repr=False)
    friendly: Callable[[], tuple[Any, ...]] = field(repr=False)
    inputs: Callable[[], tuple[Any, ...]] = field(repr=False)
    length: int = 1
    slips_through: str = "anywhere"

    @property
    def kernel(self) -> Any:
        """The wrong kernel."""
        return self.wrong.kernel

    @property
    def mend(self) -> Any:
        """The right kernel; the wrong one itself where only the launch was."""
        return self.mended.kernel

    def run(self, *inputs: Any) -> torch.Tensor:
        """Run the wrong kernel, on the inputs that it fails on unless given."""
        return self.wrong.run(*(inputs or self.inputs()))

    def naive(self, case: Case | None = None) -> bool:
        """The usual test: allclose on one friendly input.

        Args:
            case: what to test; the wrong case unless given.
        """
        inputs = self.friendly()
        want = self.expected(*inputs)
        out = (case or self.wrong).run(*inputs)
        return torch.allclose(out, want, rtol=1e-4, atol=1e-4)

    def truth(self, *inputs: Any) -> torch.Tensor:
        """The right answer, in float64 and int64; `expected` may share the mistake."""
        return testing.reference(self.expected, *map(_wide, inputs))

    def reproduce(self) -> str:
        """Run into the bug and say in one line what is seen."""
        inputs = self.inputs()
        want = self.truth(*inputs)
        try:
            out = self.wrong.run(*inputs)
        except Exception as error:
            root = error.__cause__ or error
            return f"{type(root).__name__}: {str(root).strip().splitlines()[-1]}"
        return _difference(out, want)

    def detect(self, case: Case | None = None) -> str:
        """Run the tool and return its message.

        Args:
            case: what to examine; the wrong case unless given.

        Raises:
            LookupError: the tool found nothing.
        """
        message = self.tool.find(self, case or self.wrong)
        if message is None:
            raise LookupError(f"{self.name}: {self.tool.name} found nothing")
        return message

    def show(self) -> str:
        """The wrong kernel and its launch, as source."""
        return self.wrong.source()

    def diff(self) -> str:
        """What the mend changes: wrong against right source, as a diff."""
        lines = difflib.unified_diff(
            self.wrong.source().splitlines(),
            self.mended.source().splitlines(),
            "wrong",
            "mended",
            lineterm="",
            n=1,
        )
        return "\n".join(lines)


def _wide(value: Any) -> Any:
    """Bytes as int64, so that a reference can't wrap; all else as it is."""
    whole = isinstance(value, torch.Tensor) and not value.is_floating_point()
    return value.long() if whole else value


def _difference(out: torch.Tensor, want: torch.Tensor) -> str:
    """Count wrong elements and name the first."""
    close = torch.isclose(
        out.double(), want.double(), rtol=1e-4, atol=1e-4, equal_nan=True
    )
    wrong = (~close).flatten().nonzero().flatten()
    if not len(wrong):
        return f"right: all {want.numel()} elements as expected"
    first = int(wrong[0])
    got, expected = out.flatten()[first].item(), want.flatten()[first].item()
    return (
        f"{len(wrong)} of {want.numel()} elements wrong, the first at {first}: "
        f"got {got:.6g}, expected {expected:.6g}"
    )
