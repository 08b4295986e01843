"""Figures and numbers in TensorBoard, MLflow and Lightning"""

import numpy as np
import pytest
import torch
from PIL import Image
from toy_networks import Net, images, network

from captum_advise import Explanation, PixelSpace

pytestmark = pytest.mark.filterwarnings("ignore")


def logged(folder):
    tensorboard = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = tensorboard.EventAccumulator(str(folder))
    events.Reload()
    return events


def assert_is_a_figure(image):
    assert image.width > 300
    assert image.height > 300


@pytest.mark.slow
def test_tensorboard(run, tmp_path):
    pytest.importorskip("torch.utils.tensorboard")
    names = run("TensorBoard")
    events = logged(tmp_path / "runs")
    (image,) = events.Images("ADVISE")
    assert_is_a_figure(image)
    for index, avx in enumerate(names["explanation"].metrics.avx.tolist()):
        assert events.Scalars(f"AVX/{index}")[0].value == pytest.approx(avx)


@pytest.mark.slow
def test_mlflow(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow = pytest.importorskip("mlflow")
    explanation = run("MLflow")["explanation"]
    last = mlflow.last_active_run()
    assert last.data.metrics["AVX"] == pytest.approx(explanation.metrics.avx.mean().item())
    (figure,) = (tmp_path / "tracked").rglob("advise.png")
    with Image.open(figure) as image:
        assert_is_a_figure(image)
        assert np.asarray(image.convert("L")).std() > 10
    (file,) = (tmp_path / "tracked").rglob("explanation.npz")
    assert Explanation.load(file).attributions.equal(explanation.attributions)


@pytest.mark.slow
def test_lightning(run, tmp_path):
    lightning = pytest.importorskip("lightning")
    loggers = pytest.importorskip("lightning.pytorch.loggers")

    class Classifier(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.model = network(Net)

        def forward(self, inputs):
            return self.model(inputs)

        def training_step(self, batch, _):
            return torch.nn.functional.cross_entropy(self(batch[0]), batch[1])

        def validation_step(self, batch, _):
            self.log("loss", torch.nn.functional.cross_entropy(self(batch[0]), batch[1]))

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.01)

    data = torch.utils.data.TensorDataset(images(4), torch.tensor([0, 1, 2, 3]))
    loader = torch.utils.data.DataLoader(data, batch_size=2)
    log = run("Lightning")["LogExplanations"]
    trainer = lightning.Trainer(
        max_epochs=2,
        accelerator="cpu",
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=loggers.TensorBoardLogger(tmp_path, name="log"),
        callbacks=[log(images(2), "model.layer", PixelSpace.identity(), target=3)],
    )
    classifier = Classifier()
    before = classifier.model.layer.weight.clone()
    trainer.fit(classifier, loader, loader)
    assert not before.equal(classifier.model.layer.weight)  # training goes on
    assert [image.step for image in logged(trainer.logger.log_dir).Images("ADVISE")] == [2, 4]


@pytest.mark.slow
def test_monai(run, told):
    monai = pytest.importorskip("monai.networks.nets")
    from captum.attr import LayerAttribution, LayerGradCam

    names = run("Signals and volumes", torch=torch, LayerAttribution=LayerAttribution)
    assert isinstance(names["volume_net"], monai.DenseNet121)
    assert names["heat"].shape == (1, 1, 64, 64, 64)
    net, volumes = names["volume_net"], names["volumes"]
    grad_cam = LayerGradCam(net, net.features).attribute(volumes, 1)
    everything = names["volume_advise"].attribute(volumes, 1, unit_selection=None)
    assert everything.equal(grad_cam)
    assert names["attributions"].shape == grad_cam.shape
    assert told == []
