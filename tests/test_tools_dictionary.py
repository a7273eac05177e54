"""Every message of the dictionary is still said, by the Triton that is installed."""

import re

import pytest
import torch
import triton

from tilebook import compile_only
from tilebook.tools import dictionary, mistakes

HERE = [entry for entry in dictionary.ENTRIES if entry.here]
GPU = [entry for entry in dictionary.ENTRIES if entry.gpu]


@pytest.mark.parametrize("entry", HERE, ids=lambda entry: entry.name)
def test_the_message_is_still_said(entry):
    said = dictionary.said(entry.name)
    assert re.search(entry.pattern, said), said
    assert entry in dictionary.look_up(said)


@pytest.mark.gpu
@pytest.mark.parametrize("entry", GPU, ids=lambda entry: entry.name)
def test_a_launch_says_it(entry):
    assert re.search(entry.pattern, dictionary.said(entry.name))


def test_there_are_enough_and_their_names_are_keys():
    assert len(dictionary.DICTIONARY) == len(dictionary.ENTRIES) >= 30
    assert len(HERE) >= 28
    for entry in dictionary.ENTRIES:
        assert entry.cause.endswith(".")
        assert entry.mend.endswith(".")


def test_one_message_means_one_thing_but_for_one():
    several = {
        entry.name: [e.name for e in dictionary.look_up(dictionary.said(entry.name))]
        for entry in HERE
    }
    both = ["strided-descriptor", "outside-a-kernel"]
    for name, found in several.items():
        assert found == (both if name in both else [name])
    assert dictionary.look_up("all is well") == ()


def test_every_mistake_has_an_entry():
    known = {entry.code for entry in dictionary.ENTRIES}
    made = {name for name in vars(mistakes) if name.endswith("_kernel")}
    assert made - known == {"tuned_kernel", "greedy_kernel"}


def test_what_the_last_line_hides():
    x = torch.empty(4096, device="meta")
    for entry in dictionary.ENTRIES:
        if not entry.hides or entry.name == "strided-descriptor":
            continue
        kernel = getattr(mistakes, entry.code)
        with pytest.raises(triton.CompilationError) as raised:
            compile_only.compile(kernel, x, x, 100, BLOCK=64)
        assert str(raised.value).rstrip().endswith("^")
        assert re.search(entry.pattern, str(raised.value.__cause__))


def test_what_a_later_triton_accepts():
    between = dictionary.DICTIONARY["between"]
    if between.here:
        return
    with pytest.raises(LookupError, match=f"triton {triton.__version__}"):
        dictionary.said("between")


def test_the_table_holds_what_was_said():
    entries = [dictionary.DICTIONARY[n] for n in ("ragged-range", "plain-helper")]
    found = dictionary.table([*entries, dictionary.DICTIONARY["too-much-shared"]])
    assert list(found["message"][:2]) == [
        "arange's range must be a power of 2",
        "Unsupported function referenced: <function helper>",
    ]
    assert found["message"]["too-much-shared"].strip("()").startswith("out of resource")
    assert found.loc["ragged-range", "mend"].startswith("Round it up")


def test_a_reason_is_the_line_that_tells():
    assert dictionary.reason(ValueError("at 1:2:\n  x\n  ^\nValueError('no')")) == "no"
    assert dictionary.reason(RuntimeError("one\ntwo")) == "two"
    outer = triton.CompilationError("x = 1", None, None)
    outer.args = ()
    inner = KeyError("a name")
    empty = RuntimeError("")
    empty.__cause__ = inner
    assert dictionary.reason(empty) == "'a name'"
    assert dictionary.reason(RuntimeError("")) == ""
