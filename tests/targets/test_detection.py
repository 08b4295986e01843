"""The score of a box."""

import pkgutil
import warnings
from types import SimpleNamespace

import pytest
import torch
from captum.attr import IntegratedGradients, LayerGradCam
from hypothesis import given
from hypothesis import strategies as st
from messages import one_sentence
from torch import nn
from toy_networks import images

from captum_advise import LayerAdvise
from captum_advise.evaluation import evaluate
from captum_advise.metrics import deletion_auc
from captum_advise.targets import Detection

detectors = pytest.importorskip("torchvision.models.detection")
backbones = pytest.importorskip("torchvision.models.detection.backbone_utils")

# A random network may hold no evidence for a box.
pytestmark = pytest.mark.filterwarnings("ignore:.*no group of units:UserWarning")


class Given(nn.Module):
    """The same detections in every image, with scores in proportion to its mean value."""

    def __init__(self, boxes, scores, labels):
        super().__init__()
        self.boxes, self.labels = torch.tensor(boxes).view(-1, 4), torch.tensor(labels)
        self.scores = torch.tensor(scores)
        self.layer = nn.Identity()

    def forward(self, images):
        means = self.layer(torch.stack(list(images))).mean((1, 2, 3))
        return [
            {"boxes": self.boxes, "labels": self.labels, "scores": mean * self.scores}
            for mean in means
        ]


def detector(*detections):
    boxes, scores, labels = zip(*detections, strict=True) if detections else ((), (), ())
    return Given([list(map(float, box)) for box in boxes], list(scores), list(labels)).eval()


def score(model, box, label, inputs=None):
    inputs = torch.ones(1, 3, 20, 20) if inputs is None else inputs
    return Detection(model, torch.tensor([box]).float(), torch.tensor([label]))(inputs)


def test_score_times_overlap():
    model = detector(((0, 0, 10, 10), 0.5, 1), ((5, 0, 15, 10), 0.9, 1), ((0, 0, 10, 10), 1.0, 2))
    cases = {
        ((0, 0, 10, 10), 1): 0.5,  # 0.5 * 1 beats 0.9 * 1 / 3
        ((0, 0, 10, 10), 2): 1.0,
        ((4, 0, 14, 10), 1): 0.9 * 9 / 11,
        ((0, 5, 10, 15), 2): 1 / 3,
        ((0, 0, 20, 20), 1): 0.9 / 4,
    }
    with torch.no_grad():
        for (box, label), expected in cases.items():
            torch.testing.assert_close(score(model, box, label), torch.tensor([[expected]]))
        boxes = torch.tensor([box for box, _ in cases]).float()
        labels = torch.tensor([label for _, label in cases])
        several = Detection(model, boxes, labels)(torch.ones(2, 3, 20, 20))
    torch.testing.assert_close(several, torch.tensor([list(cases.values())] * 2))


def test_metrics_take_the_scores_of_three_boxes_as_they_are():
    boxes = [(0, 0, 9, 9), (2, 2, 15, 15), (10, 0, 19, 19)]
    model = detector(*((box, score, 1) for box, score in zip(boxes, (0.9, 0.6, 0.3), strict=True)))
    detection = Detection(model, torch.tensor(boxes).float(), torch.ones(3, dtype=torch.int64))
    inputs, maps, target = torch.ones(3, 3, 20, 20), torch.rand(3, 1, 20, 20), torch.arange(3)
    # The score falls with the mean of the image, in a straight line to zero.
    area = deletion_auc(detection, inputs, maps, target, baselines=torch.zeros(1, 3, 1, 1))
    torch.testing.assert_close(area, torch.tensor([0.45, 0.3, 0.15]))


CORNER = st.integers(0, 9)
BOX = st.tuples(CORNER, CORNER, st.integers(1, 10), st.integers(1, 10)).map(
    lambda c: (c[0], c[1], c[0] + c[2], c[1] + c[3])
)
FOUND = st.lists(st.tuples(BOX, st.floats(0.125, 1, width=16), st.integers(1, 3)), max_size=5)


def pixels(box):
    left, top, right, bottom = box
    return {(x, y) for x in range(left, right) for y in range(top, bottom)}


@given(FOUND, BOX, st.integers(1, 3))
def test_score_by_counting_pixels(found, box, label):
    expected = max(
        (
            value * len(pixels(box) & pixels(other)) / len(pixels(box) | pixels(other))
            for other, value, found_label in found
            if found_label == label
        ),
        default=0.0,
    )
    with torch.no_grad():
        actual = score(detector(*found), box, label)
    torch.testing.assert_close(actual, torch.tensor([[expected]]))


def test_gradients_are_those_of_the_best_score():
    model = detector(((0, 0, 10, 10), 0.5, 1), ((0, 0, 10, 5), 0.8, 1))
    inputs = torch.ones(2, 3, 20, 20, requires_grad=True)
    score(model, (0, 0, 10, 10), 1, inputs).sum().backward()
    torch.testing.assert_close(inputs.grad, torch.full_like(inputs, 0.5 / inputs[0].numel()))


@pytest.mark.parametrize(
    "model",
    [
        detector(),
        detector(((0, 0, 10, 10), 0.5, 2)),
        detector(((11, 11, 20, 20), 0.5, 1)),
    ],
    ids=["nothing", "another label", "elsewhere"],
)
def test_a_target_that_matches_nothing(model):
    inputs, box = torch.ones(1, 3, 20, 20, requires_grad=True), (0, 0, 10, 10)
    with pytest.warns(UserWarning, match=r"label 1 in image 0 overlaps the box \[0.0, 0.0") as seen:
        found = score(model, box, 1, inputs)
    assert str(seen[0].message).count(". ") == 0
    assert found.tolist() == [[0]]
    found.sum().backward()
    assert not inputs.grad.any()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error")
        assert score(model, box, 1).tolist() == [[0]]


def small_backbone(channels=16):
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=4, padding=1), nn.ReLU(), nn.Conv2d(8, channels, 3, stride=2)
    )
    net.out_channels = channels
    return net


def anchors(sizes=(16, 32), ratios=(0.5, 1.0, 2.0)):
    utils = pytest.importorskip("torchvision.models.detection.anchor_utils")
    return utils.AnchorGenerator((sizes,), (ratios,))


def faster_rcnn():
    ops = pytest.importorskip("torchvision.ops")
    pool = ops.MultiScaleRoIAlign(["0"], output_size=3, sampling_ratio=1)
    return detectors.FasterRCNN(
        small_backbone(),
        4,
        min_size=64,
        max_size=64,
        rpn_anchor_generator=anchors(),
        box_roi_pool=pool,
        box_score_thresh=0.0,
        box_detections_per_img=10,
    )


def mask_rcnn():
    ops = pytest.importorskip("torchvision.ops")
    return detectors.MaskRCNN(
        small_backbone(),
        4,
        min_size=64,
        max_size=64,
        rpn_anchor_generator=anchors(),
        box_roi_pool=ops.MultiScaleRoIAlign(["0"], output_size=3, sampling_ratio=1),
        mask_roi_pool=ops.MultiScaleRoIAlign(["0"], output_size=3, sampling_ratio=1),
        box_score_thresh=0.0,
        box_detections_per_img=5,
    )


def retinanet():
    return detectors.RetinaNet(
        small_backbone(),
        4,
        min_size=64,
        max_size=64,
        anchor_generator=anchors(),
        score_thresh=0.0,
        topk_candidates=20,
    )


def fcos():
    model = detectors.FCOS(
        small_backbone(32),
        4,
        min_size=64,
        max_size=64,
        anchor_generator=anchors((8,), (1.0,)),
        score_thresh=0.0,
        topk_candidates=20,
    )
    # Without training most boxes are empty.
    nn.init.ones_(model.head.regression_head.bbox_reg.bias)
    return model


def ssd():
    ssd_module = pytest.importorskip("torchvision.models.detection.ssd")
    utils = pytest.importorskip("torchvision.models.detection.anchor_utils")
    backbone = small_backbone()
    backbone.out_channels = [16]
    return ssd_module.SSD(
        backbone, utils.DefaultBoxGenerator([[2]], steps=[8]), (64, 64), 4, score_thresh=0.0
    )


def ssdlite():
    return detectors.ssdlite320_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4, score_thresh=0.0, topk_candidates=20
    )


TORCHVISION = [
    (faster_rcnn, "backbone.2"),
    (mask_rcnn, "backbone.2"),
    (retinanet, "backbone.2"),
    (fcos, "backbone.2"),
    (ssd, "backbone.2"),
    pytest.param(ssdlite, "backbone.features.0.13", marks=pytest.mark.slow),
]


def by_hand(model, layer_output, inputs, box, label):
    """The best detection's score, and its gradient with respect to the layer."""
    (found,) = model([inputs[0]])
    left, top, right, bottom = found["boxes"].detach().unbind(1)
    width = (torch.minimum(right, box[2]) - torch.maximum(left, box[0])).clamp(min=0)
    height = (torch.minimum(bottom, box[3]) - torch.maximum(top, box[1])).clamp(min=0)
    area = (box[2] - box[0]) * (box[3] - box[1])
    union = (right - left) * (bottom - top) + area - width * height
    values = width * height / union * found["scores"] * (found["labels"] == label)
    best = int(values.argmax())
    (gradient,) = torch.autograd.grad(values[best], layer_output[-1])
    return values[best], gradient


@pytest.mark.parametrize(("make", "layer_name"), TORCHVISION)
def test_torchvision(make, layer_name):
    model = make().eval()
    layer, inputs = model.get_submodule(layer_name), images(2, height=64, width=64)
    flags = {name: module.training for name, module in model.named_modules()}
    found = Detection(model).detect(inputs, min_score=0.0)
    boxes, labels = found[0]["boxes"][:2], found[0]["labels"][:2]
    # The box is moved, so that the overlap counts as well.
    boxes = (boxes + torch.tensor([0.0, 0.0, 2.0, 2.0])).contiguous()
    detection = Detection(model, boxes, labels)

    layer_output = []
    handle = layer.register_forward_hook(lambda _m, _i, output: layer_output.append(output))
    expected = [by_hand(model, layer_output, inputs, *t) for t in zip(boxes, labels, strict=True)]
    handle.remove()
    torch.testing.assert_close(
        detection(inputs[:1])[0], torch.stack([value for value, _ in expected]).detach()
    )
    maps = LayerGradCam(detection, layer).attribute(inputs[:1], target=1)
    gradient, activation = expected[1][1], layer_output[1].detach()
    torch.testing.assert_close(
        maps, (gradient.mean((2, 3), keepdim=True) * activation).sum(1, keepdim=True)
    )
    options = {"confidence": detection.confidence, "activation_range": "minmax"}
    explanation = LayerAdvise(detection, layer, **options).explain(inputs[:1], target=0)
    torch.testing.assert_close(explanation.confidence, expected[0][0].detach()[None])
    assert {name: module.training for name, module in model.named_modules()} == flags
    assert not layer._forward_hooks


@pytest.mark.parametrize("unit_selection", ["avx", "average_drop", 0, None])
def test_layer_advise_keeps_the_boxes_of_each_image(unit_selection):
    model = retinanet().eval()
    detection, inputs = Detection(model), images(3, height=32, width=32)
    found = detection.detect(inputs, min_score=0.0)
    boxes = torch.stack([image["boxes"][:2] for image in found])
    labels = torch.stack([image["labels"][:2] for image in found])
    advise = LayerAdvise(detection, model.backbone[2], confidence=detection.confidence)

    def explain(examples):
        return advise.explain(
            inputs[examples], 1, (boxes[examples], labels[examples]), unit_selection=unit_selection
        )

    together = explain(slice(0, 3))
    torch.testing.assert_close(
        together.confidence, torch.stack([image["scores"][1] for image in found])
    )
    for image in range(3):
        alone = explain(slice(image, image + 1))
        torch.testing.assert_close(
            together.attributions[image], alone.attributions[0], rtol=1e-3, atol=1e-6
        )


def test_captum_keeps_the_boxes_of_each_image():
    model = detector(((0, 0, 10, 10), 0.5, 1), ((10, 10, 20, 20), 0.8, 2))
    boxes = torch.tensor([[[0.0, 0, 10, 10]], [[10.0, 10, 20, 20]]])
    labels = torch.tensor([[1], [2]])
    inputs = torch.rand(2, 3, 20, 20)
    with warnings.catch_warnings():  # the path of Integrated Gradients starts at black
        warnings.simplefilter("ignore")
        attributions = IntegratedGradients(Detection(model)).attribute(
            inputs, target=0, additional_forward_args=(boxes, labels), n_steps=4
        )
    expected = torch.tensor([0.5, 0.8]) * inputs.mean((1, 2, 3))
    torch.testing.assert_close(attributions.sum((1, 2, 3)), expected)


def test_evaluate(tmp_path):
    model, inputs = retinanet().eval(), images(2, height=32, width=32)
    found = Detection(model).detect(inputs[:1], min_score=0.0)[0]
    detection = Detection(model, found["boxes"][:2], found["labels"][:2])
    evaluation = evaluate(
        detection,
        model.backbone[2],
        [(image, 0) for image in inputs],
        ["layer-advise-minmax", "grad-cam"],
        tmp_path,
        confidence=detection.confidence,
        progress=False,
    )
    assert len(evaluation.results) == 4
    assert evaluation.failures.empty
    assert evaluation.results["confidence"][0] == pytest.approx(float(found["scores"][0]))


def detr(transformers, **options):
    backbone = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        out_features=["stage2"],
    )
    config = transformers.DetrConfig(
        backbone_config=backbone,
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_ffn_dim=16,
        decoder_ffn_dim=16,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        num_queries=6,
        num_labels=5,
        **options,
    )
    return transformers.DetrForObjectDetection(config).eval()


def test_hugging_face_detr():
    transformers = pytest.importorskip("transformers")
    image_processors = pytest.importorskip("transformers.models.detr.image_processing_detr")
    model = detr(transformers)
    inputs = images(2, height=48, width=64)
    found = Detection(model).detect(inputs, min_score=0.0)
    processed = image_processors.DetrImageProcessor().post_process_object_detection(
        model(pixel_values=inputs), threshold=0.0, target_sizes=[(48, 64)] * 2
    )
    for ours, theirs in zip(found, processed, strict=True):
        order = theirs["scores"].argsort(descending=True)
        torch.testing.assert_close(ours["scores"], theirs["scores"][order].detach())
        torch.testing.assert_close(ours["boxes"], theirs["boxes"][order].detach())
    box, label = found[0]["boxes"][0], int(found[0]["labels"][0])
    probabilities = model(inputs).logits.softmax(2)[..., :-1]
    detection = Detection(model, box[None], torch.tensor([label]))
    torch.testing.assert_close(
        detection(inputs)[0, 0], probabilities[0].max(), rtol=1e-4, atol=1e-6
    )
    layer = model.get_submodule(
        next(name for name, _ in model.named_modules() if name.endswith("encoder.stages.1"))
    )
    options = {"confidence": detection.confidence, "activation_range": "minmax"}
    explanation = LayerAdvise(detection, layer, **options).explain(inputs, 0)
    torch.testing.assert_close(explanation.confidence, detection(inputs)[:, 0].detach())
    with pytest.raises(ValueError, match=r"\[5\].*0 to 4") as raised:
        Detection(model, box[None], torch.tensor([5]))(inputs)
    one_sentence(raised)


def yolos(transformers):
    config = transformers.YolosConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=[64, 96],
        patch_size=16,
        num_detection_tokens=5,
        num_labels=4,
    )
    return transformers.YolosForObjectDetection(config)


def rt_detr(transformers):
    backbone = transformers.RTDetrResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 16, 16, 16],
        depths=[1, 1, 1, 1],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = transformers.RTDetrConfig(
        backbone_config=backbone,
        encoder_in_channels=[16] * 3,
        encoder_hidden_dim=16,
        encoder_ffn_dim=16,
        encoder_attention_heads=2,
        d_model=16,
        decoder_in_channels=[16] * 3,
        decoder_ffn_dim=16,
        decoder_layers=2,
        decoder_attention_heads=2,
        num_queries=6,
        num_denoising=0,
        num_labels=5,
        eval_size=None,
    )
    return transformers.RTDetrForObjectDetection(config)


@pytest.mark.parametrize(
    ("make", "processor"),
    [
        (yolos, "yolos.image_processing_yolos.YolosImageProcessor"),
        (rt_detr, "rt_detr.image_processing_rt_detr.RTDetrImageProcessor"),
    ],
)
def test_relatives_of_detr(make, processor):
    transformers = pytest.importorskip("transformers")
    model, inputs = make(transformers).eval(), images(2, height=64, width=96)
    with torch.no_grad():
        processed = pkgutil.resolve_name(
            f"transformers.models.{processor}"
        )().post_process_object_detection(
            model(inputs), threshold=0.0, target_sizes=torch.tensor([(64, 96)] * 2)
        )
    for ours, theirs in zip(Detection(model).detect(inputs, min_score=0.0), processed, strict=True):
        best = theirs["scores"].argmax()
        torch.testing.assert_close(ours["scores"][0], theirs["scores"][best])
        torch.testing.assert_close(ours["boxes"][0], theirs["boxes"][best])
        assert ours["labels"][0] == theirs["labels"][best]


class Queries(nn.Module):
    """What a DETR returns, from given logits and boxes."""

    def __init__(self, logits, boxes, num_labels=None):
        super().__init__()
        self.outputs = {"logits": logits, "pred_boxes": boxes}
        if num_labels is not None:
            self.config = SimpleNamespace(num_labels=num_labels)

    def forward(self, inputs):
        return {key: value.expand(len(inputs), -1, -1) for key, value in self.outputs.items()}


@pytest.mark.parametrize(
    ("num_labels", "is_softmax"),
    [(2, True), (3, False)],
)
def test_probabilities_of_queries(num_labels, is_softmax):
    logits = torch.tensor([[[1.0, 2.0, 3.0], [0.0, -1.0, 0.5]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.5, 1.0], [0.25, 0.25, 0.5, 0.5]]])
    model = Queries(logits, boxes, num_labels=num_labels).eval()
    targets = torch.tensor([[10.0, 0, 30, 20], [0.0, 0, 20, 10]])  # of 40 x 20 pixels
    scores = Detection(model, targets, torch.tensor([1, 0]))(torch.rand(1, 3, 20, 40))
    probabilities = logits.softmax(2)[0] if is_softmax else logits.sigmoid()[0]
    overlap = 100 / (400 + 200 - 100)
    expected = [
        max(probabilities[0, 1], overlap * probabilities[1, 1]),
        max(probabilities[1, 0], overlap * probabilities[0, 0]),
    ]
    torch.testing.assert_close(scores[0], torch.stack(expected))
    with pytest.raises(TypeError, match="a DETR of Hugging Face") as raised:
        Detection(Queries(logits, boxes).eval()).detect(torch.rand(1, 3, 20, 40))
    one_sentence(raised)


def test_detect_sorts_and_leaves_out():
    model = detector(((0, 0, 10, 10), 0.3, 1), ((0, 0, 5, 5), 0.9, 2), ((0, 0, 7, 7), 0.6, 3))
    (found,) = Detection(model).detect(torch.ones(1, 3, 20, 20))
    assert found["labels"].tolist() == [2, 3]
    assert found["scores"].tolist() == pytest.approx([0.9, 0.6])
    assert found["boxes"].tolist() == [[0, 0, 5, 5], [0, 0, 7, 7]]


BOX_TENSOR, LABEL = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([1])
TARGETS = {
    "only boxes": (BOX_TENSOR, None, "belong together"),
    "flat": (BOX_TENSOR[0], LABEL, r"boxes must be \(K, 4\)"),
    "no box": (BOX_TENSOR[:0], LABEL[:0], "at least one box"),
    "labels of other boxes": (BOX_TENSOR, torch.tensor([1, 2]), "one per box"),
    "names": (BOX_TENSOR, torch.tensor([1.0]), "integers"),
    "empty": (torch.tensor([[5.0, 0, 5, 10]]), LABEL, "empty or not finite"),
    "width and height": (torch.tensor([[9.0, 9, 4, 4]]), LABEL, "left, top, right, bottom"),
    "NaN": (BOX_TENSOR * float("nan"), LABEL, "not finite"),
    "right of the image": (BOX_TENSOR + 20, LABEL, r"\[20.0, 20.0, 30.0, 30.0\] is outside"),
    "left of the image": (BOX_TENSOR - 10, LABEL, "20 pixels wide and 20 high"),
}


@pytest.mark.parametrize(("boxes", "labels", "text"), TARGETS.values(), ids=TARGETS)
def test_targets_that_do_not_fit(boxes, labels, text):
    with pytest.raises(ValueError, match=text) as raised:
        Detection(detector(), boxes, labels)(torch.ones(1, 3, 20, 20))
    one_sentence(raised)


def test_targets_of_the_images_that_do_not_fit():
    inputs, detection = torch.ones(3, 3, 20, 20), Detection(detector())
    for arguments, text in (
        ((), "no target"),
        ((BOX_TENSOR[None],), "belong together"),
        ((BOX_TENSOR.expand(2, 1, 4), LABEL.expand(2, 1)), "3 images but boxes for 2"),
    ):
        with pytest.raises(ValueError, match=text) as raised:
            detection(inputs, *arguments)
        one_sentence(raised)


def test_targets_that_are_no_tensors():
    images, detection = torch.ones(1, 3, 20, 20), Detection(detector())
    for boxes, labels, text in (
        (BOX_TENSOR.tolist(), LABEL, "boxes must be a real tensor, got list"),
        (BOX_TENSOR.numpy(), LABEL, "boxes must be a real tensor, got ndarray"),
        (BOX_TENSOR, LABEL.tolist(), "labels must be a real tensor, got list"),
    ):
        with pytest.raises(TypeError, match=text) as raised:
            Detection(detector(), boxes, labels)
        one_sentence(raised)
        with pytest.raises(TypeError, match=text):
            detection(images, boxes, labels)


def test_models_that_are_no_detectors():
    for model in (lambda x: x, lambda x: {"boxes": x}, lambda x: [{"boxes": x}]):
        with pytest.raises(TypeError, match="boxes, scores and labels") as raised:
            Detection(model, BOX_TENSOR, LABEL)(torch.ones(1, 3, 20, 20))
        one_sentence(raised)
    with pytest.raises(ValueError, match=r"model.eval\(\)") as raised:
        Detection(detector().train(), BOX_TENSOR, LABEL)(torch.ones(1, 3, 20, 20))
    one_sentence(raised)
