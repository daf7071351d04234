"""The loss of the classes that are there: values and gradients against MONAI's, and what absent classes do."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceCELoss, DiceLoss

from rep3d.training.loss import PresentDiceCE, class_weights, loss_function


def _batch(channels: int, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(channels)
    logits = torch.randn(batch, channels, 6, 5, 4, dtype=torch.float32)
    return logits, torch.randint(channels, (batch, 1, 6, 5, 4))


def _value_and_gradient(
    loss: torch.nn.Module, logits: torch.Tensor, label: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = logits.clone().requires_grad_()
    value = loss(logits, label)
    return value.detach(), torch.autograd.grad(value, logits)[0]


@pytest.mark.parametrize(("channels", "batch"), [(2, 1), (3, 2), (14, 1), (14, 3)])
@pytest.mark.parametrize("kind", [torch.uint8, torch.int32, torch.float32])
def test_with_all_classes_there_it_is_monais(channels: int, batch: int, kind: torch.dtype) -> None:
    logits, label = _batch(channels, batch)
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
    for got, expected in zip(
        _value_and_gradient(PresentDiceCE(), logits, label.to(kind)),
        _value_and_gradient(monai, logits, label),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


def test_a_class_that_is_not_there_counts_by_cross_entropy_alone() -> None:
    logits, label = _batch(4)
    label[label == 3] = 1
    value, gradient = _value_and_gradient(PresentDiceCE(), logits, label)
    dice = DiceLoss(include_background=False, to_onehot_y=True, batch=True)(logits.softmax(1)[:, :3], label)
    torch.testing.assert_close(value, dice + torch.nn.functional.cross_entropy(logits, label[:, 0]))
    assert (gradient[:, 3] > 0).all()  # wherever it is claimed, it is pushed down
    nothing = torch.zeros_like(label)
    value, gradient = _value_and_gradient(PresentDiceCE(), logits, nothing)
    torch.testing.assert_close(value, torch.nn.functional.cross_entropy(logits, nothing[:, 0]))
    assert gradient.isfinite().all()


def test_rare_classes_weigh_more_in_the_cross_entropy() -> None:
    weights = class_weights([900, 100, 0, 25])
    torch.testing.assert_close(weights, torch.tensor([1025 / 900, 10.25, 41.0, 41.0]).sqrt())
    logits, label = _batch(4)
    plain, weighted = (PresentDiceCE(each)(logits, label) for each in (None, weights))
    entropy = [torch.nn.functional.cross_entropy(logits, label[:, 0], each) for each in (None, weights)]
    torch.testing.assert_close(weighted - plain, entropy[1] - entropy[0])


def test_the_names_of_the_settings_are_the_losses() -> None:
    counts = [8, 2]
    balanced, present = loss_function("balanced", lambda: counts), loss_function("present", lambda: counts)
    assert isinstance(balanced, PresentDiceCE) and isinstance(present, PresentDiceCE)
    assert balanced.weights is not None and present.weights is None
    assert isinstance(loss_function("dice_ce", lambda: counts), DiceCELoss)
