"""Peaks of GPUs are found by the names that drivers give."""

import pytest
import torch

from dft_search.training.peak import peak_flops, peak_of


@pytest.mark.parametrize(
    ("name", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", None),
        ("NVIDIA L4", 121),
        ("NVIDIA L40S", 362),
        ("NVIDIA GeForce RTX 4090", 165.2),
        ("Quadro K620", None),
    ],
)
def test_names(name, teraflops):
    found = peak_of(name)
    assert found == (None if teraflops is None else pytest.approx(teraflops * 1e12))


def test_a_processor_has_none():
    assert peak_flops(torch.device("cpu"), torch.bfloat16) is None
