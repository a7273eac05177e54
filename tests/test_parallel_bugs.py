"""Every planted bug slips through the usual test, and its tool finds it."""

import contextlib

import pytest
import torch
import triton

from tilebook import compile_only, device, microscope, testing
from tilebook.parallel import bugs

BUGS = tuple(bugs.GALLERY.values())

# Races: one program after another, as the interpreter runs them, can't show the
# first two, and a GPU shows any of them when it likes.
HIDDEN_IN_ORDER = ("lost-update", "packed-neighbour")
RACES = (*HIDDEN_IN_ORDER, "moved-back", "in-place-neighbour")
HIDDEN_HERE = HIDDEN_IN_ORDER if device.interpreting() else RACES
SHOW_HERE = tuple(name for name in bugs.GALLERY if name not in HIDDEN_HERE)
# What the tools must name for the message to be of help.
MENTIONS = {
    "floor-grid": ("768",),
    "no-mask": ("x_ptr", "1000"),
    "off-by-one": ("past its end",),
    "padding": ("expected",),
    "int32-offset": ("x_ptr", str(-(2**31))),
    "thread-index": ("741 of 1000", "259"),
    "moved-back": ("x_ptr", "744"),
    "lost-update": ("total_ptr",),
    "in-place-neighbour": ("x_ptr", "255"),
    "packed-neighbour": ("out_ptr",),
    "byte-sum": ("uint8",),
    "swallowed-nan": ("nan",),
    "ignored-strides": ("transposed",),
    "ragged-block": ("power of 2",),
    "born-in-a-branch": ("y is not defined",),
}


def slips_through_here(bug):
    return bug.slips_through == "anywhere" or device.interpreting()


@pytest.fixture(params=BUGS, ids=lambda bug: bug.name)
def bug(request):
    return request.param


def test_the_gallery_is_large_enough_and_keyed_by_name():
    assert len(bugs.GALLERY) >= 10
    assert all(name == bug.name for name, bug in bugs.GALLERY.items())
    assert MENTIONS.keys() == bugs.GALLERY.keys()


def test_the_usual_test_passes_the_wrong_kernel(bug):
    if slips_through_here(bug):
        assert bug.naive()
    else:
        with pytest.raises(triton.CompilationError):
            bug.naive()


def test_the_tool_finds_it_and_says_where(bug):
    message = bug.detect()
    for words in MENTIONS[bug.name]:
        assert words in message


def test_the_tool_has_nothing_against_the_mend(bug):
    with pytest.raises(LookupError, match=f"{bug.name}: .* found nothing"):
        bug.detect(bug.mended)


def test_the_mend_is_right_on_both_inputs(bug):
    assert bug.naive(bug.mended)
    inputs = bug.inputs()
    out = bug.mended.run(*inputs)
    testing.assert_close(out, bug.truth(*inputs), length=bug.length)


def test_mends_leave_their_inputs_alone(bug):
    inputs = bug.inputs()
    kept = [x.clone() if isinstance(x, torch.Tensor) else x for x in inputs]
    bug.mended.run(*inputs)
    for x, before in zip(inputs, kept, strict=True):
        if isinstance(x, torch.Tensor):
            assert torch.equal(x.nan_to_num(), before.nan_to_num())


@pytest.mark.parametrize("name", HIDDEN_IN_ORDER)
def test_the_interpreter_alone_does_not_show_it(name):
    bug = bugs.GALLERY[name]
    inputs = bug.inputs()
    plan = bug.wrong.launch(*inputs)
    microscope.look(bug.kernel, plan.grid, *plan.args, **plan.meta)
    testing.assert_close(plan.out, bug.truth(*inputs), length=bug.length)


@pytest.mark.parametrize("name", SHOW_HERE)
def test_reproducing_shows_a_symptom(name):
    # What an unwritten tail holds is chance, unless it is poisoned.
    poisoned = name == "floor-grid"
    with testing.guarded() if poisoned else contextlib.nullcontext():
        seen = bugs.GALLERY[name].reproduce()
    assert "elements wrong" in seen or "Error: " in seen or "OutOfBounds: " in seen


def test_show_and_diff_are_the_real_source(bug):
    shown = bug.show()
    assert f"def {bug.kernel.fn.__name__}(" in shown
    assert f"def {bug.wrong.launch.__name__}(" in shown
    changed = [s for s in bug.diff().splitlines() if s[:1] in "+-" and s[1:2] != "+"]
    assert changed


def test_what_the_chapter_shows_fits_its_column(bug):
    for case in (bug.wrong, bug.mended):
        assert max(map(len, case.source().splitlines())) <= 80


def test_the_table_names_every_tool():
    table = bugs.table()
    assert list(table.index) == list(bugs.GALLERY)
    assert table.tool.nunique() == 10
    assert not table.isna().any(axis=None)


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100", "gfx942"])
def test_mends_compile_everywhere(bug, target):
    plan = bug.mended.launch(*bug.inputs())
    artefact = compile_only.compile(bug.mend, *plan.args, target=target, **plan.meta)
    assert artefact.target == target
    assert artefact.asm.keys() & {"cubin", "hsaco"}


@pytest.mark.gpu
@pytest.mark.large
def test_the_int32_mend_copies_more_than_2_to_the_31_elements():
    bug = bugs.GALLERY["int32-offset"]
    n = 2**31 + 1000
    place = device.torch_device()
    x = torch.randint(0, 256, (n,), dtype=torch.uint8, device=place)
    assert torch.equal(bug.mended.run(x), x)
