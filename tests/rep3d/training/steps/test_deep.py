"""Deep supervision: the decoder's levels learn, and the network that is kept is the same with and without."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rep3d.errors import ConfigError
from rep3d.nn.network import Network
from rep3d.nn.rep3d import Rep3D
from rep3d.nn.zoo import build_model
from rep3d.training.settings import TrainSettings
from rep3d.training.steps.deep import DeepLoss, DeeplySupervised
from tests.rep3d.balls import small_config


@pytest.mark.parametrize("name", ["rep3d", "dynunet"])
def test_each_level_of_the_decoder_says_the_labels_and_gets_gradients(name: str) -> None:
    torch.manual_seed(0)
    sides = (32, 16, 16) if name == "rep3d" else (64, 32, 32)
    network: Network = Rep3D(small_config()) if name == "rep3d" else build_model("dynunet", preset="tiny")
    before = set(network.state_dict())
    deep = DeeplySupervised(network)
    image, label = torch.rand(1, 1, *sides), torch.ones(1, 1, *sides, dtype=torch.int32)
    found = deep.train()(image)
    assert [tuple(logits.shape[2:]) for logits in found] == [
        tuple(side // part for side in sides) for part in (1, 2, 4, 8)
    ] and {logits.shape[1] for logits in found} == {2}
    DeepLoss(_Mean())(found, label).backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in deep.heads)
    assert set(network.state_dict()) == before
    network.eval()
    with torch.no_grad():
        assert torch.equal(deep.eval()(image), network(image))


class _Mean(nn.Module):
    """Is the mean of the logits of channel 1 where the label is 1."""

    def forward(self, logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        return logits[:, 1:][label == 1].mean()


def test_coarser_levels_weigh_half_as_much_each() -> None:
    label = torch.zeros(1, 1, 8, 8, 8, dtype=torch.int32)
    label[..., :4] = 1
    logits = [torch.full((1, 2, side, side, side), value) for side, value in ((8, 1.0), (4, 10.0), (2, 100.0))]
    assert float(DeepLoss(_Mean())(logits, label)) == pytest.approx((1 + 10 / 2 + 100 / 4) / 1.75)
    assert float(DeepLoss(_Mean())(logits[1][:, :, :], label[..., ::2, ::2, ::2])) == 10


def test_what_has_no_levels_is_refused_before_anything_is_read() -> None:
    for changes in ({"preset": "segresnet"}, {"preset": "tiny", "stages": "auto"}, {"deep_supervision": "yes"}):
        with pytest.raises(ConfigError, match="deep_supervision: expected"):
            TrainSettings(**{"deep_supervision": True, **changes})
    with pytest.raises(ConfigError, match="no levels to supervise"):
        DeeplySupervised(build_model("basicunet"))
