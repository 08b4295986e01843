"""The page for users of pytorch-grad-cam and TorchCAM: its code runs, and both give its maps."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_networks import images

from captum_advise import LayerAdvise, PixelSpace, targets, zoo
from captum_advise.metrics import average_drop, road
from captum_advise.pixels import normalize_maps

pytest.importorskip("pytorch_grad_cam")
pytest.importorskip("torchcam")
models = pytest.importorskip("torchvision.models")
PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "from-other-packages.md"
TEXT = PAGE.read_text(encoding="utf-8")

pytestmark = pytest.mark.filterwarnings("ignore")  # of the other packages


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the page's code leaves, run from top to bottom."""
    with torch.random.fork_rng(devices=[]), pytest.MonkeyPatch.context() as patch:
        torch.manual_seed(0)
        model = models.resnet.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=7).eval()
        patch.chdir(tmp_path_factory.mktemp("page"))
        inputs = PixelSpace.imagenet().from_pixels(images(2, height=96, width=96))
        names = {"model": model, "inputs": inputs}
        for block in re.findall(r"```python\n(.*?)```", TEXT, re.S):
            exec(block, names)
    return names


def test_the_code_runs(names):
    assert names["maps"].shape == (2, 1, 96, 96)
    assert set(names["evaluation"].results["method"]) >= {"eigen-grad-cam", "layer-cam", "grad-cam"}


def test_torchcam_has_the_same_maps(names):
    torch.testing.assert_close(names["stretched"][:, 0], names["small_maps"], atol=1e-5, rtol=1e-4)


def test_pytorch_grad_cam_has_the_same_maps_enlarged_in_another_way(names):
    bilinear = F.interpolate(names["stretched"], names["inputs"].shape[-2:], mode="bilinear")
    expected = normalize_maps(bilinear)[:, 0].numpy()
    np.testing.assert_allclose(names["numpy_maps"], expected, atol=2e-2)
    for ours, theirs in zip(names["enlarged"][:, 0].numpy(), names["numpy_maps"], strict=True):
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.99


def test_road_is_twice_theirs(names):
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    model, inputs, maps = names["model"], names["inputs"], names["enlarged"]
    theirs = ROADCombined()(
        inputs, maps[:, 0].numpy(), [ClassifierOutputSoftmaxTarget(3)] * 2, model
    )
    target = torch.tensor([3, 3])
    ours = road(model, inputs, maps, target).value.flatten()
    np.testing.assert_allclose(ours, 2 * theirs, atol=0.02)


def test_targets_of_segmentation_and_softmax(names):
    from pytorch_grad_cam.utils.model_targets import (
        ClassifierOutputSoftmaxTarget,
        SemanticSegmentationTarget,
    )

    mask = torch.rand(24, 24, generator=torch.Generator().manual_seed(1)).round()
    segmenter = torch.nn.Conv2d(3, 5, 3, padding=1).eval()
    inputs = images(1)
    with torch.no_grad():
        scores = segmenter(inputs)
        ours = targets.Segmentation(segmenter, region=mask)(inputs)[0, 3]
        theirs = SemanticSegmentationTarget(3, mask.numpy())(scores[0])
        torch.testing.assert_close(ours * mask.sum(), theirs)
        logits = names["model"](names["inputs"])
    assert ClassifierOutputSoftmaxTarget(3)(logits[0]) == logits[0].softmax(0)[3]
    probabilities = LayerAdvise(
        lambda x: names["model"](x).softmax(1),
        names["model"].layer4,
        confidence=torch.nn.Identity(),
    ).attribute(names["inputs"], target=3, unit_selection=None)
    assert probabilities.shape == (2, 1, 3, 3)


def test_metrics_of_both(names):
    from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    model, inputs, maps = names["model"], names["inputs"], names["enlarged"]
    theirs = DropInConfidence()(
        inputs, maps[:, 0].numpy(), [ClassifierOutputSoftmaxTarget(3)] * 2, model
    )
    with torch.no_grad():
        before = model(inputs).softmax(1)[:, 3]
        after = model(inputs * maps).softmax(1)[:, 3]
    assert theirs.shape == (2,)
    # Theirs is a difference of confidences where ours is a share of the first.
    np.testing.assert_allclose(
        average_drop(before, after) * before, np.maximum(theirs, 0), atol=1e-5
    )


def test_a_layer_is_found_and_named(names):
    model = names["model"]
    assert zoo.describe(model).layer is model.layer4 is model.get_submodule("layer4")


def test_every_name_of_the_tables_exists():
    import pytorch_grad_cam
    import torchcam.methods
    import torchcam.metrics
    import torchcam.utils
    from pytorch_grad_cam.metrics import cam_mult_image
    from pytorch_grad_cam.metrics import road as their_road
    from pytorch_grad_cam.utils import image, model_targets

    import captum_advise

    theirs = [pytorch_grad_cam, torchcam.methods, torchcam.metrics, torchcam.utils]
    theirs += [cam_mult_image, their_road, image, model_targets]
    rows = [line.split(" | ") for line in TEXT.splitlines() if line.startswith("| ")]
    named = {
        name for left, _ in rows for name in re.findall(r"`(?:extractor\.)?(\w+)\(?[^`]*`", left)
    }
    known = {"targets", "target_layers", "target_layer", "reshape_transform", "aug_smooth"}
    known |= {"extractor", "normalized", "remove_hooks", "fuse_cams"}
    for name in named - known:
        assert any(hasattr(module, name) for module in theirs), name
    for _, right in rows:
        for part, name in re.findall(r"`(targets|metrics|pixels|visualization|zoo)\.(\w+)", right):
            assert hasattr(getattr(captum_advise, part), name), f"{part}.{name}"
    assert hasattr(torchcam.methods.LayerCAM, "fuse_cams")
