"""Memory that calls need, and that runs keep."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="as Linux counts it"),
]

START = """
import ctypes, sys, warnings
from pathlib import Path
import torch
from captum.attr import LayerGradCam
from PIL import Image
from skimage import data
from captum_advise import LayerAdvise, evaluation, explain, zoo

def mebibytes(name):
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[name].split()[0]) / 1024

warnings.simplefilter("ignore")
torch.set_num_threads(1)
"""

PEAK = """
network = zoo.load("resnet50", weights="random")
photos = [data.chelsea(), data.astronaut(), data.coffee(), data.rocket()]
images = [network.transform(Image.fromarray(photo)) for photo in photos]
inputs = torch.stack([*images, *(image.flip(2) for image in images)])
methods = {
    "grad-cam": LayerGradCam(network.model, network.layer),
    "layer-advise": LayerAdvise(network.model, network.layer, pixel_space=network.pixel_space),
}
with torch.no_grad():
    target = network.model(inputs).argmax(1)
# What is loaded at the first call, as compiled densities are, is no part of the peak.
methods[sys.argv[1]].attribute(inputs[:1], target[:1])
before = mebibytes("VmRSS")
Path("/proc/self/clear_refs").write_text("5")
methods[sys.argv[1]].attribute(inputs, target)
print(mebibytes("VmHWM") - before)
"""

HELD = """
network = zoo.load("scenes-resnet")
for index in range(200):
    explain(Image.fromarray(evaluation.scene(index).image), network)
    if index in (49, 199):
        print(mebibytes("VmRSS"))
"""


def measured(code, *arguments):
    """MiB that a process of its own prints."""
    # Freed memory goes back to the system, and does not hide what a call needs.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    found = subprocess.run(
        [sys.executable, "-c", START + code, *arguments],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    return [float(line) for line in found.stdout.split()]


@pytest.mark.case(
    "peak memory: LayerAdvise, ResNet50, eight images", "at most a third of Grad-CAM's"
)
def test_peak_below_grad_cam():
    (advise,), (grad_cam,) = measured(PEAK, "layer-advise"), measured(PEAK, "grad-cam")
    assert advise < grad_cam / 3


@pytest.mark.case("memory held: after 200 photographs", "no more than after 50")
def test_photographs_do_not_let_memory_grow():
    after_50, after_200 = measured(HELD)
    assert after_200 < after_50 + 10
