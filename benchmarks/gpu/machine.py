"""What the machine can do at best: the ceilings that all other numbers are read against."""

import time

import torch

from benchmarks.gpu.day import Day


def look(day: Day) -> dict:
    """Matrix products (bf16 TFLOP/s), copies on the device (GB/s, read and write), host to device (GB/s)."""
    side, copied = (256, 1 << 20) if day.tiny else (8192, 1 << 32)
    a, b = (torch.randn(side, side, device=day.device, dtype=torch.bfloat16) for _ in range(2))
    block = torch.empty(copied, dtype=torch.uint8, device=day.device)
    host = torch.empty(copied // 4, dtype=torch.uint8, pin_memory=day.device == "cuda")
    return {
        "matrix products, TFLOP/s": 2 * side**3 / clock(day, lambda: a @ b) / 1e12,
        "copies, GB/s": 2 * copied / clock(day, block.clone) / 1e9,
        "host to device, GB/s": host.nbytes / clock(day, lambda: block[: len(host)].copy_(host)) / 1e9,
        "memory, GB": torch.cuda.get_device_properties(0).total_memory / 1e9 if day.device == "cuda" else None,
    }


def clock(day: Day, work, times: int = 10) -> float:
    """Seconds of one call, the mean of `times` after three that warm up."""
    for _ in range(3):
        work()
    wait(day)
    began = time.perf_counter()
    for _ in range(times):
        work()
    wait(day)
    return (time.perf_counter() - began) / times


def wait(day: Day) -> None:
    if day.device == "cuda":
        torch.cuda.synchronize()
