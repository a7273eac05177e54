"""The pictures show what the kernels did, and say it in words."""

import io

import matplotlib
import pytest

from tilebook.parallel import figures


def texts(picture):
    return [text.get_text() for text in picture.figure.axes[0].texts]


def drawn(picture):
    out = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": "a constant"}):
        picture.figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()


@pytest.mark.parametrize(
    "make", [figures.ownership, figures.ragged_end, figures.striding, figures.waves]
)
def test_draws_twice_alike_and_speaks(make):
    picture = make()
    assert drawn(picture) == drawn(picture)
    assert b"<svg" in drawn(picture)
    assert len(picture.alt) > 60
    assert picture.alt.endswith(".")


def test_ownership():
    picture = figures.ownership(n=11, block=4)
    shown = texts(picture)
    owners = [t for t in shown if t.isdigit()][::2]
    assert owners == list("00001111222")
    assert "program 2 writes 3 elements from 8 on" in picture.alt


def test_ragged_end():
    picture = figures.ragged_end(n=11, block=4)
    shown = texts(picture)
    assert shown.count("yes") == 3
    assert shown.count("no") == shown.count("other") == 1
    assert {"x[8]", "x[9]", "x[10]", "11"} <= set(shown)
    assert "x[11]" not in shown
    with pytest.raises(ValueError, match="n must not be a multiple of 4, got 12"):
        figures.ragged_end(n=12, block=4)


def test_striding():
    picture = figures.striding(n=22, block=4, programs=2)
    cells = [t for t in texts(picture) if t in "01"]
    # Tiles 0, 2 and 4 (elements 16 to 19) are program 0's; the axis adds a "0".
    assert (cells.count("0"), cells.count("1")) == (12 + 1, 10)
    assert "There are 3 steps" in picture.alt


def test_waves():
    picture = figures.waves(programs=10, sms=4, per_sm=1)
    shown = texts(picture)
    assert [t for t in shown if t.startswith("wave")] == ["wave 0", "wave 1", "wave 2"]
    assert [t for t in shown if t.isdigit()] == [str(i) for i in range(10)]
    assert "2 of 4 places stay empty" in picture.alt
    with pytest.raises(ValueError, match="sms must be at least 1"):
        figures.waves(sms=0)
