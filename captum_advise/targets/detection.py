"""Object detection: the score of a box."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_advise._utils.checks import check_real
from captum_advise._utils.errors import warn_caller
from captum_advise._utils.optional_dependencies import import_optional
from captum_advise.targets._wrapper import Wrapper

_KEYS = ("boxes", "labels", "scores")


class Detection(Wrapper):
    """Scores (N, K) of K target boxes, each with a label, in what a detector finds.

    A detection gives the probability of the target's label times the intersection over union (IoU)
    with the target's box. The score is the largest of all detections, and zero if none overlaps.
    An image that is masked or perturbed keeps its target in this way.
    Gradients are those of the probability; the IoU counts as a constant.

    Source: Petsiuk et al., "Black-box Explanation of Object Detectors via Saliency Maps" (D-RISE),
    CVPR 2021, https://arxiv.org/abs/2006.03204

    Two kinds of detectors are known by their output:

    - torchvision's: for each image a dictionary with ``boxes`` (D, 4), ``scores`` (D,) and
      ``labels`` (D,). They leave out detections below a threshold, where the score drops to zero.
      Build them with a low one (``box_score_thresh`` or ``score_thresh``).
    - Hugging Face's DETR and its relatives: ``logits`` (N, D, classes) and ``pred_boxes``
      (N, D, 4). Probabilities are sigmoids, or the softmax where there is one class more than
      ``model.config.num_labels``, "no object".

    Args:
        model: The detector, in eval mode. It is called with the inputs as they are, which
            torchvision's detectors take as a list of images.
        boxes: Target boxes (K, 4) for all images: left, top, right, bottom, in pixels of the
            inputs. None: they belong to the images, and are passed as ``additional_forward_args``
            with their labels: (N, K, 4) and (N, K).
        labels: int64 (K,) labels as the detector numbers them.

    Raises:
        TypeError: Boxes or labels are not tensors; when called, the output is not of these two
            kinds.
        ValueError: Boxes and labels do not fit each other, a box is empty or outside of the image,
            or the detector is in training mode.
        ModuleNotFoundError: torchvision is missing.

    Warns:
        UserWarning: When called for gradients, if an image has no detection of the label that
            overlaps the box, so that score and gradients are zero.

    Example::

        >>> class Detector(torch.nn.Module):
        ...     def forward(self, images):
        ...         boxes = torch.tensor([[4.0, 4.0, 20.0, 20.0]])
        ...         scores = net(images).softmax(1)[:, 3:4]
        ...         labels = torch.tensor([3])
        ...         return [{"boxes": boxes, "scores": s, "labels": labels} for s in scores]
        >>> found = Detection(Detector().eval()).detect(images[:1], min_score=0)[0]
        >>> detection = Detection(Detector().eval(), found["boxes"], found["labels"])
        >>> LayerAdvise(detection, net.conv4).attribute(images, target=0).shape
        torch.Size([2, 1, 8, 8])
    """

    boxes: Tensor | None
    labels: Tensor | None

    def __init__(
        self, model: Callable[..., Any], boxes: Tensor | None = None, labels: Tensor | None = None
    ) -> None:
        super().__init__(model)
        import_optional("torchvision.ops", "zoo")
        if (boxes is None) != (labels is None):
            raise ValueError("boxes and labels belong together: give both, or neither.")
        if boxes is not None and labels is not None:
            check_real(boxes=boxes, labels=labels)
            boxes, labels = boxes.detach(), labels.detach()
            _check_targets(boxes[None], labels[None])
        self.register_buffer("boxes", boxes, persistent=False)
        self.register_buffer("labels", labels, persistent=False)

    def forward(
        self, inputs: Tensor, boxes: Tensor | None = None, labels: Tensor | None = None
    ) -> Tensor:
        """Images (N, C, H, W) to the scores (N, K) of the target boxes, in [0, 1].

        Args:
            inputs: The images.
            boxes, labels: (N, K, 4) and int64 (N, K) targets of the images, instead of the
                constructor's.
        """
        boxes, labels = self._targets(inputs, boxes, labels)
        found = self._detections(inputs, labels)
        boxes, labels = boxes.expand(len(inputs), -1, -1), labels.expand(len(inputs), -1)
        scores = torch.stack([_scores(*image) for image in zip(found, boxes, labels, strict=True)])
        if torch.is_grad_enabled():
            _warn_of_zeros(scores, boxes, labels)
        return scores

    def confidence(self, outputs: Tensor) -> Tensor:
        """The scores (N, K) themselves: products of a probability and an overlap."""
        return outputs

    @torch.no_grad()
    def detect(self, inputs: Tensor, *, min_score: float = 0.5) -> list[dict[str, Tensor]]:
        """What the detector finds, from which targets can be taken.

        Args:
            inputs: (N, C, H, W).
            min_score: Detections with a lower score are left out.

        Returns:
            One dictionary per image with ``boxes`` (D, 4), as the constructor takes them,
            ``labels`` (D,) and ``scores`` (D,), the highest score first.
        """
        found = []
        for image in self._detections(inputs):
            order = image["scores"].argsort(descending=True)
            order = order[image["scores"][order] >= min_score]
            found.append({key: image[key][order] for key in _KEYS})
        return found

    def _targets(
        self, inputs: Tensor, boxes: Tensor | None, labels: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Boxes (N or 1, K, 4) and labels (N or 1, K)."""
        if (boxes is None) != (labels is None):
            raise ValueError("boxes and labels belong together: pass both, or neither.")
        if boxes is None or labels is None:
            if self.boxes is None or self.labels is None:
                raise ValueError(
                    "There is no target: give `boxes` and `labels` to the constructor, or (N, K, "
                    "4) and (N, K) as additional_forward_args."
                )
            boxes, labels = self.boxes[None], self.labels[None]
        else:
            check_real(boxes=boxes, labels=labels)
            _check_targets(boxes, labels)
        if len(boxes) not in (1, len(inputs)):
            raise ValueError(
                f"There are {len(inputs)} images but boxes for {len(boxes)}: pass the boxes of the "
                "images as additional_forward_args, one row per image."
            )
        height, width = inputs.shape[-2:]
        left, top, right, bottom = boxes.unbind(-1)
        is_outside = (left >= width) | (top >= height) | (right <= 0) | (bottom <= 0)
        if bool(is_outside.any()):
            box = [round(value, 1) for value in boxes[is_outside][0].tolist()]
            raise ValueError(
                f"The box {box} is outside of the image, which is {width} pixels wide and {height} "
                "high: boxes are left, top, right, bottom, in pixels of the inputs."
            )
        return boxes, labels

    def _detections(
        self, inputs: Tensor, labels: Tensor | None = None
    ) -> Sequence[Mapping[str, Tensor]]:
        """For each image, boxes (D, 4) in pixels, scores (D,) and labels (D,).

        A DETR's query has all labels; its best one if ``labels``, which are asked for, are None.
        """
        if getattr(self.model, "training", False):
            raise ValueError("The detector is in training mode: call model.eval() first.")
        outputs = self.model(inputs)
        if isinstance(outputs, Sequence) and all(
            isinstance(image, Mapping) and set(_KEYS) <= set(image) for image in outputs
        ):
            return outputs
        n_labels = getattr(getattr(self.model, "config", None), "num_labels", None)
        if isinstance(outputs, Mapping) and n_labels and {"logits", "pred_boxes"} <= set(outputs):
            logits = outputs["logits"]
            has_no_object = logits.shape[2] == n_labels + 1
            scores = logits.softmax(2)[..., :-1] if has_no_object else logits.sigmoid()
            return _of_queries(inputs, scores, outputs["pred_boxes"], labels)
        raise TypeError(
            "A detector returns for each image a dictionary with boxes, scores and labels, or is a "
            "DETR of Hugging Face with logits and pred_boxes and a configuration, got a "
            f"{type(outputs).__name__}: wrap it in a module that returns the first."
        )


def _of_queries(
    inputs: Tensor, scores: Tensor, boxes: Tensor, labels: Tensor | None
) -> list[dict[str, Tensor]]:
    """The detections of a DETR, from scores (N, D, classes) and boxes (N, D, 4)."""
    n_classes = scores.shape[2]
    height, width = inputs.shape[-2:]
    boxes = import_optional("torchvision.ops", "zoo").box_convert(boxes, "cxcywh", "xyxy")
    boxes = boxes * boxes.new_tensor([width, height, width, height])
    if labels is None:
        scores, found = scores.max(2)
    elif bool(((labels < 0) | (labels >= n_classes)).any()):
        raise ValueError(
            f"The labels {labels.flatten().tolist()} are not all classes of the detector, which "
            f"are 0 to {n_classes - 1}."
        )
    else:
        found = torch.arange(n_classes, device=scores.device).repeat(len(scores), scores.shape[1])
        scores, boxes = scores.flatten(1), boxes.repeat_interleave(n_classes, 1)
    return [
        dict(zip(_KEYS, of_image, strict=True))
        for of_image in zip(boxes, found, scores, strict=True)
    ]


def _scores(found: Mapping[str, Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
    """(K,) of targets (K, 4) and (K,): the largest, and zero where there is no detection."""
    iou = import_optional("torchvision.ops", "zoo").box_iou
    overlap = iou(boxes.to(found["boxes"]), found["boxes"].detach())
    is_alike = labels.to(found["labels"].device)[:, None] == found["labels"]
    scores = (overlap * is_alike).to(found["scores"]) * found["scores"]
    return torch.cat([scores, scores.new_zeros(len(boxes), 1)], 1).max(1).values


def _check_targets(boxes: Tensor, labels: Tensor) -> None:
    """Require boxes (N, K, 4) that are not empty, and labels (N, K)."""
    if boxes.dim() != 3 or boxes.shape[2] != 4 or not boxes.numel():
        raise ValueError(
            "boxes must be (K, 4), or (N, K, 4) as additional_forward_args, with at least one box, "
            f"got {tuple(boxes.shape)}."
        )
    if labels.shape != boxes.shape[:2] or labels.is_floating_point():
        raise ValueError(
            f"labels must be integers, one per box, got {labels.dtype} of shape "
            f"{tuple(labels.shape)} for boxes of shape {tuple(boxes.shape)}."
        )
    if not bool((boxes[..., 2:] > boxes[..., :2]).all() & boxes.isfinite().all()):
        raise ValueError(
            "A box is empty or not finite: boxes are left, top, right, bottom, in pixels of the "
            "inputs."
        )


def _warn_of_zeros(scores: Tensor, boxes: Tensor, labels: Tensor) -> None:
    is_zero = scores.detach() == 0
    if not bool(is_zero.any()):
        return
    image, column = is_zero.nonzero()[0].tolist()
    box = [round(value, 1) for value in boxes[image, column].tolist()]
    warn_caller(
        f"No detection of label {int(labels[image, column])} in image {image} overlaps the box "
        f"{box}, so its score and gradients are zero: take the target from `detect`, or build the "
        "detector with a lower score threshold."
    )
