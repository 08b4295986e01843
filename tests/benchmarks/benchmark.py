"""Time and memory of LayerAdvise, compared with other methods in one process.

    python tests/benchmarks/benchmark.py [--threads 2] [--repeats 5] [--csv FILE]
        [--networks resnet50,alexnet,...] [--batches 1,8] [--device cpu|cuda] [--peers NETWORK]
        [--tables attribution,density,large,peers,start]

Compared methods take turns, after a warm-up. A time is the median of the repeats, and a ratio is
one of medians. Freed memory is kept, as in a command: the system would clear it again, which takes
more time in some processes than in others. Memory is the peak above what the process held before
the call, while freed memory is returned; on a CPU, Linux counts it. The four networks of the paper
have random weights (seed 0), EfficientNet-Lite0 has its ImageNet weights. Needs the extra `test`.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from datetime import date
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from adaptivekde import ssvkernel
from captum.attr import LayerGradCam, Lime, Occlusion
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy.stats import gaussian_kde
from skimage import data
from threadpoolctl import threadpool_limits

from captum_advise import LayerAdvise, adaptive_kde, unit_relevance, zoo
from captum_advise.cli.process import keep_freed_memory
from captum_advise.density import _engine

NETWORKS = {
    "resnet50": ("resnet50", None),
    "alexnet": ("alexnet", None),
    "vgg16": ("vgg16", None),
    "xception": ("xception", None),
    "efficientnet-lite0": ("efficientnet-lite0", "bn2"),
}


def images(network: zoo.Network, number: int) -> torch.Tensor:
    """Inputs (number, 3, H, W): images of scikit-image, from the fifth on rotated and mirrored."""
    names = ("chelsea", "astronaut", "coffee", "rocket")
    inputs = []
    for index in range(number):
        image = Image.fromarray(getattr(data, names[index % 4])())
        if index >= 4:
            image = image.rotate(15).transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        inputs.append(network.transform(image))
    return torch.stack(inputs)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timings(
    calls: dict[str, Callable[[], object]], repeats: int, device: torch.device
) -> dict[str, float]:
    """Median seconds of each call. The calls take turns."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(repeats + 1):
        for name, call in calls.items():
            synchronise(device)
            start = time.perf_counter()
            call()
            synchronise(device)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def status(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise LookupError(field)


def peak_memory(call: Callable[[], object], device: torch.device) -> float:
    """MiB above what was held before; NaN where the system has no counter."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        call()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**20
    try:
        # Memory held for reuse would hide the memory that the call needs, and add to it.
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(-1, 1 << 17)
        libc.mallopt(-3, 1 << 20)
        libc.malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = status("VmRSS")
        call()
        return status("VmHWM") - before
    except (OSError, LookupError):
        return float("nan")
    finally:
        keep_freed_memory()


def attribution_rows(
    names: list[str], batches: list[int], repeats: int, device: torch.device
) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for name in names:
        network = load(name, device)
        grad_cam = LayerGradCam(network.model, network.layer)
        advise = LayerAdvise(network.model, network.layer, pixel_space=network.pixel_space)
        for batch in batches:
            inputs = images(network, batch).to(device)
            with torch.no_grad():
                target = network.model(inputs).argmax(1)

            def run(inputs=inputs, target=target, method=advise, **options):
                return lambda: method.attribute(inputs, target, **options)

            calls = {
                "LayerGradCam": run(method=grad_cam),
                "LayerAdvise, one group": run(unit_selection=1),
                "LayerAdvise": run(),
            }
            masked = inputs[:1].expand(8, -1, -1, -1).contiguous()
            calls["forward pass"] = no_grad(network.model, masked)
            medians = timings(calls, repeats if batch == 1 else max(2, repeats // 2), device)
            candidates = sum(map(len, advise.explain(inputs, target).candidates))
            floor = medians["LayerGradCam"] + candidates * medians.pop("forward pass") / len(masked)
            for method, seconds in medians.items():
                rows.append(
                    {
                        "network": f"{name} ({network.weights})",
                        "layer": network.layer_name,
                        "batch": batch,
                        "method": method,
                        "ms": seconds * 1e3,
                        "times LayerGradCam": seconds / medians["LayerGradCam"],
                        "candidates": candidates,
                        "times Grad-CAM and masked passes": seconds / floor,
                        "peak MiB": peak_memory(calls[method], device),
                    }
                )
    return rows


def no_grad(model: torch.nn.Module, inputs: torch.Tensor) -> Callable[[], object]:
    def call() -> object:
        with torch.no_grad():
            return model(inputs)

    return call


def load(name: str, device: torch.device) -> zoo.Network:
    model, layer = NETWORKS[name]
    weights = "default" if name.startswith("efficientnet") else "random"
    network = zoo.load(model, layer=layer, weights=weights)
    network.model.to(device)
    return network


def peer_rows(name: str, repeats: int, device: torch.device) -> list[dict[str, object]]:
    """Default LayerAdvise and methods with many passes or other hooks, on one image."""
    from torchcam.methods import GradCAMpp, ScoreCAM

    network = load(name, device)
    inputs = images(network, 1).to(device)
    with torch.no_grad():
        target = int(network.model(inputs).argmax(1))
    advise = LayerAdvise(network.model, network.layer, pixel_space=network.pixel_space)
    side = inputs.shape[-1]
    cells = torch.arange(8, device=device).repeat_interleave(-(-side // 8))[:side]
    superpixels = (cells[:, None] * 8 + cells)[None, None]

    def torchcam(extractor: Callable[..., object], **options: object) -> Callable[[], object]:
        def call() -> object:
            with extractor(network.model, network.layer, **options) as method:
                return method(target, network.model(inputs))

        return call

    calls = {
        "LayerAdvise": lambda: advise.attribute(inputs, target),
        "LayerGradCam": lambda: LayerGradCam(network.model, network.layer).attribute(
            inputs, target
        ),
        "torchcam GradCAMpp": torchcam(GradCAMpp),
        "torchcam ScoreCAM": torchcam(ScoreCAM, batch_size=16),
        "Occlusion, 32 px, stride 16": lambda: Occlusion(network.model).attribute(
            inputs, (3, 32, 32), target=target, strides=(3, 16, 16), perturbations_per_eval=8
        ),
        "Lime, 1000 samples": lambda: Lime(network.model).attribute(
            inputs,
            target=target,
            feature_mask=superpixels,
            n_samples=1000,
            perturbations_per_eval=8,
        ),
    }
    medians = timings(calls, max(1, repeats // 4), device)
    return [
        {
            "network": name,
            "method": method,
            "ms": seconds * 1e3,
            "times LayerAdvise": seconds / medians["LayerAdvise"],
            "peak MiB": peak_memory(calls[method], device),
        }
        for method, seconds in medians.items()
    ]


def density_rows(repeats: int, device: torch.device) -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for samples in (49, 100, 169, 196):
        grid = torch.linspace(0, 1, samples, dtype=torch.float64)
        array = grid.numpy()
        seconds = []
        counts = (64, 512, 2048, 8192) if samples == 49 else (64, 512, 2048)
        for n_rows in counts:
            values = torch.rand(n_rows, samples, generator=torch.Generator().manual_seed(0))
            values = values.pow(3).to(device)
            few_rows = values[:8].double().cpu().numpy()
            on_device = grid.to(device)
            calls = {
                "ours": lambda v=values, g=on_device: adaptive_kde(v, g, n_bandwidths=10),
                "torch": lambda v=values, g=on_device: in_torch(v, g),
                "ssvkernel": lambda f=few_rows, a=array: [
                    ssvkernel(row, a, M=10, nbs=1, WinFunc="Gauss") for row in f
                ],
                "scipy": lambda f=few_rows, a=array: [gaussian_kde(row)(a) for row in f],
            }
            # NumPy's threads keep the cores busy after a call, and slow the next one down.
            with threadpool_limits(1, user_api="blas"):
                medians = timings(calls, max(2, repeats // 2), device)
            seconds.append(medians["ours"])
            growth = (
                np.log(seconds[-1] / seconds[-2]) / np.log(n_rows / counts[len(seconds) - 2])
                if len(seconds) > 1
                else float("nan")
            )
            ours = n_rows / medians["ours"]
            ssvkernel_rate = len(few_rows) / medians["ssvkernel"]
            rows.append(
                {
                    "samples": samples,
                    "rows": n_rows,
                    "rows per second": ours,
                    "in torch, rows per second": n_rows / medians["torch"],
                    "ssvkernel, rows per second": ssvkernel_rate,
                    "gaussian_kde, rows per second": len(few_rows) / medians["scipy"],
                    "times ssvkernel": ours / ssvkernel_rate,
                    "growth exponent": growth,
                    "peak MiB": peak_memory(calls["ours"], device),
                }
            )
    return rows


def in_torch(values: torch.Tensor, grid: torch.Tensor) -> object:
    without = {"compiled": lambda: None, "compiled_for_gpu": lambda *_: None}
    with mock.patch.multiple(_engine, **without):
        return adaptive_kde(values, grid, n_bandwidths=10)


def large_rows(repeats: int, device: torch.device) -> list[dict[str, object]]:
    """Relevance of units of which all activations differ, on layers of many positions."""
    rows: list[dict[str, object]] = []
    previous: tuple[int, float] | None = None
    for side in (16, 32, 56, 112, 160):
        units = torch.rand(1, 64, side, side, generator=torch.Generator().manual_seed(0))
        units = units.to(device)

        def call(units: torch.Tensor = units) -> object:
            return unit_relevance(units)

        seconds = timings({"": call}, max(1, repeats // 4), device)[""]
        growth = float("nan")
        if previous is not None:
            growth = np.log(seconds / previous[1]) / np.log(side**2 / previous[0])
        previous = side**2, seconds
        rows.append(
            {
                "positions": f"{side} x {side}",
                "units": 64,
                "seconds": seconds,
                "growth exponent": growth,
                "peak MiB": peak_memory(call, device),
            }
        )
    return rows


def start_rows(repeats: int) -> list[dict[str, object]]:
    """What a user waits for before anything is computed, each in a process of its own."""
    completion = {
        "_CAPTUM_ADVISE_COMPLETE": "complete_bash",
        "COMP_WORDS": "captum-advise explain --model alex",
        "COMP_CWORD": "3",
    }

    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}

    def process(*arguments: str, **environment: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            [sys.executable, *arguments],
            env={**os.environ, **threads, **environment},
            stdout=subprocess.DEVNULL,
            check=True,
        )

    command = ("-m", "captum_advise")
    calls = {
        "import torch": process("-c", "import torch"),
        "import captum_advise": process("-c", "import captum_advise"),
        "captum-advise --help": process(*command, "--help"),
        "captum-advise explain --help": process(*command, "explain", "--help"),
        "captum-advise evaluate --help": process(*command, "evaluate", "--help"),
        "TAB after explain --model alex": process(*command, **completion),
    }
    with tempfile.TemporaryDirectory() as folder:
        photograph = Path(folder) / "cat.png"
        zoo.example_image().save(photograph)
        explain = (*command, "explain", str(photograph), "--output", folder + "/results")
        calls["captum-advise explain, a photograph"] = process(*explain)
        medians = timings(calls, repeats, torch.device("cpu"))
    return [
        {
            "what": name,
            "seconds": seconds,
            "times import torch": seconds / medians["import torch"],
        }
        for name, seconds in medians.items()
    ]


def machine(threads: int, device: torch.device) -> dict[str, object]:
    """Where and when it was measured."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
        processor = names[0] if names else processor
    if device.type == "cuda":
        processor = torch.cuda.get_device_name(device)
    return {
        "processor": processor,
        "threads": threads,
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }


def show(title: str, rows: list[dict[str, object]]) -> None:
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(
            *(
                (f"{v:.2f}" if abs(v) < 100 else f"{v:.0f}") if isinstance(v, float) else str(v)
                for v in row.values()
            )
        )
    Console(width=170).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--networks", default=",".join(NETWORKS))
    parser.add_argument("--batches", default="1,8")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tables", default="attribution,density,large,peers,start")
    parser.add_argument("--peers", default="efficientnet-lite0", help="network of table peers")
    parser.add_argument("--csv", type=Path, help="also write the rows there")
    arguments = parser.parse_args()
    unknown = set(arguments.networks.split(",")) - set(NETWORKS)
    if unknown:
        parser.error(f"unknown networks {sorted(unknown)}; the networks are {sorted(NETWORKS)}")

    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", message=".*no group of units.*")
    device = torch.device(arguments.device)
    where = machine(arguments.threads, device)
    Console().print(", ".join(f"{name} {value}" for name, value in where.items()))
    table_rows = {
        "attribution": lambda: attribution_rows(
            arguments.networks.split(","),
            [int(batch) for batch in arguments.batches.split(",")],
            arguments.repeats,
            device,
        ),
        "density": lambda: density_rows(arguments.repeats, device),
        "large": lambda: large_rows(arguments.repeats, device),
        "peers": lambda: peer_rows(arguments.peers, arguments.repeats, device),
        "start": lambda: start_rows(arguments.repeats),
    }
    tables = {}
    for title in arguments.tables.split(","):
        tables[title] = table_rows[title]()
        show(title, tables[title])
    if arguments.csv:
        columns = list(dict.fromkeys(name for rows in tables.values() for name in rows[0]))
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["table", *where, *columns])
            writer.writeheader()
            for title, rows in tables.items():
                writer.writerows({"table": title, **where, **row} for row in rows)


if __name__ == "__main__":
    sys.exit(main())
