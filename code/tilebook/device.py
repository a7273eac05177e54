"""Which back end is here, what it can do, and which sizes suit it.

Nothing runs on import; the first call of `current` asks the driver, which starts
CUDA in this process. `available` and `interpreting` never do, so a process that only
asks those may still fork.
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable
from typing import TypeVar

import torch

from tilebook import interpreter
from tilebook._constant import constant
from tilebook._datasheet import DATASHEET, Datasheet

__all__ = [
    "DATASHEET",
    "FEATURES",
    "Datasheet",
    "Device",
    "HardwareError",
    "available",
    "current",
    "describe",
    "has",
    "interpreting",
    "launch_device_type",
    "require",
    "sizes",
    "slugify",
    "torch_device",
]

T = TypeVar("T")


class HardwareError(RuntimeError):
    """The hardware at hand lacks something that a kernel needs."""


@dataclasses.dataclass(frozen=True)
class Device:
    """Where kernels run in this process; sizes in bytes, None where unknown.

    `backend` is "cuda", "hip", "interpreter", or "none" where there is no GPU and
    TRITON_INTERPRET=0 keeps the interpreter off (kernels can be compiled only).
    """

    backend: str
    name: str
    slug: str
    torch_device: str
    arch: str | None = None
    capability: tuple[int, int] | None = None
    sms: int | None = None
    shared_memory_per_block: int | None = None
    shared_memory_per_sm: int | None = None
    registers_per_sm: int | None = None
    threads_per_sm: int | None = None
    l2_bytes: int | None = None
    memory_bytes: int | None = None
    warp_size: int | None = None
    driver: str | None = None

    @property
    def datasheet(self) -> Datasheet | None:
        """The vendor's peak rates for this GPU, if they are known."""
        return DATASHEET.get(self.slug)


def available() -> bool:
    """Whether a GPU is visible to this process; starts nothing on it."""
    return interpreter.gpu_count() > 0


@constant
def interpreting() -> bool:
    """Whether kernels launched in this process run in Triton's CPU interpreter."""
    return interpreter.switched_on()


@constant
def launch_device_type() -> str | None:
    """The type of device a launched kernel's tensors must be on.

    Returns:
        "cuda" (ROCm uses that name too), "cpu" when interpreting, None when nothing
        can be launched.
    """
    if interpreting():
        return "cpu"
    return "cuda" if available() else None


@functools.cache
def current() -> Device:
    """Describe the device on which this process's kernels run.

    Returns:
        The current GPU's description, or the interpreter's.
    """
    where = launch_device_type()
    if where == "cpu":
        return Device("interpreter", "Triton's CPU interpreter", "interpreter", "cpu")
    if where is None:
        return Device("none", "no GPU, interpreter off", "none", "cpu")
    found = torch.cuda.get_device_properties(torch.cuda.current_device())
    hip = torch.version.hip is not None
    capability = (found.major, found.minor)
    arch = found.gcnArchName.split(":")[0] if hip else "sm_{}{}".format(*capability)
    block = found.shared_memory_per_block
    return Device(
        backend="hip" if hip else "cuda",
        name=found.name,
        slug=slugify(found.name),
        torch_device="cuda",
        arch=arch,
        capability=capability,
        sms=found.multi_processor_count,
        shared_memory_per_block=getattr(found, "shared_memory_per_block_optin", block),
        shared_memory_per_sm=found.shared_memory_per_multiprocessor,
        registers_per_sm=found.regs_per_multiprocessor,
        threads_per_sm=found.max_threads_per_multi_processor,
        l2_bytes=found.L2_cache_size,
        memory_bytes=found.total_memory,
        warp_size=found.warp_size,
        driver=_driver_version("amdgpu" if hip else "nvidia"),
    )


def torch_device() -> torch.device:
    """The device on which to make tensors for this process's kernels."""
    return torch.device("cuda" if launch_device_type() == "cuda" else "cpu")


def describe() -> str:
    """Say in one line where kernels run."""
    here = current()
    if here.backend == "interpreter":
        forced = available()
        why = "although a GPU is here, as asked" if forced else "no GPU found"
        return f"{here.name} ({why}): results are right, times mean nothing"
    if here.backend == "none":
        return "no GPU, and TRITON_INTERPRET=0: kernels can be compiled but not run"
    gib = here.memory_bytes / 2**30
    return f"{here.name} ({here.arch}, {here.sms} SMs, {gib:.0f} GiB)"


def _capability_at_least(major: int, minor: int = 0) -> Callable[[Device], bool]:
    def holds(here: Device) -> bool:
        return here.backend == "cuda" and here.capability >= (major, minor)

    return holds


def _has_fp8(here: Device) -> bool:
    # CDNA 3 and later, RDNA 4.
    amd = here.backend == "hip" and here.arch.startswith(("gfx94", "gfx95", "gfx12"))
    return amd or _capability_at_least(8, 9)(here)


# What each feature needs, in words, and whether a device has it.
FEATURES: dict[str, tuple[str, Callable[[Device], bool]]] = {
    "gpu": ("a GPU", lambda here: here.backend in ("cuda", "hip")),
    "sm80": ("an NVIDIA GPU of compute capability 8.0+", _capability_at_least(8)),
    "sm90": ("an NVIDIA GPU of compute capability 9.0+", _capability_at_least(9)),
    "sm100": ("an NVIDIA GPU of compute capability 10.0+", _capability_at_least(10)),
    "tma": ("the tensor memory accelerator (Hopper or later)", _capability_at_least(9)),
    "wgmma": (
        "Hopper's warp-group matrix instructions (compute capability 9.x)",
        lambda here: here.backend == "cuda" and here.capability[0] == 9,
    ),
    "fp8": ("8-bit float matrix instructions (Ada, Hopper, CDNA 3 or later)", _has_fp8),
    "pdl": ("programmatic dependent launch (Hopper or later)", _capability_at_least(9)),
}


def has(feature: str) -> bool:
    """Whether this process's device has a feature, one of `FEATURES`.

    Raises:
        ValueError: no such feature.
    """
    return _feature(feature)[1](current())


def require(feature: str) -> None:
    """Insist on a feature, one of `FEATURES`.

    Raises:
        HardwareError: naming what is needed and what is here.
        ValueError: no such feature.
    """
    needed, holds = _feature(feature)
    if not holds(current()):
        raise HardwareError(f"this needs {needed}; here is {describe()}")


def sizes(full: T, small: T) -> T:
    """Pick `full` where kernels are compiled and `small` where they are interpreted."""
    return full if launch_device_type() == "cuda" else small


def _feature(name: str) -> tuple[str, Callable[[Device], bool]]:
    if name not in FEATURES:
        raise ValueError(f"feature must be one of {', '.join(FEATURES)}, got {name!r}")
    return FEATURES[name]


# Vendor, brand and memory type say nothing that the model number doesn't.
_NOISE = re.compile(
    r"\b(nvidia|amd|radeon|instinct|geforce|tesla|graphics|hbm\w*|oam)\b|\((r|tm)\)"
)
# Of these the name leaves out the form factor when it is SXM.
_BARE_IS_SXM = {"h100", "h200", "h800"}
# Only these were sold with several memory sizes in one form factor.
_MEMORY_MATTERS = {"a100", "v100"}


def slugify(name: str) -> str:
    """Turn a GPU's name into the short name its records go by.

    Args:
        name: as the driver gives it, such as "NVIDIA H100 80GB HBM3".

    Returns:
        Letters, digits and dashes: "h100-sxm". A MIG slice keeps its profile, so that
        it is never taken for the whole GPU.
    """
    text, _, mig = _NOISE.sub(" ", name.lower()).partition(" mig ")
    memory = re.search(r"\b(\d+)\s?gb\b", text)
    text = re.sub(r"\b\d+\s?gb\b", " ", text)
    words = re.findall(r"[a-z0-9]+", re.sub(r"\bsxm\d\b", "sxm", text))
    if not words:
        return "unknown"
    model = words[0]
    if len(words) == 1 and model in _BARE_IS_SXM:
        words.append("sxm")
    if memory and model in _MEMORY_MATTERS:
        words.append(f"{memory[1]}gb")
    if mig:
        words += ["mig", *re.findall(r"[a-z0-9]+", mig)]
    return "-".join(words)


def _driver_version(module: str) -> str | None:
    loaded = pathlib.Path("/sys/module") / module / "version"
    try:
        return loaded.read_text().strip()
    except OSError:
        return os.environ.get("NVIDIA_DRIVER_VERSION")
