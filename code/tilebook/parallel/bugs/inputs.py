"""Inputs of the gallery: seeded, small, on the device that is here."""

import torch

from tilebook import device


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(20261123)


def normal(*shape: int) -> torch.Tensor:
    """Standard normal float32 tensor of a shape."""
    return torch.randn(shape, generator=_generator()).to(device.torch_device())


def uniform(n: int, low: float, high: float) -> torch.Tensor:
    """Float32 vector of n values between low and high."""
    x = torch.rand(n, generator=_generator()) * (high - low) + low
    return x.to(device.torch_device())


def pixels(n: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Red, green and blue planes of n random pixels, uint8."""
    rgb = torch.randint(0, 256, (3, n), dtype=torch.uint8, generator=_generator())
    red, green, blue = rgb.to(device.torch_device())
    return red, green, blue
