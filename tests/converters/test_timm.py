"""timm and torchvision, where they are installed, read what is written for them; the pooling module makes them exact.

Neither is a dependency of this project.
"""

import numpy as np
import pytest
import torch

import converters
from converters import verification
from converters.networks.in_torch import TensorFlowMaxPool2d
from tests.converters import official


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An official v1 checkpoint with its classifier, as a folder for the hub and as a file."""
    folder = tmp_path_factory.mktemp("timm")
    official.write_tf1(folder / "v1", "r50_1x_v1")
    converters.convert(folder / "v1", folder / "hub", to="huggingface")
    return folder


@pytest.fixture(scope="module")
def done(folder):
    return converters.convert(folder / "v1", folder / "torchvision.pth", naming="torchvision")


def from_hub_folder(folder):
    timm = pytest.importorskip("timm", reason="timm is no dependency of this project")
    return timm.create_model(f"local-dir:{folder / 'hub'}", pretrained=True)


def from_checkpoint_path(folder):
    timm = pytest.importorskip("timm", reason="timm is no dependency of this project")
    return timm.create_model("resnet50", pretrained=False, checkpoint_path=str(folder / "torchvision.pth"))


def from_torchvision(folder):
    torchvision = pytest.importorskip("torchvision", reason="torchvision is no dependency of this project")
    model = torchvision.models.resnet50(weights=None)
    assert model.load_state_dict(torch.load(folder / "torchvision.pth", weights_only=True), strict=True)
    return model


@pytest.mark.slow
@pytest.mark.parametrize("create", [from_hub_folder, from_checkpoint_path, from_torchvision])
def test_other_libraries_models_are_exact_with_tensorflows_pooling_and_only_so(folder, done, create):
    model = create(folder).eval()
    images = verification.images(done.architecture, "float32")
    inputs = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    expected = converters.load_torch(folder / "hub")(inputs)
    with torch.inference_mode():
        assert (model(inputs) - expected["logits_sup"]).abs().max() > 0.01 * expected["logits_sup"].abs().max()
        model.maxpool = TensorFlowMaxPool2d()
        torch.testing.assert_close(model(inputs), expected["logits_sup"])


@pytest.mark.slow
def test_the_number_that_the_report_gives_for_torchvisions_pooling_is_what_its_model_computes(folder, done):
    model = from_torchvision(folder).double().eval()
    model.fc = torch.nn.Identity()
    images = verification.images(done.architecture, "float64")
    with torch.inference_mode():
        features = model(torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))).numpy()
    exact = verification.numpy_endpoints(converters.load(folder / "v1"), images)["final_avg_pool"]
    apart = verification.difference(exact, features, name="final_avg_pool")
    assert apart.relative == pytest.approx(done.torchvision.relative, rel=1e-9)
