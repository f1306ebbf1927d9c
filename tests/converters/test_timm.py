"""timm, where it is installed, reads the folder that is written for the hub; the pooling module makes it exact."""

import pytest
import torch

import converters
from converters.torch_resnet import TensorFlowMaxPool2d
from tests.converters import official

timm = pytest.importorskip("timm", reason="timm is no dependency of this project")


def test_timm_reads_the_hub_folder_and_is_exact_with_tensorflows_pooling(tmp_path):
    official.write_tf1(tmp_path / "v1", "r50_1x_v1")
    converters.convert(tmp_path / "v1", tmp_path / "hub", to="huggingface")
    model = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
    twin, images = converters.load_torch(tmp_path / "hub"), torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = twin(images)["logits_sup"]
        assert (model(images) - expected).abs().max() > 0.01 * expected.abs().max()
        model.maxpool = TensorFlowMaxPool2d()
        torch.testing.assert_close(model(images), expected)
