"""What the device module says, of this machine and of GPUs that aren't here."""

import multiprocessing
import os
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest
import torch

from tilebook import device, interpreter
from tilebook._constant import constant

NAMES = {
    "NVIDIA H100 80GB HBM3": "h100-sxm",
    "NVIDIA H100 SXM5": "h100-sxm",
    "NVIDIA H100 PCIe": "h100-pcie",
    "NVIDIA H100 NVL": "h100-nvl",
    "NVIDIA H200": "h200-sxm",
    "NVIDIA H200 NVL": "h200-nvl",
    "NVIDIA GH200 480GB": "gh200",
    "NVIDIA A100-SXM4-80GB": "a100-sxm-80gb",
    "NVIDIA A100-SXM4-40GB": "a100-sxm-40gb",
    "NVIDIA A100 80GB PCIe": "a100-pcie-80gb",
    "NVIDIA A100-PCIE-40GB": "a100-pcie-40gb",
    "NVIDIA B200": "b200",
    "NVIDIA GB200": "gb200",
    "NVIDIA L4": "l4",
    "NVIDIA L40S": "l40s",
    "NVIDIA GeForce RTX 4090": "rtx-4090",
    "NVIDIA GeForce RTX 4090 Laptop GPU": "rtx-4090-laptop-gpu",
    "NVIDIA RTX A6000": "rtx-a6000",
    "Tesla T4": "t4",
    "Tesla V100-SXM2-32GB": "v100-sxm-32gb",
    "AMD Instinct MI300X": "mi300x",
    "AMD Instinct MI300X OAM": "mi300x",
    "AMD Radeon RX 7900 XTX": "rx-7900-xtx",
    "NVIDIA H100 80GB HBM3 MIG 1g.10gb": "h100-sxm-mig-1g-10gb",
    "": "unknown",
}


@pytest.mark.parametrize(("name", "slug"), NAMES.items())
def test_slug(name, slug):
    assert device.slugify(name) == slug


def test_every_datasheet_belongs_to_a_name():
    assert set(device.DATASHEET) <= set(NAMES.values())


@pytest.mark.parametrize(("slug", "sheet"), device.DATASHEET.items())
def test_datasheets_are_plausible(slug, sheet):
    assert 300 <= sheet.hbm_gbps <= 8000
    assert sheet.fp32 <= sheet.tf32 < sheet.bf16 == sheet.fp16 or slug == "rtx-4090"
    assert sheet.fp8 is None or sheet.fp8 == pytest.approx(2 * sheet.bf16, rel=0.02)
    assert "sparsity" in sheet.source


def fake_gpu(monkeypatch, **changes):
    properties = {
        "name": "NVIDIA H200",
        "major": 9,
        "minor": 0,
        "multi_processor_count": 132,
        "shared_memory_per_block": 49152,
        "shared_memory_per_block_optin": 232448,
        "shared_memory_per_multiprocessor": 233472,
        "regs_per_multiprocessor": 65536,
        "max_threads_per_multi_processor": 2048,
        "L2_cache_size": 60 * 2**20,
        "total_memory": 140 * 2**30,
        "warp_size": 32,
    }
    found = types.SimpleNamespace(**(properties | changes))
    hip = getattr(found, "gcnArchName", None)
    monkeypatch.setattr(interpreter, "gpu_count", lambda: 1)
    monkeypatch.setattr(interpreter, "switched_on", lambda: False)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: found)
    monkeypatch.setattr(torch.version, "hip", hip and "6.4")
    fresh = device.current.__wrapped__
    monkeypatch.setattr(device, "current", fresh)
    return fresh()


def test_a_hopper(monkeypatch):
    here = fake_gpu(monkeypatch)
    assert (here.backend, here.slug, here.arch) == ("cuda", "h200-sxm", "sm_90")
    assert (here.capability, here.sms, here.warp_size) == ((9, 0), 132, 32)
    assert here.shared_memory_per_block == 232448
    assert here.datasheet.hbm_gbps == 4800
    assert device.describe() == "NVIDIA H200 (sm_90, 132 SMs, 140 GiB)"
    assert device.torch_device() == torch.device("cuda")
    assert device.sizes(4096, 64) == 4096
    assert {f for f in device.FEATURES if device.has(f)} == (
        {"gpu", "sm80", "sm90", "tma", "wgmma", "fp8", "pdl"}
    )
    with pytest.raises(device.HardwareError, match=r"needs an .* 10\.0\+; here is NVI"):
        device.require("sm100")


@pytest.mark.parametrize(
    ("changes", "features"),
    [
        ({"name": "NVIDIA A100-SXM4-80GB", "major": 8}, {"gpu", "sm80"}),
        ({"name": "NVIDIA L4", "major": 8, "minor": 9}, {"gpu", "sm80", "fp8"}),
        (
            {"name": "NVIDIA B200", "major": 10},
            {"gpu", "sm80", "sm90", "sm100", "tma", "fp8", "pdl"},
        ),
        (
            {"name": "AMD Instinct MI300X", "gcnArchName": "gfx942:sramecc+:xnack-"}
            | {"major": 9, "minor": 4, "warp_size": 64},
            {"gpu", "fp8"},
        ),
    ],
)
def test_features_of_other_gpus(monkeypatch, changes, features):
    here = fake_gpu(monkeypatch, **changes)
    assert {f for f in device.FEATURES if device.has(f)} == features
    assert here.arch == ("gfx942" if "gcnArchName" in changes else here.arch)


def test_unknown_feature():
    with pytest.raises(ValueError, match=r"feature must be one of gpu, .*'sm1000'"):
        device.has("sm1000")


def test_without_a_gpu(monkeypatch):
    monkeypatch.setattr(interpreter, "gpu_count", lambda: 0)
    monkeypatch.setattr(interpreter, "switched_on", lambda: True)
    monkeypatch.setattr(device, "current", device.current.__wrapped__)
    here = device.current()
    assert (here.backend, here.slug, here.torch_device) == (
        ("interpreter", "interpreter", "cpu")
    )
    assert here.datasheet is None
    assert device.torch_device() == torch.device("cpu")
    assert device.sizes(4096, 64) == 64
    assert not any(device.has(feature) for feature in device.FEATURES)
    assert "no GPU found" in device.describe()
    with pytest.raises(
        device.HardwareError, match=r"needs a GPU; here is Triton's CPU"
    ):
        device.require("gpu")
    monkeypatch.setattr(interpreter, "switched_on", lambda: False)
    assert device.current().backend == "none"
    assert device.launch_device_type() is None
    assert "can be compiled but not run" in device.describe()


def test_current_is_asked_once():
    assert device.current() is device.current()


def _make_tensor(queue):
    queue.put(torch.ones(2, device=device.torch_device()).sum().item())


def test_asking_for_the_device_leaves_forking_possible():
    code = (
        "import torch, tilebook\n"
        "from tilebook import device\n"
        "device.available(), device.interpreting(), device.torch_device()\n"
        "device.sizes(1, 2)\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.skipif(device.available(), reason="CUDA is started in this process")
def test_a_forked_worker_runs():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    worker = context.Process(target=_make_tensor, args=(queue,))
    worker.start()
    assert queue.get(timeout=60) == 2.0
    worker.join()


@pytest.mark.gpu
def test_this_gpu():
    here = device.current()
    assert here.sms > 0
    assert here.memory_bytes > 2**30
    assert here.shared_memory_per_block >= 48 * 1024
    assert here.slug in device.describe().lower() or here.arch in device.describe()
    if here.datasheet and here.datasheet.sms:
        assert here.sms == here.datasheet.sms


@pytest.mark.gpu
@pytest.mark.slow
def test_the_interpreter_is_right_on_a_gpu_machine_too():
    tests = sorted(str(p) for p in Path(__file__).parent.glob("test_interpreter*.py"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests],
        env=os.environ | {"TILEBOOK_DEVICE": "cpu"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert " passed" in done.stdout


def test_a_mark_is_the_one_that_pytorch_makes():
    def ours():
        pass

    def theirs():
        pass

    assert constant(ours) is ours
    assert vars(ours) == vars(torch.compiler.assume_constant_result(theirs)) != {}


def test_the_package_comes_without_pytorchs_compiler():
    code = """
        import importlib, pkgutil, sys, tilebook
        for found in pkgutil.iter_modules(tilebook.__path__, "tilebook."):
            importlib.import_module(found.name)
        print(*(name for name in sys.modules if name.startswith("torch._dynamo")))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
