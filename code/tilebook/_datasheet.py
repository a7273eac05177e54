"""What the vendors promise: peak rates of the GPUs the book may meet."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Datasheet:
    """A vendor's peak rates: GB/s, and dense TFLOP/s at boost clock (no sparsity).

    `fp32` is the ordinary cores' rate, everything else the matrix cores'. `l2_mib` and
    `sms` are what the driver reports; None where the vendor doesn't say.
    """

    hbm_gbps: float
    bf16: float
    fp16: float
    tf32: float
    fp32: float
    fp8: float | None
    l2_mib: int | None
    sms: int | None
    source: str


_HOPPER = "NVIDIA H100 Tensor Core GPU datasheet, without sparsity"
_H200 = "NVIDIA H200 Tensor Core GPU datasheet, without sparsity"
_AMPERE = "NVIDIA A100 Tensor Core GPU datasheet, without sparsity"
_ADA = "NVIDIA Ada GPU architecture whitepaper, FP32 accumulation, without sparsity"

DATASHEET: dict[str, Datasheet] = {
    "h100-sxm": Datasheet(3350, 989.5, 989.5, 494.7, 67, 1979, 50, 132, _HOPPER),
    "h100-pcie": Datasheet(2000, 756, 756, 378, 51, 1513, 50, 114, _HOPPER),
    "h100-nvl": Datasheet(3900, 835.5, 835.5, 417.5, 60, 1670.5, 50, 132, _HOPPER),
    "h200-sxm": Datasheet(4800, 989.5, 989.5, 494.7, 67, 1979, 60, 132, _H200),
    "h200-nvl": Datasheet(4800, 835.5, 835.5, 417.5, 60, 1670.5, 60, 132, _H200),
    "a100-sxm-80gb": Datasheet(2039, 312, 312, 156, 19.5, None, 40, 108, _AMPERE),
    "a100-sxm-40gb": Datasheet(1555, 312, 312, 156, 19.5, None, 40, 108, _AMPERE),
    "a100-pcie-80gb": Datasheet(1935, 312, 312, 156, 19.5, None, 40, 108, _AMPERE),
    "a100-pcie-40gb": Datasheet(1555, 312, 312, 156, 19.5, None, 40, 108, _AMPERE),
    "b200": Datasheet(
        8000,
        2250,
        2250,
        1125,
        75,
        4500,
        126,
        148,
        "NVIDIA Blackwell datasheet, HGX B200 per GPU, without sparsity",
    ),
    "gb200": Datasheet(
        8000,
        2500,
        2500,
        1250,
        80,
        5000,
        None,
        None,
        "NVIDIA GB200 NVL72 datasheet, per GPU, without sparsity",
    ),
    "l4": Datasheet(300, 121, 121, 60, 30.3, 242.5, 48, 58, _ADA),
    "l40s": Datasheet(864, 362, 362, 183, 91.6, 733, 96, 142, _ADA),
    "rtx-4090": Datasheet(1008, 165.2, 165.2, 82.6, 82.6, 330.3, 72, 128, _ADA),
    "mi300x": Datasheet(
        5300,
        1307.4,
        1307.4,
        653.7,
        163.4,
        2614.9,
        4,
        304,
        "AMD Instinct MI300X datasheet, without sparsity; L2 is per die",
    ),
}
