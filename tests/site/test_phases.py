"""The figure of the loop of specialised warps: as the package has it, by keyboard."""

import itertools

import pytest

from tilebook.hopper import phases
from tilebook.hopper.moments import Ring
from tilebook.hopper.phases import MISTAKES, PLANS, STAGES, STEPS, Setting

from . import axe
from .conftest import THEMES, WIDTHS, chapters

PAGE = "chapters/hopper.html"
BOX = '.explorer.running[data-explorer="phases"]'
OVERFLOW = "document.documentElement.scrollWidth - innerWidth"

pytestmark = pytest.mark.skipif(
    "hopper" not in chapters(), reason="the chapter is a draft"
)


@pytest.fixture
def figure(open_page):
    """Open the page and return the figure, once it runs."""

    def opened(*dress: str):
        box = open_page(PAGE, *dress).locator(BOX)
        box.wait_for(state="visible")
        box.scroll_into_view_if_needed()
        return box

    return opened


def says(box, text: str) -> None:
    """Wait until the figure says something."""
    box.locator(".explorer-said", has_text=text).wait_for(timeout=3000)


def table(box, which: int) -> list[list[str]]:
    """Return one of the live tables: slots are the first, barriers the second."""
    rows = box.locator(".explorer-live table").nth(which).locator("tbody tr").all()
    return [row.locator("th, td").all_inner_texts() for row in rows]


def test_every_state_of_every_run_is_that_of_the_package(figure):
    box = figure()
    found = box.evaluate(
        """(box) => {
            const data = JSON.parse(box.querySelector("script").textContent);
            const { begin, happen, run, seen } = explorers.ring;
            return Object.keys(data.runs).flatMap((key) => {
                const [kernel, mistake] = key.split(" ");
                const { parts } = data.kernels.find((x) => x.name === kernel);
                return data.stages.flatMap((slots, i) => data.steps.map((_, j) => {
                    const told = run(data, kernel, mistake, i, j);
                    const ring = begin(parts, slots);
                    return [key, told.moments.map((moment) => {
                        happen(ring, moment);
                        return seen(ring);
                    })];
                }));
            });
        }"""
    )
    wanted = [
        Setting(kernel, *sizes, mistake)
        for kernel in PLANS
        for mistake in MISTAKES
        if kernel in MISTAKES[mistake].edits
        for sizes in itertools.product(STAGES, STEPS)
    ]
    for setting, (key, states) in zip(wanted, found, strict=True):
        assert key == f"{setting.kernel} {setting.mistake}"
        told = phases.every()[setting]
        ring = Ring(PLANS[setting.kernel], setting.stages)
        for moment, state in zip(told.moments, states, strict=True):
            ring.happen(moment)
            assert state == ring.seen(), setting


def test_chunks_that_are_due_are_those_of_the_package(figure):
    found = figure().evaluate(
        """() => [2, 1].map((parts) => [0, 1].map((consumer) =>
            [2, 3, 4].map((steps) => [...Array(12).keys()].map((count) =>
                explorers.ring.due(parts, consumer, count, steps)))))"""
    )
    for kernel, consumers in zip(("cooperative", "pingpong"), found, strict=True):
        for consumer, by_steps in enumerate(consumers):
            for steps, due in zip(STEPS, by_steps, strict=True):
                plan = PLANS[kernel]
                assert due == [plan.chunk(consumer, i, steps) for i in range(12)]


def test_by_keyboard(figure):
    box = figure()
    page = box.page
    moment = box.get_by_role("slider", name="Moment")
    moment.press("Home")
    first, second, *_ = phases.every()[Setting("cooperative", 3, 3)].moments
    says(box, f"{first.who.capitalize()} waits at {first.on} for parity 0")
    box.get_by_role("button", name="Step").press("Enter")
    assert second.what == "asks"
    says(box, "asks for chunk 0 in slot 0: arrived[0] has its arrival")
    assert table(box, 0)[0] == ["slot 0", "0", "on its way"]
    assert table(box, 1)[0][:4] == ["arrived[0]", "0", "1", "3 tiles"]
    moment.press("End")
    says(box, "All 3 tiles are stored, and the product is right.")
    box.get_by_role("button", name="Back").press("Space")
    assert moment.get_attribute("aria-valuetext").startswith("121 of 122")
    box.get_by_label("Kernel").focus()
    page.keyboard.type("ping")
    page.keyboard.press("Tab")
    page.keyboard.type("2")
    assert [row[0] for row in table(box, 1)][-2:] == ["handed[0]", "handed[1]"]
    assert len(table(box, 0)) == 2
    assert not page.errors
    assert not page.foreign


def test_mistakes_are_seen(figure):
    box = figure()
    mistakes = box.get_by_label("Mistake")
    moment = box.get_by_role("slider", name="Moment")
    mistakes.select_option(label=MISTAKES["early"].label)
    says(box, "Wrong: the copy engine writes into slot")
    assert box.locator(".bar-overwritten").count() > 0
    assert "overwritten" in [row[2] for row in table(box, 0)]
    moment.press("End")
    says(box, "the product is wrong.")
    mistakes.select_option(label=MISTAKES["opposite"].label)
    says(box, "Nobody can go on:")
    waits = [row[4] for row in table(box, 1) if row[4]]
    assert "producer, for 0" in waits
    mistakes.select_option(label=MISTAKES["restarted"].label)
    says(box, "Wrong: chunk 3 is due to consumer")
    box.get_by_label("Slots").select_option(label="2")
    box.get_by_label("Chunks of a tile").select_option(label="4")
    moment.press("End")
    says(box, "the product is right. The mistake doesn't show here.")


def test_a_mistake_that_a_kernel_cannot_make_is_not_offered(figure):
    box = figure()
    box.get_by_label("Kernel").select_option(label="pingpong")
    mistakes = box.get_by_label("Mistake")
    mistakes.select_option(label=MISTAKES["unhanded"].label)
    box.get_by_label("Kernel").select_option(label="folded")
    assert mistakes.evaluate("x => x.selectedOptions[0].text") == "none"
    labels = mistakes.locator("option").all_inner_texts()
    assert MISTAKES["unhanded"].label not in labels


def test_it_plays_and_pauses(figure):
    box = figure()
    slider = box.get_by_role("slider", name="Moment")
    before = int(slider.input_value())
    box.get_by_role("button", name="Play").press("Enter")
    box.page.wait_for_timeout(1500)
    box.get_by_role("button", name="Pause").press("Enter")
    at = int(slider.input_value())
    assert at > before
    box.page.wait_for_timeout(1000)
    assert int(slider.input_value()) == at


def test_a_phone_shows_it_whole(figure):
    box = figure("phone")
    mistakes = box.get_by_label("Mistake")
    for kernel in PLANS:
        box.get_by_label("Kernel").select_option(label=kernel)
        for mistake in MISTAKES.values():
            if kernel in mistake.edits:
                mistakes.select_option(label=mistake.label)
                assert box.bounding_box()["x"] >= 0
                assert box.evaluate("x => x.scrollWidth - x.clientWidth") <= 0
    for tall in box.locator(".explorer-live table").all():
        assert tall.bounding_box()["x"] >= box.bounding_box()["x"]
    assert box.page.evaluate(OVERFLOW) <= 0
    for control in box.locator("select, button, input").all():
        assert control.bounding_box()["height"] >= 24
    assert not box.page.errors


@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_in_what_was_operated(figure, width: str):
    box = figure(width)
    box.get_by_label("Mistake").select_option(label=MISTAKES["early"].label)
    assert not axe.violations(box.page, THEMES, BOX)


def test_without_scripts_there_is_a_picture_and_a_table(browser, address):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address + PAGE)
    box = page.locator('[data-explorer="phases"]')
    assert box.locator(".explorer-still svg").is_visible()
    assert box.locator("table").is_visible()
    assert box.locator("select, button, input").count() == 0
    context.close()


def test_paper_has_the_still_picture(figure):
    box = figure()
    assert not box.locator(".explorer-still").is_visible()
    box.page.emulate_media(media="print")
    assert box.locator(".explorer-still svg").is_visible()
    assert not box.locator(".explorer-live").is_visible()


def test_nothing_moves_by_itself_for_who_asked_for_that(browser, address):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.goto(address + PAGE)
    box = page.locator(BOX)
    box.wait_for(state="visible")
    assert box.get_by_role("button", name="Step").is_visible()
    assert box.get_by_role("button", name="Play").count() == 0
    context.close()


def test_the_page_loads_its_script_and_has_its_words(site, soups: dict):
    loaded = [x["src"] for x in soups[PAGE].select('script[src*="explorers/"]')]
    names = [x.partition("?")[0].rpartition("/")[2] for x in loaded]
    assert names == ["frame.js", "phases.js"]
    box = soups[PAGE].select_one('[data-explorer="phases"]')
    words = box.select_one(".explorer-words").get_text()
    for suffix in (".md", ".ipynb"):
        assert words in (site / PAGE).with_suffix(suffix).read_text(encoding="utf-8")
