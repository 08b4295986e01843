"""Machines"""

import gc
import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from toy_networks import Net, images, network

from captum_advise import LayerAdvise, PixelSpace, relevance, unit_relevance
from captum_advise.density import _balloon, _engine, _local_costs

CHOICES = ("avx", "average_drop")
SELECTIONS = (*CHOICES, 1, None)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def advise(net):
    return LayerAdvise(net, net.layer, pixel_space=PixelSpace.identity())


# --- devices


@cuda
@pytest.mark.case("CUDA", "99.9% of the units have the CPU's relevance, maps within 1e-4")
def test_cuda_gives_what_the_cpu_gives():
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    net, inputs = network(), images(16, height=96, width=96)
    for selection in SELECTIONS:
        expected = advise(net.cpu()).explain(inputs, 1, unit_selection=selection)
        found = advise(net.cuda()).explain(inputs.cuda(), 1, unit_selection=selection)
        if selection is None:
            torch.testing.assert_close(
                found.attributions.cpu(), expected.attributions, rtol=1e-4, atol=1e-4
            )
            continue
        same = found.unit_relevance.cpu() == expected.unit_relevance
        assert same.double().mean() >= 0.999
        kept = (found.selected_units.cpu() == expected.selected_units).all(1)
        torch.testing.assert_close(
            found.attributions.cpu()[kept], expected.attributions[kept], rtol=1e-4, atol=1e-4
        )


@cuda
@pytest.mark.case("CUDA: targets on the CPU", "the result with targets on the GPU")
def test_targets_on_the_cpu():
    net, inputs = network().cuda(), images().cuda()
    target = torch.tensor([0, 1, 2])
    for selection in SELECTIONS:
        found = advise(net).attribute(inputs, target, unit_selection=selection)
        expected = advise(net).attribute(inputs, target.cuda(), unit_selection=selection)
        assert torch.equal(found, expected)


@cuda
@pytest.mark.filterwarnings("ignore:.*Profiler clears events")
@pytest.mark.case(
    "CUDA: what is copied to the host", "no more for 64 images than for 8, and no feature map"
)
def test_copies_to_the_host():
    net = network().cuda()

    def copied(n):
        inputs = images(n).cuda()
        advise(net).attribute(inputs, 1, unit_selection=1)
        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
            advise(net).attribute(inputs, 1, unit_selection=1)
        return sum(e.count for e in profiled.key_averages() if "DtoH" in e.key)

    assert copied(64) <= copied(8) + 2


@pytest.mark.filterwarnings("ignore:.*Profiler clears events")
@pytest.mark.case(
    "reads of single numbers, for each of which a GPU waits",
    "no more for 12 images than for 3, nor for 48 units than for 12, as long as the work fits "
    "into one block",
)
def test_scalar_reads_do_not_grow(monkeypatch):
    # As on a GPU without Triton; on the CPU, where reads are free, blocks are smaller.
    monkeypatch.setattr(_engine, "compiled", lambda: None)
    monkeypatch.setattr(_engine, "_CPU_BLOCK", _engine._CUDA_BLOCK)
    monkeypatch.setattr(_balloon, "_CPU_KERNELS", _balloon._CUDA_KERNELS)
    monkeypatch.setattr(_local_costs, "_SMOOTHING_BLOCK", _local_costs._CUDA_SMOOTHING_BLOCK)

    def reads(n, units):
        net = network()
        net.layer, net.head = nn.Conv2d(6, units, 3, padding=1), nn.Linear(units, 7)
        inputs = images(3).repeat(n // 3, 1, 1, 1)
        with profile(activities=[ProfilerActivity.CPU]) as profiled:
            advise(net).attribute(inputs, 1, unit_selection=1)
        return sum(e.count for e in profiled.key_averages() if e.key == "aten::_local_scalar_dense")

    few = reads(3, 12)
    assert reads(12, 12) <= few + 8
    assert reads(3, 48) <= few + 8


class WithoutFloat64(torch.utils._python_dispatch.TorchDispatchMode):
    """As on MPS: whatever makes a tensor of double precision fails."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor) and found.dtype == torch.float64:
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype")
        return found


@pytest.mark.case(
    "device without float64 (MPS; simulated)",
    "densities are estimated on the CPU, with one warning; nothing else needs float64",
)
def test_no_float64(monkeypatch):
    net = network()
    expected = advise(net).explain(images(), 1)
    # Here the device is the CPU itself, and what runs in the fallback may use float64.
    estimate = relevance.adaptive_kde

    def on_the_cpu(*arguments, **options):
        with torch.utils._python_dispatch._disable_current_modes():
            return estimate(*arguments, **options)

    monkeypatch.setattr(relevance, "_has_float64", lambda device: False)
    monkeypatch.setattr(relevance, "adaptive_kde", on_the_cpu)
    with pytest.warns(UserWarning, match="no double precision") as caught:
        found = unit_relevance(torch.rand(1, 2, 4, 4))
    assert found.dtype == torch.int64
    assert len(caught) == 1

    monkeypatch.setattr("captum_advise.layer_advise.unit_densities", lambda *_: None)
    monkeypatch.setattr("captum_advise.layer_advise.modes_of", lambda *_: expected.unit_relevance)
    with WithoutFloat64():
        found = advise(net).explain(images(), 1)
    assert torch.equal(found.attributions, expected.attributions)


@pytest.mark.skipif(not torch.backends.mps.is_available(), reason="needs an Apple GPU")
@pytest.mark.filterwarnings("ignore:.*no double precision")
@pytest.mark.case("MPS", "the CPU's relevances")
def test_mps():
    net = network()
    expected = advise(net).explain(images(), 1)
    found = advise(net.to("mps")).explain(images().to("mps"), 1)
    assert (found.unit_relevance.cpu() == expected.unit_relevance).double().mean() > 0.99


@pytest.mark.case("inputs and model on different devices", "ValueError that names both devices")
def test_devices_differ():
    net = network().to("meta")
    for selection in SELECTIONS:
        with pytest.raises(ValueError, match="inputs are on cpu and the model is on meta"):
            advise(net).attribute(images(), unit_selection=selection)
    with pytest.raises(ValueError, match="inputs are on cpu and the model is on meta"):
        advise(net).unit_relevance(images())


@pytest.mark.case("inputs on the meta device", "ValueError: it holds no values")
def test_meta_inputs():
    with pytest.raises(ValueError, match="no values"):
        advise(network().to("meta")).attribute(images().to("meta"))


# --- determinism


def bits(explanation):
    metrics = explanation.metrics
    return [
        explanation.attributions,
        explanation.unit_relevance,
        explanation.selected,
        metrics.avx,
        metrics.average_drop,
    ]


def assert_same(found, expected, rows=slice(None), tolerance=0.0):
    for one, other in zip(bits(found), bits(expected), strict=True):
        torch.testing.assert_close(one, other[rows], rtol=tolerance, atol=tolerance)


@pytest.mark.case("the same inputs again", "the same bits")
def test_run_to_run():
    net = network()
    expected = advise(net).explain(images())
    for _ in range(3):
        assert_same(advise(net).explain(images()), expected)


@pytest.mark.case(
    "any batch composition, float64 network", "the same choices; maps and metrics within 1e-9"
)
@pytest.mark.case(
    "any `internal_batch_size`, float64 network", "the same choices; maps and metrics within 1e-9"
)
def test_batches():
    net, inputs = network().double(), images(6).double()
    expected = advise(net).explain(inputs)
    for rows in ([0], [5], [3, 1], [5, 4, 3, 2, 1, 0], [2, 2, 2]):
        assert_same(advise(net).explain(inputs[rows]), expected, rows, 1e-9)
    for size in (1, 4, 5, 100):
        assert_same(advise(net).explain(inputs, internal_batch_size=size), expected, tolerance=1e-9)


@pytest.mark.case(
    "1, 2 or 4 threads, float64 network", "the same choices; maps and metrics within 1e-9"
)
def test_threads_of_torch():
    net, inputs, before = network().double(), images(4).double(), torch.get_num_threads()
    expected = advise(net).explain(inputs)
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            assert_same(advise(net).explain(inputs), expected, tolerance=1e-9)
    finally:
        torch.set_num_threads(before)


# --- load


def open_files():
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def hooks(net):
    return [
        (len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks))
        for m in net.modules()
    ]


def resident():
    """Bytes of this process in memory."""
    if not os.path.exists("/proc/self/statm"):
        return 0
    with open("/proc/self/statm") as stream:
        return int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.filterwarnings("ignore:.* no group")
@pytest.mark.parametrize(
    "calls",
    [
        pytest.param(
            400,
            marks=pytest.mark.case(
                "400 calls of `attribute`", "memory, hooks, files and graph do not grow"
            ),
        ),
        pytest.param(
            10_000,
            marks=[
                pytest.mark.slow,
                pytest.mark.case(
                    "10,000 calls of `attribute`", "memory, hooks, files and graph do not grow"
                ),
            ],
        ),
    ],
)
def test_no_leaks(calls):
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    inputs = images(1, 1, 8, 8)
    subject = LayerAdvise(net.eval(), net[0])

    def call(number):
        return subject.attribute(inputs, 0, unit_selection=(*CHOICES, 1, None)[number % 4])

    for number in range(40):
        call(number)
    gc.collect()
    before, fds = hooks(net), open_files()
    tensors = sum(isinstance(found, torch.Tensor) for found in gc.get_objects())
    memory = resident()
    tracemalloc.start()
    try:
        start, _ = tracemalloc.get_traced_memory()
        for number in range(calls):
            call(number)
        gc.collect()
        end, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert end - start < 100_000
    assert resident() - memory < 30_000_000
    assert hooks(net) == before
    assert open_files() == fds
    assert sum(isinstance(found, torch.Tensor) for found in gc.get_objects()) <= tensors
    assert not inputs.requires_grad
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.case(
    "a call that fails", "hooks, flags and modes are as before, and the next call works"
)
def test_after_an_error():
    net, inputs = network(), images()
    expected = advise(net).attribute(inputs)
    before = hooks(net)
    for bad in ({"target": 99}, {"unit_selection": "best"}, {"baselines": "black"}):
        with pytest.raises((ValueError, TypeError, AssertionError)):
            advise(net).attribute(inputs, **bad)
    with pytest.raises(RuntimeError):
        advise(net).attribute(torch.rand(1, 5, 8, 8))
    assert hooks(net) == before
    assert not inputs.requires_grad
    assert torch.equal(advise(net).attribute(inputs), expected)


@pytest.mark.filterwarnings("ignore:.* no group")
@pytest.mark.parametrize(
    "to_input",
    [
        pytest.param(
            False,
            marks=pytest.mark.case(
                "eight threads that share one `LayerAdvise`",
                "each gets its own result; forward passes wait for each other",
            ),
        ),
        pytest.param(True),
    ],
)
def test_threads_share_one(to_input):
    net = network()
    layer = net.stem if to_input else net.layer
    subject = LayerAdvise(net, layer)
    inputs = [images(1 + number % 3, height=8 + number) for number in range(8)]
    selections = [SELECTIONS[number % 4] for number in range(8)]

    def run(number):
        return subject.attribute(
            inputs[number],
            number % 7,
            attribute_to_layer_input=to_input,
            unit_selection=selections[number],
        )

    expected = [run(number) for number in range(8)]
    barrier = threading.Barrier(8)

    def at_once(number):
        barrier.wait()
        return [run(number) for _ in range(4)]

    with ThreadPoolExecutor(8) as pool:
        for number, found in enumerate(pool.map(at_once, range(8))):
            for attributions in found:
                assert attributions.shape == expected[number].shape
                torch.testing.assert_close(attributions, expected[number])
    assert not any(tensor.requires_grad for tensor in inputs)


@pytest.mark.case("threads that explain different layers of one model", "each gets its own result")
def test_threads_on_different_layers():
    net = network(Net)
    subjects = [LayerAdvise(net, layer) for layer in (net.stem, net.layer, net.act)]
    expected = [subject.attribute(images(), 2) for subject in subjects]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda n: subjects[n % 3].attribute(images(), 2), range(12)))
    for number, attributions in enumerate(found):
        torch.testing.assert_close(attributions, expected[number % 3])
