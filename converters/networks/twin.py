"""Weights into the PyTorch twin."""

import torch

from converters.layout import to_layout
from converters.names.network import Network
from converters.names.recognise import NAMINGS
from converters.networks.in_torch import TwinResNet
from converters.pytorch.by_torch import to_torch


def build_twin(network: Network, *, dtype: torch.dtype = torch.float32) -> TwinResNet:
    """The twin of a network with its weights, in evaluation mode.

    Args:
        network: Its weights are read one after the other.
        dtype: Of the twin; weights are cast to it.
    """
    with torch.device("meta"):  # without random starting values, which take longer than the conversion
        twin = TwinResNet(network.architecture)
    twin = twin.to(dtype).to_empty(device="cpu")
    state = dict(twin.named_parameters()) | dict(twin.named_buffers())
    with torch.no_grad():
        for hub, key in NAMINGS["twin"].table(network.architecture).items():
            state[key].copy_(to_torch(to_layout(network[hub], torch=True)))
        for key, number in NAMINGS["twin"].extras(network.architecture).items():
            state[key].fill_(number)
    return twin.eval()
