"""What a GPU could do at best, for the share of it that a step uses (MFU, PaLM, appendix B)."""

import torch

# dense bfloat16 matrix products a second, from NVIDIA's and AMD's data sheets; the longest name that fits counts
_PEAK = {
    "A100": 312e12,
    "A40": 149.7e12,
    "A6000": 154.8e12,
    "A10": 125e12,
    "B200": 2250e12,
    "GB200": 2500e12,
    "H100": 989.4e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H200": 989.4e12,
    "L4": 121e12,
    "L40": 181e12,
    "L40S": 362e12,
    "MI250X": 383e12,
    "MI300X": 1307e12,
    "RTX 3090": 71e12,
    "RTX 4090": 165.2e12,
}


def peak_flops(device: torch.device, compute: torch.dtype) -> float | None:
    """Peak of a GPU in 16-bit floating-point operations a second; None where it is not known, and on a CPU."""
    if device.type != "cuda" or compute.itemsize != 2:
        return None
    return peak_of(torch.cuda.get_device_name(device))


def peak_of(name: str) -> float | None:
    """Peak by the device's name, such as ``NVIDIA H100 80GB HBM3``."""
    words = f" {name.replace('-', ' ')} "
    known = [key for key in _PEAK if f" {key} " in words]
    return _PEAK[max(known, key=len)] if known else None
