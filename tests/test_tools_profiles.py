"""Proton's files and ncu's tables are read; with a GPU, really made."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from tilebook.measure import Roof
from tilebook.tools import case, counters, declared, examples, nsight, profiled, proton

EM = "\N{EM SPACE}"
ROOF = Roof(gbps=3000.0, tflops=800.0)


def leaf(name, ns, **metrics):
    known = {"count": 1, "device_id": "0", "device_type": "CUDA", "time (ns)": ns}
    return {
        "children": [],
        "frame": {"name": name, "type": "function"},
        "metrics": {**known, **metrics},
    }


def scope(name, *children, **metrics):
    frame = {"name": name, "type": "function"}
    return {"children": list(children), "frame": frame, "metrics": metrics}


DEVICES = {
    "CUDA": {
        "0": {
            "arch": "90",
            "bus_width": 5120,
            "clock_rate": 1980000,
            "memory_clock_rate": 2619000,
            "num_sms": 132,
        }
    }
}
TREE = [
    scope(
        "ROOT",
        scope(
            "forward",
            leaf("copy_kernel", 100_000, bytes=240_000_000),
            leaf("matmul_kernel", 200_000, flops16=80e9, bytes=1_000_000),
            scope("__proton_launch_metadata", leaf("fill", 5_000)),
        ),
        leaf("copy_kernel", 100_000, bytes=240_000_000),
        **{"count": 0, "time (ns)": 0},
    ),
    DEVICES,
]


def test_a_tree_is_read_and_added_up():
    profile = proton.parse(json.dumps(TREE))
    assert profile.devices["CUDA 0"]["num_sms"] == 132
    assert profile.root.ms == pytest.approx(0.4)
    assert profile.root.calls == 3
    forward = profile.root.find("forward")
    assert (forward.ms, forward.calls) == (pytest.approx(0.3), 2)
    assert forward.bytes == 241_000_000
    assert forward.flops == 80e9
    with pytest.raises(ValueError, match="no scope or kernel 'backward', only ROOT"):
        profile.root.find("backward")


def test_utilisation_against_the_roofline():
    table = proton.parse(json.dumps(TREE)).table(ROOF)
    assert list(table.index[:3]) == ["ROOT", f"{EM}forward", f"{2 * EM}copy_kernel"]
    copy = table.loc[f"{2 * EM}copy_kernel"]
    assert copy["GB/s"] == pytest.approx(2400)
    assert (copy["limit"], copy["reached"]) == ("memory", pytest.approx(0.8))
    product = table.loc[f"{2 * EM}matmul_kernel"]
    assert product["TFLOP/s"] == pytest.approx(400)
    assert (product["limit"], product["reached"]) == ("arithmetic", pytest.approx(0.5))
    assert table["share"].iloc[0] == 1
    plain = proton.parse(json.dumps([scope("ROOT", leaf("a", 10))])).table()
    assert list(plain) == ["calls", "ms", "share"]


NODE = json.dumps(scope("ROOT"))


@pytest.mark.parametrize(
    "text",
    [
        *("", "{}", "[]", '[{"name": 1}]', "[1]", f"[{NODE}, 5]", f"[{NODE}, [1]]"),
        *(f'[{NODE}, {{"CUDA": 0}}]', f'[{NODE}, {{"CUDA": {{"0": 5}}}}]'),
        "[" * 100_000,
    ],
)
def test_what_is_no_tree_is_refused(text):
    with pytest.raises(ValueError, match="no tree of Proton's"):
        proton.parse(text)


def test_a_timeline_is_read(tmp_path):
    path = tmp_path / "x.chrome_trace"
    span = {"ph": "X", "pid": "Core0", "tid": "warp 0", "cat": "k"}
    found = [
        {**span, "name": "wait", "ts": 12.0, "dur": 3.0},
        {**span, "name": "load", "ts": 10.0, "dur": 2.0},
        {"ph": "M", "name": "thread_name", "pid": "Core0"},
    ]
    path.write_text(json.dumps({"traceEvents": found}))
    frame = proton.events(path)
    assert list(frame["name"]) == ["load", "wait"]
    assert list(frame["begin"]) == [0, 2]
    assert set(frame["track"]) == {"Core0 warp 0"}
    # One that hasn't ended.
    begun = {**span, "name": "store", "ts": 15.0}
    path.write_text(json.dumps([*found, begun]))
    assert list(proton.events(path)["name"]) == ["load", "wait"]
    path.write_text("{}")
    with pytest.raises(ValueError, match="no traceEvents"):
        proton.events(path)
    for text in ("[5]", '[{"ph": "X", "dur": 1}]', '[{"ph": "X", "dur": "long"}]'):
        path.write_text(text)
        with pytest.raises(ValueError, match="no trace of Proton's"):
            proton.events(path)


# Nsight Compute.

HEAD = '"ID","Process ID","Process Name","Host Name","Kernel Name","Context","Stream",'
HEAD += '"Block Size","Grid Size","Device","CC",'
WHO = '"{}","7","python3","h","{}","1","7","(128, 1, 1)","(4, 1, 1)","0","9.0",'
RAW = (
    "==PROF== Connected to process 7\n"
    + HEAD
    + '"dram__bytes_read.sum","gpu__time_duration.sum",'
    + '"dram__throughput.avg.pct_of_peak_sustained_elapsed"\n'
    + '"","","","","","","","","","","","byte","ns","%"\n'
    + WHO.format(0, "slow")
    + '"268,435,456","1,000,000","20.5"\n'
    + WHO.format(1, "fast")
    + '"268,435,456","180,000","n/a"\n'
    + "==PROF== Disconnected\n"
)
DETAILS = (
    "a line of the program's\n"
    + HEAD
    + '"Section Name","Metric Name","Metric Unit","Metric Value"\n'
    + WHO.format(0, "slow")
    + '"Command line profiler metrics","gpu__time_duration.sum","ns","1,000,000"\n'
    + WHO.format(0, "slow")
    + '"Command line profiler metrics","my__metric.sum","","3"\n'
)


def test_both_forms_of_the_table_are_read():
    raw = nsight.parse(RAW)
    assert list(raw) == ["kernel", "time", "read", "memory"]
    assert list(raw["kernel"]) == ["slow", "fast"]
    assert list(raw["time"]) == [1e6, 1.8e5]
    assert raw["memory"][0] == 20.5
    assert pd.isna(raw["memory"][1])
    details = nsight.parse(DETAILS)
    assert details.to_dict("records") == [
        {"kernel": "slow", "time": 1e6, "my__metric.sum": 3.0}
    ]


def test_what_stands_around_a_table_is_left_out():
    said = f'"begun", they said\n{RAW}"done"\n"' + '","' * 13 + '"\n'
    assert nsight.parse(said).equals(nsight.parse(RAW))
    assert nsight.parse("\N{BYTE ORDER MARK}" + RAW[RAW.index('"ID"') :]).equals(
        nsight.parse(RAW)
    )
    assert nsight.parse('"ID","of","mine"\n' + RAW).equals(nsight.parse(RAW))


def test_several_tables_follow_each_other():
    both = nsight.parse(RAW + DETAILS)
    assert list(both["kernel"]) == ["slow", "fast", "slow"]
    assert list(both["time"]) == [1e6, 1.8e5, 1e6]
    assert both["my__metric.sum"][2] == 3


def test_what_is_no_number_spoils_no_table():
    frame = nsight.parse(RAW.replace('"20.5"', '"(!) nan"').replace('"n/a"', '"(!) 7"'))
    assert pd.isna(frame["memory"][0])
    assert frame["memory"][1] == 7
    frame = nsight.parse(DETAILS.replace('"","3"', '"","CachePreferNone"'))
    assert frame["my__metric.sum"][0] == "CachePreferNone"
    assert frame["time"][0] == 1e6


def test_a_table_without_a_launch():
    header = "\n".join(RAW.splitlines()[:3])
    with pytest.raises(ValueError, match="a table of no launch: ==PROF== Connected"):
        nsight.parse(header)


def test_no_table_says_what_ncu_said():
    with pytest.raises(ValueError, match="ERR_NVGPUCTRPERM"):
        nsight.parse("==ERROR== ERR_NVGPUCTRPERM\n")
    with pytest.raises(ValueError, match="nothing"):
        nsight.parse("")


def test_the_command(monkeypatch):
    monkeypatch.setattr(nsight.shutil, "which", lambda name: f"/bin/{name}")
    found = nsight.command(case.run, ("wide", 64, 128), ["a.sum", "b.pct"], "log")
    assert found[:2] == ["/bin/ncu", "--csv"]
    assert found[found.index("--clock-control") + 1] == "none"
    assert found[found.index("--metrics") + 1] == "a.sum,b.pct"
    assert found[-4:] == [
        "tilebook.tools.profiled",
        "tilebook.tools.case",
        "run",
        '["wide", 64, 128]',
    ]
    assert "--kernel-name" not in found
    found = nsight.command(case.run, (), ["a.sum"], "log", ["one", "two"])
    assert found[found.index("--kernel-name") + 1] == "regex:^(one|two)$"
    with pytest.raises(ValueError, match="fn must be a function of a module"):
        nsight.command(lambda: None, (), [], "log")
    with pytest.raises(ValueError, match="args must be numbers and texts"):
        nsight.command(case.run, (torch.zeros(1),), [], "log")
    monkeypatch.setattr(nsight.shutil, "which", lambda name: None)
    with pytest.raises(FileNotFoundError, match="not installed"):
        nsight.command(case.run, (), [], "log")


def test_counters_run_it_and_read_its_log(monkeypatch, tmp_path):
    fake = tmp_path / "ncu"
    fake.write_text(
        f"#!{sys.executable}\nimport sys\n"
        "log = sys.argv[sys.argv.index('--log-file') + 1]\n"
        f"open(log, 'w').write({RAW!r})\n"
    )
    fake.chmod(0o755)
    monkeypatch.setattr(nsight, "_ncu", lambda: str(fake))
    assert list(counters(case.run, "wide", 64, 128)["kernel"]) == ["slow", "fast"]
    program = fake.read_text()
    fake.write_text(program.replace(repr(RAW), repr("\n".join(RAW.splitlines()[:3]))))
    with pytest.raises(RuntimeError, match="ncu failed: ==PROF== Connected"):
        counters(case.run, "wide", 64, 128)
    fake.write_text(f"#!{sys.executable}\nprint('no permission')\n")
    with pytest.raises(RuntimeError, match="ncu failed: no permission"):
        counters(case.run, "wide", 64, 128)


def test_what_runs_below_the_profiler(monkeypatch):
    seen = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    for name in ("start", "stop"):
        monkeypatch.setattr(
            torch.cuda.profiler, name, lambda name=name: seen.append(name)
        )
    monkeypatch.setattr(case, "run", lambda *args: seen.append(args))
    profiled.main(["tilebook.tools.case", "run", '["wide", 2]'])
    assert seen == [("wide", 2), "start", ("wide", 2), "stop"]


def test_a_picture_of_counters():
    picture = nsight.draw(nsight.parse(RAW))
    assert "slow: memory 20 %" in picture.alt
    assert "<path" in picture.figure._repr_svg_()


def test_counters_have_names_of_their_own():
    names = [counter.name for counter in nsight.COUNTERS]
    assert len(set(names)) == len(names) == len(nsight._NAMES)
    assert set(nsight.PERCENT) <= set(names)


def test_what_a_launch_declares(interpreted):
    kernel = SimpleNamespace(name="wide_kernel")
    told = declared.traffic((1,), kernel, {"m": 64, "n": 256, "GROUP": 128})
    assert told == {
        "name": "wide_kernel 64 x 256",
        "bytes": 4 * (2 * 64 * 256 + 64 * 2),
        "flops32": 64 * 256,
    }
    declared.launch(64, 256)


def test_the_examples_are_read():
    assert len(nsight.parse(examples.NCU)) == 2
    layer = proton.parse(examples.PROTON)
    assert layer.root.find("attention").floor(ROOF) < layer.root.find("attention").ms


def test_nothing_to_profile_here(interpreted):
    with pytest.raises(RuntimeError, match="interpreted"), proton.profiling():
        pass


@pytest.mark.gpu
def test_proton_times_the_kernels_of_a_scope():
    case.run("wide", 4096, 4096)
    with proton.profiling() as session:
        for _ in range(3):
            case.run("wide", 4096, 4096)
    kernel = session.tree().root.find("wide_kernel")
    assert kernel.calls == 3
    assert 0.03 < kernel.ms < 3


@pytest.mark.gpu
def test_proton_takes_what_a_launch_declares():
    declared.launch(4096, 4096)
    with proton.profiling() as session:
        declared.launch(4096, 4096)
    table = session.tree().table(ROOF)
    (row,) = (
        row for name, row in table.iterrows() if name.endswith("kernel 4096 x 4096")
    )
    assert 300 < row["GB/s"] < 5000
    assert row["reached"] == pytest.approx(row["GB/s"] / ROOF.gbps)


@pytest.mark.gpu
@pytest.mark.slow
def test_ncu_reads_the_counters():
    if not (nsight.shutil.which("ncu")):
        pytest.skip("ncu is not installed")
    frame = counters(case.run, "wide", 4096, 4096)
    row = frame[frame["kernel"] == "wide_kernel"].iloc[0]
    assert 3e4 < row["time"] < 1e6
    assert row["read"] == pytest.approx(4 * 4096**2, rel=0.1)
    assert row["sectors a load"] > 3
    assert not frame[[c.name for c in nsight.COUNTERS]].isna().to_numpy().any()


@pytest.mark.gpu
def test_the_library_of_proton_is_there():
    done = subprocess.run([sys.executable, "-c", "import triton.profiler"], check=True)
    assert done.returncode == 0
