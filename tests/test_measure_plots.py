"""Figures: legible on light and dark, labels apart, the same file every time."""

import itertools

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from tilebook import measure
from tilebook.measure import Budget, RecordError, palette, plots, runner
from tilebook.measure.simulated import Simulated
from tilebook.measure.timing import Timing

SIZES = [2**e for e in (10, 16, 20, 30)]
IMPLS = {"naive": (True, 1.3), "best": (True, 1.0), "peer": (False, 1.01)}


def sample(bench):
    for dtype in (torch.float32, torch.bfloat16):
        for n in SIZES:
            for impl, (ours, factor) in IMPLS.items():
                ms = factor * (2e-3 + 3 * n * dtype.itemsize / 900e6)
                bench.row(
                    impl=impl,
                    ours=ours,
                    shape={"n": n},
                    dtype=dtype,
                    regime="steady",
                    timing=Timing(ms, 0.99 * ms, 1.02 * ms, (ms, 0.99 * ms, 1.02 * ms)),
                    bytes=3 * n * dtype.itemsize,
                    flops=n,
                )


@pytest.fixture(scope="module")
def record():
    made = measure.Experiment("sample-add", "Why?", "add", ("check",), "gpu", sample)
    return runner.measure(made, Simulated(), Budget(3))


def luminance(color):
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4
        for c in to_rgb(color)
    ]
    return sum(k * c for k, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("color", [palette.GREY, *palette.ACCENTS])
@pytest.mark.parametrize("page", ["#ffffff", "#121212"])
def test_every_colour_is_legible_on_light_and_dark(color, page):
    # 4.33 is the most that any colour has against both at once.
    assert contrast(color, page) >= (4.29 if color == palette.GREY else 3.9)


def test_accents_are_apart_without_colour_vision():
    """Machado, Oliveira and Fernandes (2009), severity 1."""
    kinds = {
        "protan": [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        "deutan": [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    }
    for matrix in kinds.values():
        seen = [
            torch.tensor(matrix) @ torch.tensor(to_rgb(c)) for c in palette.ACCENTS[:3]
        ]
        for i, a in enumerate(seen):
            for b in seen[i + 1 :]:
                assert float((a - b).norm()) > 0.2


def drawings(record):
    case = {"dtype": "float32", "n": 2**20}
    return {
        "bandwidth": plots.bandwidth(record),
        "one": plots.bandwidth(record, dtype="float32", impls=["peer", "best"]),
        "rate": plots.bandwidth(record, by="tflops", dtype="bfloat16"),
        "ladder": plots.ladder(record, **case),
        "times": plots.ladder(record, by="ms", **case),
        "ratios": plots.ratios(record, "best"),
        "roofline": plots.roofline(record),
    }


def texts(figure):
    return [t.get_text() for t in figure.findobj(Text) if t.get_text()]


def test_figures_name_what_they_show(record):
    made = drawings(record)
    for name in IMPLS:
        assert name in texts(made["bandwidth"])
        assert name in texts(made["ladder"])
    assert "a copy, 1,000" in texts(made["bandwidth"])
    assert {"fp32", "bf16", "GB/s", "1 Gi"} <= set(texts(made["bandwidth"]))
    assert "naive" not in texts(made["one"])
    assert "cuBLAS 8192³, 100" in texts(made["rate"])
    assert "µs" in texts(made["times"])
    assert "best: times as fast as its peers" in texts(made["ratios"])


def test_the_last_of_ours_has_the_accent_and_peers_are_grey():
    seen = palette.looks([("naive", True), ("best", True), ("peer", False)])
    assert seen["best"].color == palette.ACCENTS[0]
    assert seen["naive"].color != seen["best"].color
    assert seen["peer"].color == palette.GREY
    assert len({look.marker for look in seen.values()}) == 3


def test_a_long_ladder_has_no_two_looks_alike():
    seen = palette.looks([(str(i), i < 7) for i in range(11)])
    assert len({look[:3] for look in seen.values()}) == 11


def test_labels_at_line_ends_keep_clear(record):
    figure = plots.bandwidth(record, dtype="float32")
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw(renderer)
    labels = [
        t.get_window_extent(renderer)
        for t in figure.findobj(Text)
        if t.get_text() in IMPLS
    ]
    assert len(labels) == 3
    labels.sort(key=lambda box: box.y0)
    for below, above in itertools.pairwise(labels):
        assert above.y0 >= below.y0 + 10


@pytest.mark.parametrize("heights", [[0.0], [0.0, 1.0, 2.0, 50.0], [5.0, 5.0, 5.0]])
def test_spreading_keeps_order_and_moves_no_more_than_it_must(heights):
    spots = [[h] for h in heights]
    palette._spread(spots, 10)
    placed = [h for (h,) in spots]
    assert all(b - a >= 10 - 1e-9 for a, b in itertools.pairwise(placed))
    assert sum(placed) == pytest.approx(sum(heights))


def test_svg_is_transparent_and_the_same_every_time(record):
    files = [plots.bandwidth(record)._repr_svg_() for _ in range(2)]
    assert files[0] == files[1]
    assert files[0].lstrip().startswith("<?xml")
    assert "#ffffff" not in files[0]
    assert "font-family" not in files[0]


def test_figures_are_shown_once(record):
    """Figures that pyplot knows of are shown again at the end of a cell."""
    drawings(record)
    assert plt.get_fignums() == []


def test_nothing_to_draw_is_said(record):
    with pytest.raises(RecordError, match="no row to draw"):
        plots.bandwidth(record, regime="cold")
    with pytest.raises(RecordError, match="one row per implementation"):
        plots.ladder(record)
    with pytest.raises(RecordError, match="no rows to compare 'gone'"):
        plots.ratios(record, "gone")


@pytest.mark.parametrize("side", ["left", "right"])
def test_limits_are_named_at_the_end_that_is_free(record, side):
    figure = plots.bandwidth(record, limits=side)
    for axes in figure.axes:
        found = [t for t in axes.texts if t.get_text().startswith("a copy")]
        assert [t.get_ha() for t in found] == [side]
        box = found[0].get_window_extent(FigureCanvasAgg(figure).get_renderer())
        assert axes.bbox.x0 <= box.x0 < box.x1 <= axes.bbox.x1
