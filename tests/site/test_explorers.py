"""Figures that a reader operates: as the package has it, by keyboard, in any dress."""

import itertools
import math
import random

import pytest
import torch

from tilebook.softmax import recurrence
from tilebook.tiling import linear, orders
from tilebook.tiling.layouts import Blocked

from . import axe
from .conftest import THEMES, WIDTHS, chapters

PAGES = {
    "launch-orders": "chapters/tiling.html",
    "layouts": "chapters/tiling.html",
    "online-softmax": "chapters/softmax.html",
}
# Leaves of an article its figures and all these stand in. What axe isn't asked about
# it need not read; whatever a figure lacked of the rest would be a violation.
ALONE = """() => {
    const kept = new Set();
    for (let box of document.querySelectorAll(".explorer")) {
        for (; box.localName !== "article"; box = box.parentElement) kept.add(box);
    }
    for (const box of [...kept, document.querySelector("article")]) {
        if (box.matches(".explorer")) continue;
        for (const child of [...box.children]) if (!kept.has(child)) child.remove();
    }
}"""
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"

pytestmark = pytest.mark.skipif(
    not {"tiling", "softmax"} <= set(chapters()), reason="the chapters are drafts"
)


def box_of(page, name: str):
    """Return one figure of a page, once it runs."""
    box = page.locator(f'.explorer.running[data-explorer="{name}"]')
    box.wait_for(state="visible")
    return box


@pytest.fixture
def figure(open_page):
    """Open a page and return one of its figures."""

    def opened(name: str, *dress: str):
        box = box_of(open_page(PAGES[name], *dress), name)
        box.scroll_into_view_if_needed()
        return box

    return opened


def data_of(box) -> dict:
    """Return what a figure's script is given."""
    return box.locator("script").evaluate("x => JSON.parse(x.textContent)")


def says(box, text: str) -> None:
    """Wait until a figure says something."""
    box.locator(".explorer-said", has_text=text).wait_for(timeout=3000)


def table(box) -> list[list[str]]:
    """Return the numbers that a live figure shows, without its head."""
    rows = box.locator(".explorer-live tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def test_pages_load_scripts_for_their_figures_only(soups: dict):
    assert all(name in soups for name in PAGES.values())
    # What is tested in test_phases.py, once its chapter is no draft.
    all_pages = PAGES | {"phases": "chapters/hopper.html"}
    for name, soup in soups.items():
        shown = {box["data-explorer"] for box in soup.select("[data-explorer]")}
        assert shown == {key for key, page in all_pages.items() if page == name}
        loaded = [x["src"] for x in soup.select('script[src*="explorers/"]')]
        assert len(loaded) == len(shown) + bool(shown), name


def test_every_layout_that_is_offered_is_that_of_the_package(figure):
    """And the package's are Triton's, says tests/test_tiling_linear.py."""
    box = figure("layouts")
    data = data_of(box)
    lists = list(itertools.product(data["shapes"], *data["choices"].values()))
    found = box.evaluate(
        """(_, lists) => lists.map(([shape, size, lanes, warps, order]) => {
            const found = explorers.bases({ size, lanes, warps, order }, shape);
            return [found.register, found.lane, found.warp];
        })""",
        lists,
    )
    assert len(found) > 7000
    for (shape, *layout), steps in zip(lists, found, strict=True):
        wanted = linear.bases(Blocked(*map(tuple, layout)), tuple(shape))
        assert [[list(x) for x in part] for part in wanted] == steps, (shape, layout)


@pytest.mark.parametrize(
    ("layout", "shape"),
    [
        (((1, 8), (4, 8), (4, 1), (1, 0)), (64, 64)),
        (((8, 1), (8, 4), (1, 4), (0, 1)), (16, 16)),
        (((2, 4), (2, 16), (2, 2), (1, 0)), (16, 64)),
    ],
)
def test_elements_are_held_by_whom_the_package_says(figure, layout, shape):
    owners = figure("layouts").evaluate(
        """(_, [[size, lanes, warps, order], shape]) =>
            explorers.owners(
                explorers.bases({ size, lanes, warps, order }, shape), shape)""",
        [layout, shape],
    )
    made = Blocked(*layout)
    bases, threads = linear.bases(made, shape), made.threads(shape)
    for number, (warp, lane, register) in enumerate(owners):
        at = divmod(number, shape[1])
        assert threads[at] == 32 * warp + lane
        assert bases.place(register, lane, warp) == at


def test_every_order_and_every_wave_is_that_of_the_package(figure):
    box = figure("launch-orders")
    count = """(_, [order, grid, widths]) =>
        widths.map((programs) => explorers.waves(order, grid, programs))"""
    for grid in data_of(box)["grids"]:
        rows, columns = shape = grid["rows"], grid["columns"]
        widths = sorted({1, 3, grid["programs"], rows * columns // 2, rows * columns})
        for group, order in zip(grid["groups"], grid["orders"], strict=True):
            wanted = orders.order(*shape, group)
            assert order == (wanted @ [columns, 1]).tolist()
            found = box.evaluate(count, [order, grid, widths])
            for programs, waves in zip(widths, found, strict=True):
                needs = orders.waves(*shape, group, programs)
                assert waves == [need.tiles(grid["depth"]) for need in needs]


def rows() -> list[list[float]]:
    """Return rows of numbers, of which some are none."""
    draw = random.Random(0)
    ordinary = [[draw.gauss(0, 10) for _ in range(n)] for n in (1, 2, 7, 12, 16)]
    inf, nan = math.inf, math.nan
    special = [
        [-inf, -inf, 1.0, 2.0],
        [-inf, -inf, -inf],
        [1.0, inf, 2.0, inf],
        [1.0, nan, 3.0, 2.0],
        [nan, nan, -inf],
        [1000.0, -1000.0, 999.0],
    ]
    return ordinary + special


def test_the_recurrence_is_that_of_the_package(figure):
    box = figure("online-softmax")
    # JSON has no infinities, so numbers go there and back as texts.
    count = """(_, [row, chunk]) => {
        const { trace, state } = explorers.recurrence;
        const terms = row.map((x) => ({ inf: Infinity, "-inf": -Infinity })[x] ?? +x);
        const told = ({ m, d }) => [`${m}`, `${d}`];
        return [
            trace(terms, chunk).map((x) =>
                [x.chunk, x.largest, x.m, x.d, x.rescale].map((y) => `${y}`)),
            told(state(terms)),
        ];
    }"""
    for row, chunk in itertools.product(rows(), data_of(box)["chunks"]):
        lines, whole = box.evaluate(count, [[repr(x) for x in row], chunk])
        wanted = recurrence.trace(row, chunk)
        # Either may be off by the bound, and a rescale by that of one power.
        near = {"rel": 2 * recurrence.bound(len(row), len(lines), torch.float64)}
        near |= {"abs": 0, "nan_ok": True}
        for found, line in zip(lines, wanted.itertuples(index=False), strict=True):
            assert list(map(number, found)) == pytest.approx(list(line), **near)
        state = recurrence.state(torch.tensor(row, dtype=torch.float64))
        told = list(map(number, whole))
        assert told == pytest.approx([float(state.m), float(state.d)], **near)


def number(text: str) -> float:
    """Read a number as JavaScript writes it."""
    return float(text.replace("Infinity", "inf"))


def test_orders_by_keyboard(figure):
    box = figure("launch-orders")
    page = box.page
    says(box, "54 different tiles; row by row, 90.")
    box.get_by_label("Tiles of C").focus()
    page.keyboard.type("16")
    page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    says(box, "Wave 1 of 8, programs 0 to 31. In strips of 4")
    first = orders.waves(16, 16, 4, 32)
    assert table(box)[1] == ["Different ones", "144", f"{first[0].tiles(8)}"]
    page.keyboard.press("Tab")
    page.keyboard.press("End")
    says(box, "Wave 1 of 1, programs 0 to 255")
    box.get_by_role("slider", name="Programs at a time").press("Home")
    says(box, "Wave 1 of 256, program 0.")
    box.get_by_role("button", name="Step").press("Enter")
    says(box, "Wave 2 of 256, program 1.")
    box.get_by_role("slider", name="Wave").press("End")
    says(box, "Wave 256 of 256, program 255.")
    step = box.get_by_role("button", name="Step")
    assert step.get_attribute("aria-disabled") == "true"
    step.press("Enter")
    box.get_by_role("button", name="Back").press("Space")
    says(box, "Wave 255 of 256, program 254.")
    assert not page.errors
    assert not page.foreign


def test_orders_play_and_pause(figure):
    box = figure("launch-orders")
    box.get_by_role("button", name="Play").press("Enter")
    says(box, "Wave 2 of 9")
    pause = box.get_by_role("button", name="Pause")
    pause.press("Enter")
    slider = box.get_by_role("slider", name="Wave")
    at = slider.input_value()
    box.page.wait_for_timeout(1500)
    assert slider.input_value() == at


def test_layouts_by_keyboard(figure):
    box = figure("layouts")
    says(
        box, "Element [5, 12] is in register 4 of lane 9 of warp 1, which is thread 41"
    )
    row = box.get_by_role("slider", name="Row")
    row.press("ArrowRight")
    says(box, "Element [6, 12] is in register 4 of lane 17 of warp 1")
    box.get_by_role("slider", name="Thread").press("End")
    says(box, "Element [15, 56] is in register 0 of lane 31 of warp 3")
    box.get_by_label("Tile").select_option("[16, 16]")
    says(box, "4 threads hold each element")
    assert row.get_attribute("aria-valuetext") == "15"
    assert table(box)[-1] == ["together", "", "[15, 15]"]


def test_a_click_chooses_an_element(figure):
    box = figure("layouts")
    box.get_by_label("Tile").select_option("[16, 64]")
    ground = box.locator("svg .ground").bounding_box()
    side = ground["width"] / 64
    box.page.mouse.click(ground["x"] + 21.5 * side, ground["y"] + 9.5 * side)
    says(box, "Element [9, 21]")


def test_the_recurrence_by_keyboard(figure):
    box = figure("online-softmax")
    says(box, "Chunk 1 of 3: m is its largest, 3")
    box.get_by_role("button", name="Step").press("Enter")
    says(box, "its largest, 3, is no new maximum, and nothing is rescaled.")
    box.get_by_role("button", name="Step").press("Enter")
    says(box, "its largest, 6, is a new maximum. The sum so far, 3.424")
    lines = recurrence.trace(data_of(box)["row"], 4)
    shown = table(box)
    assert [row[4] for row in shown[:3]] == [f"{d:.7g}" for d in lines["d"]]
    assert shown[3][3:] == shown[2][3:]
    heights = box.locator(".explorer-live .bar").evaluate_all(
        "bars => bars.map((bar) => parseFloat(bar.style.height))"
    )
    assert heights[1] / heights[8] == pytest.approx(math.exp(3 - 6), rel=1e-4)


def test_a_row_is_edited_and_shuffled(figure):
    box = figure("online-softmax")
    field = box.get_by_label("Row")
    field.fill("-inf, -inf 1;2.5")
    box.get_by_label("Numbers in a chunk").select_option("2")
    says(box, "Chunk 1 of 2: m is its largest, \N{MINUS SIGN}inf")
    field.fill("1 two 3")
    box.get_by_text("“two” is no number.").wait_for()
    assert field.get_attribute("aria-invalid") == "true"
    field.fill(" ".join(["1"] * 17))
    box.get_by_text("Between 1 and 16 numbers, please.").wait_for()
    box.get_by_role("button", name="Reset").press("Enter")
    assert field.get_attribute("aria-invalid") == "false"
    before = field.input_value()
    for _ in range(5):
        box.get_by_role("button", name="Shuffle").press("Enter")
    after = field.input_value()
    assert after != before
    assert sorted(after.split()) == sorted(before.split())
    assert table(box)[-1][4] == "1.547572"


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_shows_it_whole(figure, name: str):
    box = figure(name, "phone")
    for select in box.locator("select").all():
        for value in select.locator("option").all():
            select.select_option(value.get_attribute("value"))
            inside = box.bounding_box()
            assert inside["x"] >= 0
            assert box.evaluate("x => x.scrollWidth - x.clientWidth") <= 0
    assert box.page.evaluate(OVERFLOW) <= 0
    for control in box.locator("select, button, input").all():
        assert control.bounding_box()["height"] >= 24
    assert not box.page.errors


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_in_what_was_operated(figure, name: str, width: str):
    box = figure(name, width)
    box.get_by_role("slider").last.press("ArrowRight")
    if name == "online-softmax":
        box.get_by_label("Row").fill("one")
    box.page.evaluate(ALONE)
    assert not axe.violations(box.page, THEMES, ".explorer")


@pytest.mark.parametrize("name", PAGES)
def test_without_scripts_there_is_a_picture_and_a_table(browser, address, name: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + PAGES[name])
    box = page.locator(f'[data-explorer="{name}"]')
    assert box.locator(".explorer-still svg").is_visible()
    assert box.locator("table").is_visible()
    assert box.locator("select, button, input").count() == 0
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_paper_has_the_still_picture(figure, name: str):
    box = figure(name)
    assert not box.locator(".explorer-still").is_visible()
    box.page.emulate_media(media="print")
    assert box.locator(".explorer-still svg").is_visible()
    assert not box.locator(".explorer-live").is_visible()


def test_nothing_moves_by_itself_for_who_asked_for_that(browser, address):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(address + PAGES["online-softmax"])
    box = box_of(page, "online-softmax")
    assert box.get_by_role("button", name="Step").is_visible()
    assert box.get_by_role("button", name="Play").count() == 0
    bar = box.locator(".explorer-live .bar").first
    assert bar.evaluate("x => getComputedStyle(x).transitionProperty") == "none"
    context.close()


@pytest.mark.parametrize("name", PAGES)
def test_the_markdown_and_the_notebook_have_its_words(site, soups: dict, name: str):
    box = soups[PAGES[name]].select_one(f'[data-explorer="{name}"]')
    words = box.select_one(".explorer-words").get_text()
    page = site / PAGES[name]
    assert words in page.with_suffix(".md").read_text(encoding="utf-8")
    assert words in page.with_suffix(".ipynb").read_text(encoding="utf-8")
