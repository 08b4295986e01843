from __future__ import annotations

import pytest

from captum_advise import cli, zoo


def rows(capsys, *options):
    assert cli.main(["layers", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [
        [cell.strip() for cell in line.strip("│┃").split("│")] for line in lines if "│" in line
    ]
    return {cells[0]: cells[1:] for cells in cells}


@pytest.mark.parametrize("name", [name for name in zoo.list_networks() if "lite1" not in name])
def test_the_layers_that_are_taken_are_marked(name, capsys):
    found = rows(capsys, "--model", name)
    network = zoo.load(name, weights="random")
    assert [key for key, row in found.items() if "default" in row[2]] == [network.layer_name]
    gated = [key for key, row in found.items() if "GatedGradCam" in row[2]]
    assert set(gated) == set(network.layer_names)


def test_classes_and_shapes(capsys):
    found = rows(capsys, "--model", "torchvision/resnet18")
    assert found["conv1"][:2] == ["Conv2d", "64 x 112 x 112"]
    assert found["layer3"][:2] == ["Sequential", "256 x 14 x 14"]
    assert found["layer4"] == ["Sequential", "512 x 7 x 7", "by default, by GatedGradCam"]
    assert not {"avgpool", "fc"} & set(found)
    assert (*found,)[:: len(found) - 1] == ("conv1", "layer4")


def test_tokens(capsys):
    found = rows(capsys, "--model", "timm/test_vit")
    assert found["blocks.5.norm1"] == ["LayerNorm", "64 x 10 x 10", "by default"]


def test_every_layer_of_the_list_can_be_loaded(capsys):
    names = list(rows(capsys, "--model", "timm/test_resnet"))
    for name in names:
        assert zoo.load("timm/test_resnet", weights="random", layer=name).layer_name == name


def test_an_unknown_network(capsys):
    assert cli.main(["layers", "--model", "resnt50"]) == 2
    assert "did you mean resnet50" in capsys.readouterr().err
