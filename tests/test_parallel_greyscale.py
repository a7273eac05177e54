"""A picture in grey, to the last level."""

import itertools

import numpy as np
import pytest
import torch

from tilebook import testing
from tilebook.parallel import greyscale as module
from tilebook.parallel.greyscale import greyscale, photograph


def exact(rgb):
    """The weighted mean, rounded to the nearest and halves up, in whole numbers."""
    r, g, b = rgb.long().unbind(-1)
    return ((299 * r + 587 * g + 114 * b + 500) // 1000).to(torch.uint8)


def picture(h, w, device):
    return torch.randint(0, 256, (h, w, 3), dtype=torch.uint8, device=device)


@pytest.mark.sanitize
@pytest.mark.parametrize(
    ("h", "w"),
    [(0, 5), (5, 0), (1, 1), (4, 256), (5, 257), (7, 300), (33, 3), (2, 1025)],
)
def test_any_size(h, w, device):
    rgb = picture(h, w, device)
    guarded = testing.guard(rgb)
    with testing.guarded():
        grey = greyscale(guarded.tensor)
    guarded.check()
    assert grey.shape == (h, w)
    assert torch.equal(grey, exact(rgb))


def test_every_sum_and_the_corners_of_the_cube(device):
    levels = torch.arange(256, dtype=torch.uint8, device=device)
    corners = torch.tensor(
        list(itertools.product((0, 1, 127, 128, 254, 255), repeat=3)),
        dtype=torch.uint8,
        device=device,
    )
    for rgb in (levels[:, None, None].expand(256, 4, 3), corners[None]):
        assert torch.equal(greyscale(rgb), exact(rgb))
    greys = levels[None, :, None].expand(1, 256, 3)
    assert torch.equal(greyscale(greys)[0], levels)


@pytest.mark.sanitize
@pytest.mark.parametrize("name", ["strided", "sliced", "transposed", "offset"])
def test_any_strides(name, device):
    rgb = picture(9, 70, device)
    laid = dict(testing.layouts(rgb))[name]
    assert torch.equal(greyscale(laid), exact(rgb))


def test_planes_instead_of_pixels(device):
    planes = picture(20, 30, device).permute(2, 0, 1).contiguous()
    rgb = planes.permute(1, 2, 0)
    assert torch.equal(greyscale(rgb), exact(rgb))


def test_floats_differ_only_half_way_between_two_greys(device):
    rgb = picture(64, 64, device)
    # 299 r + 587 g + 114 b = 500 modulo 1000: r = 26, g = 22, b = 104 and others.
    r, g, b = np.meshgrid(*[np.arange(0, 256, 2)] * 3, indexing="ij")
    ties = (299 * r + 587 * g + 114 * b) % 1000 == 500
    halfway = np.stack([c[ties][:4096] for c in (r, g, b)], axis=-1).astype(np.uint8)
    rgb[:, :, :].view(-1, 3)[: len(halfway)] = torch.from_numpy(halfway).to(device)
    right, near = exact(rgb), greyscale(rgb, how="float")
    off = (near.int() - right.int()).abs()
    assert off.max() <= 1
    sums = (rgb.long() * torch.tensor([299, 587, 114], device=device)).sum(-1)
    assert torch.all(sums[off > 0] % 1000 == 500)
    assert torch.equal(greyscale(rgb), right)


def test_bytes_wrap_round(device):
    rgb = torch.tensor(
        [[[200, 100, 0], [10, 20, 30]]], dtype=torch.uint8, device=device
    )
    assert greyscale(rgb, how="wrapping").tolist() == [[14, 20]]


def test_the_photograph(device):
    rgb = photograph()
    assert (rgb.shape, rgb.dtype) == ((600, 512, 3), np.uint8)
    # A decoder may be off by little; another picture isn't.
    assert np.allclose(rgb.mean((0, 1)), [82.5, 72.4, 86.4], atol=2)
    part = torch.from_numpy(rgb[100:164, 200:300]).to(device)
    assert torch.equal(greyscale(part), exact(part))
    wrong = greyscale(part, how="wrapping")
    assert (wrong != exact(part)).float().mean() > 0.5


@pytest.mark.gpu
def test_the_whole_photograph_and_a_large_picture(device):
    rgb = torch.from_numpy(photograph()).to(device)
    assert torch.equal(greyscale(rgb), exact(rgb))
    # More than 2^31 bytes: the offsets of a narrower type would wrap round.
    large = torch.randint(0, 256, (30_000, 30_000, 3), dtype=torch.uint8, device=device)
    grey = greyscale(large)
    assert torch.equal(grey[-100:], exact(large[-100:]))
    testing.deterministic(lambda: greyscale(rgb))


@pytest.mark.parametrize(
    ("rgb", "how", "error", "message"),
    [
        (np.zeros((2, 2, 3)), "integer", TypeError, "rgb must be a torch.Tensor"),
        (torch.zeros(2, 2, 3), "integer", TypeError, "rgb must be uint8, got float32"),
        (torch.zeros(2, 3).byte(), "integer", ValueError, "rgb must have shape"),
        (torch.zeros(2, 2, 4).byte(), "integer", ValueError, "rgb must have shape"),
        (torch.zeros(2, 2, 3).byte(), "luma", ValueError, "how must be 'integer', 'fl"),
    ],
)
def test_unfit(rgb, how, error, message, device):
    if isinstance(rgb, torch.Tensor):
        rgb = rgb.to(device)
    with pytest.raises(error, match=message):
        greyscale(rgb, how=how)


MISTAKES = [
    ("(offs_w < w)", "(offs_w <= w)"),
    ("(offs_h < h)", "(offs_h < 1000)"),
    ("pid // tiles_w", "pid % tiles_w"),
    ("ptrs + stride_c", "ptrs + 1"),
    ("2 * stride_c", "stride_c"),
    ("* w + offs_w[None, :]", "* stride_h + offs_w[None, :]"),
    ("(grey + 500) // 1000", "grey // 1000"),
    ("299 * r.to(tl.int32)", "299 * r.to(tl.int16)"),
]


@pytest.mark.parametrize(("old", "new"), MISTAKES)
def test_planted_mistakes_are_found(old, new, device):
    rgb = torch.cat(
        [
            picture(6, 300, device),
            torch.full((1, 300, 3), 250, dtype=torch.uint8, device=device),
        ]
    )
    planes = rgb.permute(2, 0, 1).contiguous().permute(1, 2, 0)

    def right():
        try:
            with testing.guarded():
                return all(torch.equal(greyscale(p), exact(p)) for p in (rgb, planes))
        except (AssertionError, IndexError):
            return False

    assert right()
    with testing.mutated_module(module, old, new):
        assert not right()
