"""Kernels that run in the page, tried as a reader would."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from playwright.sync_api import Locator, Page, expect

from . import axe
from .conftest import ROOT, SITE, THEMES

RUNTIME = SITE / "_static" / "runtime"
CHAPTER = "chapters/parallel.html"
MASKED = "parallel.masked.add_kernel"
READY = 60_000
"""Milliseconds in which Python is there, however busy the machine."""
KERNEL = """@triton.jit
def double_kernel(
    x_ptr, out_ptr, m, n, stride_m, stride_n,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):
    offs_m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    offs_n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (offs_m < m)[:, None] & (offs_n < n)[None, :]
    x = tl.load(
        x_ptr + offs_m[:, None] * stride_m + offs_n[None, :] * stride_n,
        mask=mask, other=0.0,
    )
    tl.store(out_ptr + offs_m[:, None] * n + offs_n[None, :], 2 * x, mask=mask)
"""
LOOP = "while True:\n    pass\n"
# All programs in one worker, which is what a page starts for them.
EVERY = """async ([programs, base]) => {
    const worker = new Worker(`${base}_static/run/worker.mjs?v=0`, {type: "module"});
    const found = {};
    for (const [name, source] of Object.entries(programs)) {
        let said = "";
        found[name] = await new Promise((resolve) => {
            worker.onmessage = ({data}) => {
                if (data.type === "said") said += data.text;
                if (data.type === "broken") resolve({said, error: data});
                if (data.type === "done") resolve({said, error: data.result.error});
            };
            worker.postMessage({source});
        });
    }
    worker.terminate();
    return found;
}"""

pytestmark = [
    pytest.mark.skipif(
        not RUNTIME.is_dir(), reason="built without make browser-runtime"
    ),
    pytest.mark.xdist_group("run"),
    pytest.mark.slow,
]


def part(name: str) -> ModuleType:
    """A module of the book's extension."""
    folder = str(ROOT / "book" / "_ext")
    if folder not in sys.path:
        sys.path.append(folder)
    return importlib.import_module(f"bookext.{name}")


def place(page: Page, name: str) -> Locator:
    """Where a program is run."""
    return page.locator(f'[data-run="{name}"]')


def press(where: Locator, text: str) -> None:
    """Press one of a place's buttons."""
    where.get_by_role("button", name=text).first.click()


def ended(where: Locator, said: str) -> None:
    """Wait for a run's end."""
    expect(where.locator(".run-status")).to_contain_text(said, timeout=READY)


def answer(name: str) -> str:
    """A puzzle's solution, with its check."""
    from tilebook.puzzles import puzzle, solutions
    from tilebook.testing.source import python_function

    one = puzzle(name)
    home = python_function(getattr(solutions, one.kernel)).__module__
    text = part("whole").whole(home, one.kernel)
    return (
        f'{text}\nfrom tilebook.testing import check\n\ncheck("{name}", {one.kernel})\n'
    )


def test_nothing_is_loaded_before_a_button_is_pressed(open_page: Callable):
    loaded: list[str] = []
    page = open_page("book/index.html")
    page.on("request", lambda request: loaded.append(request.url))
    page.goto(page.url.replace("book/index.html", CHAPTER))
    page.wait_for_load_state("networkidle")
    assert not [url for url in loaded if "/runtime/" in url or ".mjs" in url]
    sizes = [
        path.stat().st_size
        for path in (SITE / "_static" / "run").iterdir()
        if path.name in ("run.js", "run.css")
    ]
    html = (SITE / CHAPTER).read_text(encoding="utf-8")
    marks = sum(len(x) for x in html.splitlines() if "run-place" in x)
    assert sum(sizes) + marks < 30_000


def test_a_reader_runs_changes_and_stops_a_kernel(open_page: Callable):
    page = open_page(CHAPTER)
    where = place(page, MASKED)
    press(where, "Run")
    ended(where, "Done")
    output = where.locator(".run-output")
    expect(output).to_contain_text("out (1000,), float32: right.")
    # What each program touches is there to be stepped through.
    where.locator("summary").click()
    steps = where.locator(".run-steps")
    expect(steps).to_contain_text("Program (0,) reads 128 of x, 128 of y; writes 128")
    steps.get_by_role("button", name="Step", exact=True).click()
    expect(steps).to_contain_text("Program (1,) reads")
    steps.get_by_role("combobox", name="Steps").select_option("access by access")
    expect(steps).to_contain_text("reads 128 elements of x, 0 to 127. Line")
    # A mask of one element too many is named, with program, element and line.
    press(where, "Edit")
    field = where.get_by_role("textbox")
    text = field.input_value()
    assert "def add_kernel" in text
    field.fill(text.replace("offs < n", "offs <= n"))
    field.press("Control+Enter")
    ended(where, "Ended with an error")
    said = "program (7, 0, 0), line 13: load of x_ptr[1000], which has 1000 elements"
    expect(where.locator(".run-error")).to_contain_text(said)
    expect(steps).to_contain_text("Program (7,): load of x[1000]")
    expect(where.locator(".run-numbers .wrong")).to_have_count(2)
    # A loop without an end is stopped, and the next run starts anew.
    field.fill(LOOP)
    press(where, "Run")
    ended(where, "Running")
    press(where, "Stop")
    ended(where, "Stopped.")
    # What was written is still there when the reader comes back.
    page.reload()
    press(where, "Edit")
    assert where.get_by_role("textbox").input_value() == LOOP
    press(where, "Reset")
    assert where.get_by_role("textbox").input_value() == text
    press(where, "Run")
    ended(where, "Done")
    assert not page.errors + page.foreign


def test_a_race_is_marked(open_page: Callable):
    page = open_page(CHAPTER)
    where = place(page, "parallel.bugs.sharing.scale_moved_back_kernel")
    press(where, "Run")
    ended(where, "Ended with an error")
    expect(where.locator("summary")).to_contain_text("with 2 races")
    expect(where.locator(".run-notes")).to_contain_text("race on 24 elements of x_ptr")
    assert where.locator("svg path.race").get_attribute("d").count("M") == 24


def test_the_editor_is_used_by_keyboard(open_page: Callable):
    page = open_page(CHAPTER)
    where = place(page, MASKED)
    press(where, "Edit")
    field = where.get_by_role("textbox")
    expect(field).to_be_focused()
    field.press("Control+a")
    page.keyboard.type("for i in range(3):\nprint(i)")
    assert field.input_value() == "for i in range(3):\n    print(i)"
    field.press("Control+a")
    field.press("Tab")
    assert field.input_value() == "    for i in range(3):\n        print(i)"
    field.press("Shift+Tab")
    field.press("Control+/")
    assert field.input_value() == "# for i in range(3):\n    # print(i)"
    field.press("Control+z")
    assert field.input_value() == "for i in range(3):\n    print(i)"
    shown = where.locator(".run-sheet pre")
    assert shown.inner_text().rstrip("\n") == field.input_value()
    assert shown.locator(".k").all_inner_texts() == ["for", "in"]
    field.press("Control+Enter")
    ended(where, "Done")
    expect(where.locator(".run-output")).to_contain_text("0\n1\n2")
    # Escape lets Tab leave, as everywhere else on the page.
    field.focus()
    field.press("Escape")
    field.press("Tab")
    expect(field).not_to_be_focused()
    assert field.input_value() == "for i in range(3):\n    print(i)"


@pytest.mark.parametrize("width", ["desktop", "phone"])
def test_axe_finds_nothing_while_it_is_in_use(open_page: Callable, width: str):
    page = open_page(CHAPTER, width)
    where = place(page, "parallel.bugs.bounds.negate_one_more_kernel")
    press(where, "Edit")
    press(where, "Run")
    ended(where, "Ended with an error")
    expect(where.locator(".run-steps")).to_contain_text("out of bounds")
    inside = {"include": [[".run-place.editing"]]}
    assert not axe.violations(page, THEMES, inside)
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(overflow) <= 0


def test_puzzles_are_solved_in_the_page(open_page: Callable):
    page = open_page("book/puzzles.html")
    for number in range(1, 9):
        name = f"puzzle-{number:02}"
        where = place(page, name)
        press(where, "Solve it here")
        field = where.get_by_role("textbox")
        if number == 1:
            press(where, "Check")
            ended(where, "Ended with an error")
            expect(where.locator(".run-error")).to_contain_text("never written")
        field.fill(answer(name))
        press(where, "Check")
        ended(where, "Solved.")
    expect(page.locator(".run-progress")).to_contain_text("8 of 27 solved")
    page.reload()
    expect(page.locator(".run-progress")).to_contain_text("8 of 27 solved")
    expect(place(page, "puzzle-03").locator(".run-solved")).to_be_visible()
    expect(page.locator(".run-solved")).to_have_count(8)
    # The notebook has what was written, and stubs for the rest.
    with page.expect_download() as download:
        page.get_by_role("button", name="Save as a notebook").click()
    notebook = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    cells = {cell["id"]: "".join(cell["source"]) for cell in notebook["cells"]}
    assert cells["puzzle-08"] == answer("puzzle-08").rstrip()
    assert "pass  # your lines" in cells["puzzle-09"]
    assert not page.errors + page.foreign


def test_any_kernel_is_pasted_launched_and_passed_on(open_page: Callable):
    page = open_page("book/scratch.html")
    where = place(page, "scratch.start")
    field = where.get_by_role("textbox", name="Program")
    expect(field).to_have_value(re.compile("def add_kernel"))
    expect(page.get_by_text("Paste a kernel, or change this one.")).to_be_visible()
    field.fill(KERNEL)
    where.get_by_label("Shape").fill("20, 50")
    press(where, "Write a launch")
    expect(field).to_have_value(re.compile(r"double_kernel\[\(cdiv\(20, 16\)"))
    text = field.input_value()
    press(where, "Run")
    ended(where, "Done")
    expect(where.locator(".run-output pre")).to_contain_text("...")
    press(where, "Copy a link")
    expect(where.locator(".run-status")).to_contain_text("Copied: a link of")
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url
    # Whoever gets it sees the program; nothing runs by itself.
    other = open_page("book/scratch.html" + link[link.index("#") :])
    there = place(other, "scratch.start")
    expect(there.get_by_role("textbox", name="Program")).to_have_value(text)
    expect(there.locator(".run-status")).to_contain_text("read it before you run it")
    assert not other.evaluate(
        "performance.getEntriesByType('resource')"
        ".some(x => x.name.includes('/runtime/pyodide'))"
    )
    press(there, "Run")
    ended(there, "Done")
    assert not axe.violations(page, THEMES)
    broken = open_page("book/scratch.html#p=!!!")
    field = place(broken, "scratch.start").get_by_role("textbox", name="Program")
    expect(field).to_have_value(re.compile("def add_kernel"))
    assert not page.errors + other.errors + broken.errors


def test_every_program_does_in_chromium_what_it_does_natively(
    open_page: Callable, address: str
):
    programs = part("programs")
    texts = {programs.short(x): programs.program(x) for x in programs.places()}
    page = open_page("book/index.html")
    found = page.evaluate(EVERY, [texts, address])
    assert not page.foreign
    assert found.keys() == texts.keys()
    # What is a bug says so, and every other result is within its bounds.
    for name, one in found.items():
        bug = ".bugs." in name
        assert bug == (one["error"] is not None), f"{name}: {one['error']}"
        assert bug or ": right." in one["said"], name


def test_the_parts_are_the_pinned_ones(site: Path):
    manifest = json.loads((ROOT / ".runtime" / "manifest.json").read_text())
    assert {path.name for path in RUNTIME.iterdir()} == {
        *manifest["files"],
        "programs",
        "tilebook.zip",
    }
