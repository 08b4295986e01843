"""The code of the how-to page runs, with small models in place of pretrained ones."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn
from toy_networks import images, network

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "targets.md"
SECTIONS = {
    title: "\n".join(re.findall(r"```python\n(.*?)```", text, re.S))
    for title, text in re.findall(r"^##+ (.*?)\n(.*?)(?=^##|\Z)", PAGE.read_text(), re.S | re.M)
}

# A random network may hold no evidence for a target.
pytestmark = pytest.mark.filterwarnings("ignore:.*no group of units:UserWarning")


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Conv2d(3, 8, 3, stride=8, padding=1), nn.Conv2d(8, 5, 1)
        with torch.no_grad():
            self.head.bias[3] += 0.5

    def forward(self, x):
        return {"out": self.head(self.backbone(x).relu())}


def retinanet():
    detection = pytest.importorskip("torchvision.models.detection")
    anchors = pytest.importorskip("torchvision.models.detection.anchor_utils").AnchorGenerator
    backbone = nn.Conv2d(3, 8, 3, stride=8, padding=1)
    backbone.out_channels = 8
    model = detection.RetinaNet(
        backbone, 4, min_size=64, max_size=64, anchor_generator=anchors(((16, 32),)), score_thresh=0
    )
    # Without training all scores are 0.01.
    nn.init.zeros_(model.head.classification_head.cls_logits.bias)
    return model


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
    "Segmentation": Segmenter,
    "Detection": retinanet,
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
