"""Similarity to images or texts."""

import pytest
import torch
import torch.nn.functional as F
from captum.attr import LayerGradCam
from messages import one_sentence
from torch import nn
from toy_networks import images, network

from captum_advise import LayerAdvise
from captum_advise.targets import Embedding

# A random network may hold no evidence for a class.
pytestmark = pytest.mark.filterwarnings("ignore:.*no group of units:UserWarning")

REFERENCES = torch.randn(4, 7, generator=torch.Generator().manual_seed(1))


def test_cosine_similarity():
    net, inputs = network(), images()
    expected = F.cosine_similarity(net(inputs)[:, None], REFERENCES[None], dim=2)
    torch.testing.assert_close(Embedding(net, REFERENCES)(inputs), expected)
    torch.testing.assert_close(Embedding(net, REFERENCES[0] * 9)(inputs), expected[:, :1])


def test_an_image_is_most_similar_to_itself():
    net, inputs = network(), images()
    similarity = Embedding(net, Embedding(net).embed(inputs))(inputs)
    torch.testing.assert_close(similarity.diagonal(), torch.ones(3))
    assert similarity.argmax(1).tolist() == [0, 1, 2]
    torch.testing.assert_close(similarity, similarity.T)


def test_references_of_the_images():
    net, inputs = network(), images()
    own = torch.randn(3, 2, 7)
    scores = Embedding(net, REFERENCES)(inputs, own)
    for image in range(3):
        alone = Embedding(net, own[image])(inputs[image : image + 1])
        torch.testing.assert_close(scores[image : image + 1], alone)
    # LayerAdvise gives masked images their own references.
    advise = LayerAdvise(embedding := Embedding(net), net.layer, confidence=embedding.confidence)
    together = advise.explain(inputs, 1, own, unit_selection="average_drop")
    for image in range(3):
        one = slice(image, image + 1)
        alone = advise.explain(inputs[one], 1, own[one], unit_selection="average_drop")
        torch.testing.assert_close(together.attributions[one], alone.attributions)


def test_a_confidence_of_the_callers():
    net, inputs = network(), images()
    siglip = Embedding(net, REFERENCES, confidence=torch.sigmoid)
    torch.testing.assert_close(siglip(inputs), Embedding(net, REFERENCES)(inputs))
    assert siglip.confidence is torch.sigmoid


@pytest.mark.parametrize("unit_selection", ["avx", "average_drop", 0, None])
@pytest.mark.parametrize("confidence", [None, lambda scores: (10 * scores).softmax(1)])
def test_layer_advise(unit_selection, confidence):
    net, inputs = network(), images()
    references = net(inputs[:2]).detach()
    embedding = Embedding(net, references, confidence=confidence)
    advise = LayerAdvise(embedding, net.layer, confidence=embedding.confidence)
    maps = advise.attribute(inputs, 1, unit_selection=unit_selection)
    if unit_selection is None:
        by_hand = LayerGradCam(lambda x: F.cosine_similarity(net(x), references[1:]), net.layer)
        torch.testing.assert_close(maps, by_hand.attribute(inputs))
    assert maps.shape == (3, 1, 12, 12)


def test_confidence_of_similarities():
    confidence = Embedding(nn.Identity(), REFERENCES).confidence
    assert confidence(torch.tensor([[-0.5, 0.25, 1 + 1e-7]])).tolist() == [[0, 0.25, 1]]


class WithMethod(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = network()

    def forward(self, x):
        raise NotImplementedError

    def features(self, x):
        return self.net.features(x)


def test_a_method_of_the_model_and_pooling():
    model, inputs = WithMethod(), images()
    embedding = Embedding(model, method="features", output=lambda maps: maps.mean((2, 3)))
    expected = F.normalize(model.net.features(inputs).mean((2, 3)), dim=1)
    torch.testing.assert_close(embedding.embed(inputs), expected)


def test_clip():
    transformers = pytest.importorskip("transformers")
    size = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    size["intermediate_size"] = 16
    config = transformers.CLIPConfig(
        text_config={**size, "vocab_size": 50, "bos_token_id": 0, "eos_token_id": 49},
        vision_config={**size, "image_size": 32, "patch_size": 8},
        projection_dim=8,
    )
    model = transformers.CLIPModel(config).eval()
    inputs, tokens = images(height=32, width=32), torch.randint(1, 48, (4, 6))
    tokens[:, -1] = 49
    with torch.no_grad():
        expected = model(input_ids=tokens, pixel_values=inputs)
    zero_shot = Embedding(model, expected.text_embeds, method="get_image_features")
    logits = model.logit_scale.exp() * zero_shot(inputs)
    torch.testing.assert_close(logits, expected.logits_per_image)


def test_timm_without_a_classifier():
    timm = pytest.importorskip("timm")
    model = timm.create_model("mobilenetv3_small_050", num_classes=0).eval()
    inputs = images(height=64, width=64)
    embedding = Embedding(model, Embedding(model).embed(inputs))
    advise = LayerAdvise(embedding, model.blocks[-1], confidence=embedding.confidence)
    explanation = advise.explain(inputs, torch.arange(3))
    torch.testing.assert_close(explanation.confidence, torch.ones(3))


ERRORS = {
    "missing": ((None,), (), "nothing to compare with"),
    "wrong length": ((torch.ones(2, 5),), (), r"\(1, 2, 5\).*\(3, 7\)"),
    "rows of the images": ((None,), (torch.ones(2, 4, 7),), r"\(2, 4, 7\)"),
    "one vector per image": ((None,), (torch.ones(3, 7),), r"\(N, K, D\)"),
    "integers": ((torch.ones(2, 7, dtype=torch.int64),), (), "real vectors"),
    "too many dimensions": ((torch.ones(2, 2, 7),), (), r"\(K, D\)"),
    "none": ((torch.ones(0, 7),), (), "real vectors"),
}


@pytest.mark.parametrize(("made_with", "called_with", "text"), ERRORS.values(), ids=ERRORS)
def test_references_that_do_not_fit(made_with, called_with, text):
    with pytest.raises(ValueError, match=text) as raised:
        Embedding(network(), *made_with)(images(), *called_with)
    one_sentence(raised)


def test_references_that_are_no_tensors():
    for references in (REFERENCES.tolist(), REFERENCES.numpy()):
        with pytest.raises(TypeError, match="references must be a real tensor, got") as raised:
            Embedding(network(), references)
        one_sentence(raised)
        with pytest.raises(TypeError, match="references must be a real tensor, got"):
            Embedding(network())(images(), references)


def test_other_errors():
    with pytest.raises(TypeError, match="no method 'embed_image'") as raised:
        Embedding(network(), REFERENCES, method="embed_image")
    one_sentence(raised)
    with pytest.raises(ValueError, match="pool them by `output`") as raised:
        Embedding(WithMethod(), REFERENCES, method="features")(images())
    one_sentence(raised)
