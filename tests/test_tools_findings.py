"""The gallery's findings are what the tools say; checkers' reports are read."""

import sys

import pytest
import torch
import triton

from tilebook import compile_only, microscope
from tilebook.hopper.launching import describe
from tilebook.tools import bugs, findings, sanitizer

SAID = {
    "out of bounds": "program (3, 0, 0), line 53: load of x_ptr[1000]",
    "int32 overflow": "x_ptr[-2147483648]",
    "one element too many": "past its end",
    "index from data": "no such row",
    "race between programs": "race on 1 element of total_ptr",
    "race without harm so far": "the same value each time",
    "tail not written": "out_ptr: 232 elements that nobody wrote, from 768 on",
    "missing wait": "ends without a wait for the load",
    "missing fence": "no fence between",
    "slot freed early": "of 16 orders are wrong",
    "hang": "nobody can go on: consume waits for arrived[1]",
    "misaligned descriptor": "strides must be 16-byte aligned",
    "scattered requests": "32 sectors a request where 4 would do",
    "spills": "bytes spilled by each thread",
}


@pytest.mark.parametrize("one", findings.FINDINGS, ids=lambda one: one.kind)
def test_a_finding_is_the_tools_own(one):
    assert SAID[one.kind] in one.find()


def test_the_table_has_them_all():
    found = findings.table()
    assert list(found.index) == list(SAID)
    assert found["finding"].str.len().max() <= 220
    assert found["finding"]["tail not written"] == SAID["tail not written"]


def test_the_mends_have_no_findings():
    assert bugs.unwaited(right=True) == ""
    assert bugs.unfenced(right=True) == ""
    assert bugs.misaligned(columns=32) == ""
    index, table, out = torch.tensor([0, 3, 7]), torch.arange(8.0), torch.zeros(3)
    look = microscope.look(
        bugs.looked_up_kernel, (1,), index, table, out, 3, 8, BLOCK=4
    )
    assert look.error is None
    assert out.tolist() == [0, 3, 7]


def ptx(kernel, **meta):
    x = torch.zeros(2 * bugs.SIDE, bugs.SIDE, dtype=torch.bfloat16)
    described = [describe(x, bugs.SIDE, bugs.SIDE, False) for _ in range(2)]
    return compile_only.compile(kernel, *described, **meta).ptx


def test_nobody_else_waits():
    assert "try_wait" not in ptx(bugs.copied_kernel, WAIT=False)
    assert "try_wait" in ptx(bugs.copied_kernel, WAIT=True)


def test_later_compilers_put_the_fence_in():
    forgotten = ptx(bugs.doubled_kernel, FENCE=False).count("fence.proxy.async")
    assert forgotten == (not triton.__version__.startswith("3.6."))
    assert ptx(bugs.doubled_kernel, FENCE=True).count("fence.proxy.async") == 1


# compute-sanitizer.

LOG = """\
========= COMPUTE-SANITIZER
a line of the program's
========= Invalid __global__ read of size 16 bytes
=========     at square_unmasked_kernel+0x1f0 in bounds.py:53
=========     by thread (122,0,0) in block (3,0,0)
=========     Access at 0x7f0c4fa00fa0 is out of bounds
=========     and is 1 bytes after the nearest allocation at 0x7f0c4fa00 of size 4000
=========     Saved host backtrace up to driver entry point at kernel launch time
=========
========= Error: Race reported between Write access at add(int *)+0x40 in a.cu:3
=========     and Read access at add(int *)+0x60 in a.cu:4 [32 hazards]
=========
========= ERROR SUMMARY: 2 errors
"""


def test_reports_are_read():
    first, second = sanitizer.parse(LOG)
    assert first == (
        "Invalid __global__ read of size 16 bytes",
        "square_unmasked_kernel",
        "bounds.py:53",
        (3, 0, 0),
        (122, 0, 0),
    )
    assert second.what.startswith("Race reported between Write access")
    assert sanitizer.parse("========= ERROR SUMMARY: 0 errors\n") == ()


def test_a_function_is_checked_in_a_process_of_its_own(monkeypatch, tmp_path):
    fake = tmp_path / "compute-sanitizer"
    fake.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        "assert os.environ['PYTORCH_NO_CUDA_MEMORY_CACHING'] == '1'\n"
        "log = sys.argv[sys.argv.index('--log-file') + 1]\n"
        f"open(log, 'w').write({LOG!r})\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(sanitizer.shutil, "which", lambda name: str(fake))
    assert len(sanitizer.sanitize(sanitizer.stray)) == 2
    fake.write_text(f"#!{sys.executable}\nraise SystemExit('no such device')\n")
    with pytest.raises(RuntimeError, match="no such device"):
        sanitizer.sanitize(sanitizer.stray)
    with pytest.raises(ValueError, match="tool must be"):
        sanitizer.sanitize(sanitizer.stray, tool="leakcheck")


@pytest.mark.gpu
@pytest.mark.slow
def test_memcheck_finds_the_planted_stray():
    if sanitizer.shutil.which("compute-sanitizer") is None:
        pytest.skip("compute-sanitizer is not installed")
    found = sanitizer.sanitize(sanitizer.stray)
    assert {report.kernel for report in found} == {"square_unmasked_kernel"}
    assert {report.program for report in found} == {(3, 0, 0)}
    # It ends at the first line that strays, the load's.
    assert all("__global__" in report.what for report in found)
