"""Where a training step's time goes: what the host launches, how long the device is busy, with
which operations; the forward pass of evaluation; several processes side by side on one device."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.machine import synchronise
from benchmarks.step import N_CLASSES, Step
from networks import build_network
from utils.device import select_device

_WARMING_STEPS = 6  # more than a CUDA graph needs before it is replayed
_LAUNCHES = ("cudaLaunch", "cuLaunch", "cudaGraphLaunch", "cudaMemcpyAsync", "cudaMemsetAsync")
_DEPTHWISE = ("depthwise", "grouped")  # in the names of such kernels, PyTorch's and cuDNN's
_N_SHOWN = 15


def measure_operations(step: Step, device: torch.device, *, n_steps: int) -> dict:
    """Of a step: host's launches, the device's operations and milliseconds in all and of depthwise
    convolutions, those by the clock without the profiler, and its longest operations (on a CPU
    operators, without those they call)."""
    run = _warm(step, device)
    start = time.perf_counter()
    for _ in range(n_steps):
        run()
    synchronise(device)
    seconds = (time.perf_counter() - start) / n_steps
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * on_gpu]
    with profile(activities=activities) as profiled:
        for _ in range(n_steps):
            run()
        synchronise(device)
    events = profiled.events()
    times, counts = Counter(), Counter()
    for event in events:
        if (event.device_type == DeviceType.CUDA) == on_gpu:
            taken = event.time_range.elapsed_us() if on_gpu else event.self_cpu_time_total
            times[event.name] += taken / 1e3 / n_steps
            counts[event.name] += 1 / n_steps
    return asdict(step) | {
        "step_ms": 1e3 * seconds, "busy_ms": times.total(),
        "host_launches": sum(event.name.startswith(_LAUNCHES) for event in events) / n_steps,
        "operations": counts.total(),
        "depthwise_ms": sum(ms for name, ms in times.items()
                            if any(part in name.lower() for part in _DEPTHWISE)),
        "longest": [{"name": name[:90], "ms": ms, "count": counts[name]}
                    for name, ms in times.most_common(_N_SHOWN)]}


def forward_ms(step: Step, device: torch.device, *, batch_size: int, exact: bool) -> float:
    """Of an evaluation's forward pass in float32, an image; `exact`: as for queries, not in TF32.
    The median of five."""
    network = build_network(step.network, backbone=step.backbone, n_classes=N_CLASSES)
    network = network.to(device, memory_format=torch.channels_last).eval()
    images = torch.randn(batch_size, 3, *step.size, device=device)
    images = images.contiguous(memory_format=torch.channels_last)
    found = []
    for _ in range(6):
        synchronise(device)
        start = time.perf_counter()
        with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=not exact):
            network(images)
        synchronise(device)
        found.append(time.perf_counter() - start)
    return 1e3 * statistics.median(found[1:]) / batch_size


def steps_a_second(step: Step, *, device: str, n_processes: int, seconds: float) -> float:
    """Of all processes together, which begin at the same time, each with a network of its own."""
    command = [sys.executable, __file__, device, json.dumps(asdict(step)), str(seconds)]
    running = [subprocess.Popen(command, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
               for _ in range(n_processes)]
    for process in running:
        process.stdout.readline()  # it is warm
    for process in running:
        process.stdin.write("\n")
        process.stdin.flush()
    return sum(float(process.communicate()[0]) for process in running)


def _warm(step: Step, device: torch.device) -> Callable[[], None]:
    run = step.build(device)
    for _ in range(_WARMING_STEPS):
        run()
    synchronise(device)
    return run


if __name__ == "__main__":
    used, described = select_device(sys.argv[1]), json.loads(sys.argv[2])
    one_step = _warm(Step(**described | {"size": tuple(described["size"])}), used)
    print("warm", flush=True)
    sys.stdin.readline()
    begin, n_done = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < float(sys.argv[3]):
        one_step()
        synchronise(used)
        n_done += 1
    print(n_done / elapsed)
