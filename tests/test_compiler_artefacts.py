"""What the page says of stages, targets, the cache, edited stages and C files."""

import ctypes
import hashlib
import re
import shutil
import subprocess

import pytest
import torch
import triton

from tilebook import compile_only
from tilebook.compiler import (
    ahead,
    cache,
    conclusions,
    experiments,
    override,
    stages,
    twins,
    vocabulary,
)

VECTOR = torch.empty(4096, dtype=torch.float16, device="meta")
SUM = (VECTOR, VECTOR, VECTOR, 4096)


@pytest.mark.parametrize("stage", stages.STAGES)
def test_every_line_has_a_note_and_every_note_a_line(stage):
    found = stages.noted(stage)
    assert [line for line, note in found if not note] == []
    assert {note for _, note in found} == {note for _, note in stages.NOTES[stage]}
    shown = stages.annotated(stage).splitlines()
    assert max(map(len, shown)) <= 106
    assert sum(line.startswith("    ") for line in shown) == len(found)
    mark = ";" if stage == "llir" else "//"
    assert shown[0].startswith(mark)


def test_the_sums_numbers_are_the_notes():
    found = dict.fromkeys(stages.STAGES)
    for stage in found:
        found[stage] = stages.lines(stages.small(), stage)
    assert (
        "sizePerThread = [8], threadsPerWarp = [32], warpsPerCTA = [4]"
        in (found["ttgir"][0])
    )
    for stage, load, store in (
        ("ptx", "ld.global.v4.b32", "st.global.v4.b32"),
        ("sass", "LDG.E.128", "STG.E.128"),
    ):
        text = "\n".join(found[stage])
        assert (text.count(load), text.count(store)) == (2, 1)
    assert sum("fadd <2 x half>" in line for line in found["llir"]) == 4
    assert sum("add.f16x2" in line for line in found["ptx"]) == 4
    assert sum(bool(re.search(r"HADD2|HFMA2", x)) for x in found["sass"]) == 4
    assert sum("setp" in line for line in found["ptx"]) == 1
    assert sum("setp.lt" in line for line in found["ptx"]) == 1
    sass = "\n".join(found["sass"])
    # The mask is turned over, and two sums are products.
    assert sass.count("ISETP.GE") == 1
    assert sass.count("@!P0 LDG") == 2
    assert (sass.count("HADD2 "), sass.count("HFMA2.MMA")) == (2, 2)


def test_the_tree_is_pythons():
    found = stages.tree(twins.add_kernel).splitlines()
    assert found[:3] == ["Assign", "  Name offs", "  BinOp"]
    assert sum(line.endswith("Attribute load") for line in found) == 2
    assert "    Lt" in found


@pytest.mark.parametrize("name", vocabulary.EXPLAINED)
def test_new_words_are_new(name):
    words = vocabulary.EXPLAINED[name]
    found = vocabulary.table(name)
    assert list(dict.fromkeys(found["stage"])) == ["ttgir", "ptx", "sass"]
    assert set(found["new"]) == set(words)
    assert len(found) == len(words)
    known = [stages.small(), stages.row()][: 1 + (name == "product")]
    for stage, word in zip(found["stage"], found["new"], strict=True):
        assert all(word not in vocabulary.words(each, stage) for each in known)


def test_what_softmax_alone_shows():
    row = stages.row()
    # 5 + 2 shuffles each, of 32 lanes and of 4 warps' results.
    assert vocabulary.words(row, "ptx")["shfl.sync.bfly.b32"] == 14
    # One reciprocal, after divisor and numerators have been scaled; no correction.
    sass = "\n".join(stages.lines(row, "sass"))
    assert "FFMA" not in sass
    assert sass.count("MUFU.RCP") == 1
    before = sass[: sass.index("MUFU.RCP")]
    assert re.search(r"@P\d FMUL (R\d+), \1, 0\.25 ", before)
    assert re.search(r"@!P\d FMUL (R\d+), \1, 16777216 ", before)


def test_targets_differ_as_the_page_says():
    found = stages.targets()
    product = {t: found.loc[f"product, {t}"] for t in stages.TARGETS}
    assert [product[t]["unit"] for t in stages.TARGETS] == [
        "mma.sync",
        "wgmma",
        "tcgen05",
        "mfma",
    ]
    assert product["sm_80"]["sums"] == product["sm_90"]["sums"] == "nvidia_mma"
    assert product["sm_100"]["sums"] == "tensor_memory_encoding"
    assert product["gfx942"]["sums"] == "amd_mfma"
    # All sums at once: 128 by 128 of 128 threads.
    loaded = re.findall(
        r"tmem_load .* tensor<(\S+?)xf32", stages.product("sm_100").ttgir
    )
    assert loaded == ["128x128"]
    for kernel in ("small", "row", "product"):
        assert [found.loc[f"{kernel}, {t}"]["warp"] for t in stages.TARGETS] == [
            *("32", "32", "32", "64")
        ]
    assert product["gfx942"]["copies"] == 0
    assert "ttg.local_store" in stages.product("gfx942").ttgir
    assert "ttg.local_store" not in stages.product("sm_90").ttgir
    assert "sizePerThread = [4]" in stages.small("gfx942").ttgir
    assert product["gfx942"]["loads"] == "8 x 128"
    assert all(product[t]["copies"] > 0 for t in stages.TARGETS[:3])
    assert found.loc["small, gfx942"]["loads"] == "2 x 64"
    assert found.loc["small, sm_90"]["loads"] == "2 x 128"
    registers = [product[t]["registers"] for t in stages.TARGETS[:3]]
    assert registers == sorted(registers, reverse=True)
    assert stages.sums("module {}") == ""


# The cache.


def test_the_cache_holds_every_stage():
    found = cache.dissect(twins.add_kernel, *SUM, BLOCK=1024)
    names = {name.rpartition(".")[2] for name in found.sizes}
    assert names >= {"source", "ttir", "ttgir", "llir", "ptx", "cubin", "json"}
    assert all(found.table()["is"])
    assert all(found.sizes.values())
    assert found.metadata["shared"] == 0
    assert found.metadata["num_warps"] == 4
    assert "add_kernel.cubin" in found.group
    assert re.fullmatch(r"[A-Z2-7]{52}", found.folder)


def test_what_the_folder_hangs_on():
    def folder(n=4096, kernel=twins.add_kernel, **meta):
        args = (*SUM[:3], n) if kernel is twins.add_kernel else (*SUM[:2], n, n, n)
        return cache.dissect(kernel, *args, **{"BLOCK": 1024} | meta).folder

    same = folder()
    assert folder(8192) == same  # another multiple of 16
    assert folder(4097) != same
    assert folder(num_warps=8) != same
    assert folder(BLOCK=512) != same
    assert folder(target="sm_80") != same


# Edited stages.


@pytest.mark.parametrize("width", [1, 2, 4])
def test_a_line_of_ttgir_decides_on_widths(width):
    found, path = override.edited(
        twins.add_kernel, *SUM, BLOCK=1024, stage="ttgir", edit=override.narrowed(width)
    )
    assert found.evidence.global_loads == {16 * width: 16 // width}
    assert found.evidence.global_stores == {16 * width: 8 // width}
    assert path.endswith(".ttgir")
    assert stages.small().evidence.global_loads == {128: 2}


def test_ptx_is_taken_as_it_is():
    found, _ = override.edited(
        twins.add_kernel, *SUM, BLOCK=1024, stage="ptx", edit=override.uncached
    )
    assert found.sass.count("LDG.E.NA.128") == 2
    assert found.ttgir == stages.small().ttgir


@pytest.mark.skipif(
    not triton.__version__.startswith(("3.6.", "3.7.")),
    reason="the record is of 3.6, the page of 3.7",
)
def test_versions_of_the_record_and_the_page_make_the_same():
    edits = [("ttgir", override.narrowed(width)) for width in (1, 2, 4)]
    found = [stages.small()]
    for stage, edit in (*edits, ("ptx", override.uncached)):
        kernel, _ = override.edited(
            twins.add_kernel, *SUM, BLOCK=1024, stage=stage, edit=edit
        )
        found.append(kernel)
    codes = ["\n".join(stages.lines(each, "sass")) for each in found]
    assert [hashlib.sha1(code.encode()).hexdigest()[:8] for code in codes] == [
        *("0a3950b2", "c9eb7405", "7b1d0ae8", "bd7892a8", "31c9cbb1")
    ]


def test_files_are_named_by_what_is_in_them(tmp_path):
    one, two = (override.written(text, "ptx", tmp_path) for text in ("a", "b"))
    assert one != two
    assert override.written("a", "ptx", tmp_path) == one
    assert len(list(tmp_path.iterdir())) == 2
    with pytest.raises(ValueError, match="stage must be"):
        override.written("a", "cubin", tmp_path)
    with pytest.raises(ValueError, match="edit must change the text"):
        override.edited(
            twins.add_kernel, *SUM, BLOCK=1024, stage="ttgir", edit=lambda text: text
        )


def test_a_file_that_changes_under_its_name_is_not_seen(tmp_path):
    path = tmp_path / "edited.ttgir"

    def loads(width):
        path.write_text(override.narrowed(width)(stages.small().ttgir))
        found = compile_only.compile(
            twins.add_kernel, *SUM, BLOCK=1024, ir_override=str(path)
        )
        return found.evidence.global_loads

    assert loads(4) == {64: 4}
    assert loads(2) == {64: 4}


def test_the_sum_that_is_measured():
    x, y = torch.randn(2, 4096).half()
    assert torch.equal(override.add(x, y), x + y)
    assert override.add(x[:0], y[:0]).shape == (0,)
    with pytest.raises(TypeError, match="y must be float16"):
        override.add(x, y.float())
    with pytest.raises(ValueError, match="y must be a multiple of 16"):
        override.add(x, y[::2])
    with pytest.raises(ValueError, match="x must be a multiple of 16"):
        override.add(x[:100], y[:100])


@pytest.mark.gpu
@pytest.mark.parametrize("edit", ["1", "2", "4", "uncached"])
def test_edited_kernels_add(edit):
    x, y = torch.randn(2, 2**16, device="cuda").half()
    assert torch.equal(experiments._edited(edit).fn(x, y), x + y)


def test_conclusions_are_of_rows():
    rates = {"as compiled": 3000.0, "4 neighbours": 2900.0, "2 neighbours": 2000.0,
             "1 neighbour": 2850.0, "L1 left out": 3001.0}  # fmt: skip

    class Rows:
        def one(self, impl, dtype, regime, n):
            assert (dtype, regime, n) == ("float16", "cold", 2**27)
            return {"gbps": rates[impl]}

    assert conclusions.width_matters_little(Rows()) == (True, "0.950 of it")
    for spoilt in (2600.0, 3100.0):
        rates["1 neighbour"] = spoilt
        assert not conclusions.width_matters_little(Rows())[0]
    assert conclusions.four_gbps(Rows()) == 2900
    assert conclusions.pair_gbps(Rows()) == 2000
    assert conclusions.uncached_gbps(Rows()) == 3001


# C.


def test_a_kernel_in_c(tmp_path):
    found = stages.product()
    text = ahead.source(found)
    assert text.count("0x") == len(found.asm["cubin"])
    assert "int32_t stride_om)" in text
    assert "49152 > 48 * 1024" in text
    assert ahead.aligned(found) == list(ahead.parameters(found))
    odd = compile_only.compile(twins.add_kernel, *SUM[:3], 4097, BLOCK=1024)
    assert ahead.aligned(odd) == ["x_ptr", "y_ptr", "out_ptr"]
    broken = compile_only.Artefact("1add", "sm_90", odd.asm, odd.metadata)
    with pytest.raises(RuntimeError, match="error"):
        ahead.library(broken, tmp_path, link=False)


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_c_compiles(tmp_path):
    for found in (stages.small(), stages.row(), stages.product()):
        result = ahead.library(found, tmp_path, link=False)
        assert result.read_bytes()[:4] == b"\x7fELF"
        if shutil.which("nm"):
            names = subprocess.run(
                ["nm", str(result)], capture_output=True, text=True, check=True
            ).stdout
            assert f" T {found.name}\n" in names
            assert " U cuLaunchKernel\n" in names


@pytest.mark.gpu
def test_c_runs(tmp_path):
    major, minor = torch.cuda.get_device_capability()
    found = stages.small(f"sm_{10 * major + minor}")
    library = ctypes.CDLL(str(ahead.library(found, tmp_path)))
    x, y = torch.randn(2, 4096, device="cuda").half()
    out = torch.full_like(x, 77)
    pointers = (ctypes.c_uint64(each.data_ptr()) for each in (x, y, out))
    said = library.add_kernel(None, 4, 1, 1, *pointers, ctypes.c_int32(4096))
    torch.cuda.synchronize()
    assert said == 0
    assert torch.equal(out, x + y)
