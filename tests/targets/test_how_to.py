"""The code of the how-to page runs, with small models in place of pretrained ones."""

import re
from pathlib import Path

import pytest
import torch
from toy_networks import images, network

from captum_advise import LayerAdvise, targets

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "targets.md"
SECTIONS = {
    title: "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    for title, text in re.findall(r"^##+ (.*?)\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.S | re.M)
}

# A random network may hold no evidence for a target.
pytestmark = pytest.mark.filterwarnings("ignore:.*no group of units:UserWarning")


def segmenter():
    segmentation = pytest.importorskip("torchvision.models.segmentation")
    model = segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=5)
    with torch.no_grad():
        model.classifier[-1].bias[3] += 0.5
    return model


def detector():
    detection = pytest.importorskip("torchvision.models.detection")
    backbone = detection.backbone_utils.resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5
    )
    return detection.FasterRCNN(
        backbone, 4, min_size=64, max_size=64, box_score_thresh=0, box_detections_per_img=20
    )


def timm_model():
    return pytest.importorskip("timm").create_model("mobilenetv3_small_050", num_classes=0)


def clip():
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        text_config={**size, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 49},
        vision_config={**size, "image_size": 64, "patch_size": 16},
        projection_dim=8,
    )
    return transformers.CLIPModel(config)


def convnext():
    transformers = pytest.importorskip("transformers")
    config = transformers.ConvNextConfig(
        hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, num_labels=4
    )
    return transformers.ConvNextForImageClassification(config)


MODELS = {
    "Segmentation": segmenter,
    "Detection": detector,
    "Embeddings": timm_model,
    "Zero-shot classification with CLIP": clip,
    "Regression": network,
    "Several labels per image": network,
    "Hugging Face classifiers, tuples, dictionaries": convnext,
}


def test_every_section_with_code_is_tried():
    with_code = [title for title, code in SECTIONS.items() if code]
    assert with_code == [*MODELS, "Other attributions, and evaluation"]


@pytest.mark.parametrize("title", MODELS)
def test_the_code_runs(title, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {
        "inputs": images(2, height=64, width=64),
        "mask": torch.ones(64, 64),
        "model": MODELS[title]().eval(),
        "text_embeddings": torch.randn(3, 8),
        "torch": torch,
    }
    exec("from captum_advise import LayerAdvise, targets", names)
    exec(SECTIONS[title], names)
    if title.startswith("Hugging Face"):
        exec(SECTIONS["Other attributions, and evaluation"], names)
        assert len(names["evaluation"].results) == 4
    if "attributions" in names:
        assert names["attributions"].shape[:2] in {(2, 1), (1, 1)}
        assert names["attributions"].isfinite().all()


@pytest.mark.parametrize(
    ("make", "wrapper"), [(segmenter, "Segmentation"), (detector, "Detection")]
)
def test_a_whole_backbone_of_torchvision_is_refused(make, wrapper):
    model = make().eval()
    boxes = (torch.tensor([[4.0, 4, 40, 40]]), torch.tensor([1])) if wrapper == "Detection" else ()
    wrapped = getattr(targets, wrapper)(model, *boxes)
    advise = LayerAdvise(wrapped, model.backbone, confidence=wrapped.confidence)
    with pytest.raises(ValueError, match="name a module inside it that returns a tensor"):
        advise.attribute(images(1, height=64, width=64), target=0)
