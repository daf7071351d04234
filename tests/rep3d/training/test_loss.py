"""The loss of the classes that are there: values and gradients against MONAI's, and what absent classes do."""

from __future__ import annotations

from collections.abc import Callable

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


LOSSES = [
    lambda possible: PresentDiceCE(None, possible),
    lambda possible: PresentDiceCE(torch.tensor([1.0, 2.0, 3.0, 4.0]), possible),
    lambda possible: PresentDiceCE(None, possible, every=True),
]
IGNORED = torch.ones(1, 4, dtype=torch.bool)
PARTLY = torch.tensor([[True] * 4, [True, False, True, False]])  # class 2 was not annotated


@pytest.mark.parametrize("made", LOSSES)
def test_what_is_ignored_counts_nowhere(made: Callable[..., PresentDiceCE]) -> None:
    logits, label = _batch(4)
    label[:, :, 3:] = 4
    value, gradient = _value_and_gradient(made(IGNORED), logits, label)
    expected, of_rest = _value_and_gradient(made(None), logits[:, :, :3], label[:, :, :3])
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient[:, :, :3], of_rest)
    assert not gradient[:, :, 3:].any()
    value, gradient = _value_and_gradient(made(IGNORED), logits, torch.full_like(label, 4))
    assert abs(float(value)) < 1e-6 and not gradient.any()


@pytest.mark.parametrize("made", LOSSES)
@pytest.mark.parametrize("possible", [IGNORED, PARTLY])
def test_where_all_is_known_the_others_change_nothing(
    made: Callable[..., PresentDiceCE], possible: torch.Tensor
) -> None:
    logits, label = _batch(4)
    for got, expected in zip(
        _value_and_gradient(made(possible), logits, label), _value_and_gradient(made(None), logits, label), strict=True
    ):
        torch.testing.assert_close(got, expected)


def test_each_class_of_each_patch_is_monais() -> None:
    logits, label = _batch(4)
    label[0][label[0] == 3] = 1
    monai = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)
    for got, expected in zip(
        _value_and_gradient(PresentDiceCE(every=True), logits, label),
        _value_and_gradient(monai, logits, label),
        strict=True,
    ):
        torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("every", [False, True])
def test_labels_that_were_not_annotated_are_one_with_background(every: bool) -> None:
    """The loss is that of three classes, of which the first has the probability of background and class 2 together."""
    logits, label = _batch(4)
    label[label == 2] = 0
    merged = torch.stack([logits[:, [0, 2]].logsumexp(1), logits[:, 1], logits[:, 3]], 1)
    expected = PresentDiceCE(every=every)(merged, torch.where(label == 3, 2, label))
    label[label == 0] = 4 + 1
    value, gradient = _value_and_gradient(PresentDiceCE(None, PARTLY, every), logits, label)
    torch.testing.assert_close(value, expected)
    unknown = (label == 5)[:, 0]
    shares = logits.softmax(1)
    # Both are moved together, so what the network says of class 2 there, as against background, stays as it is.
    ratio = gradient[:, 2][unknown] / gradient[:, 0][unknown]
    torch.testing.assert_close(ratio, (shares[:, 2] / shares[:, 0])[unknown], rtol=1e-3, atol=1e-4)


def test_a_whole_case_beside_a_partly_annotated_one() -> None:
    """In one batch each patch is trained on what is known of it."""
    logits, label = _batch(4)
    label[1][(label[1] == 2) | (label[1] == 0)] = 5
    value, gradient = _value_and_gradient(PresentDiceCE(None, PARTLY), logits, label)
    shares, there = logits.softmax(1), label == 5
    dice = []
    for channel in (1, 2, 3):
        found = shares[:, channel : channel + 1] * ~(there & (channel == 2))
        true = label == channel
        dice.append(1 - 2 * (found * true).sum() / (found.sum() + true.sum()))
    true_share = shares.gather(1, label.clamp(max=3))
    entropy = -torch.where(there, shares[:, [0, 2]].sum(1, keepdim=True), true_share).log().mean()
    torch.testing.assert_close(value, torch.stack(dice).mean() + entropy, rtol=1e-4, atol=1e-5)
    assert gradient.isfinite().all()


def test_losses_by_name_know_of_what_is_unknown() -> None:
    for name in ("balanced", "present", "dice_ce"):
        loss = loss_function(name, lambda: [4, 3, 2, 1], PARTLY)
        assert isinstance(loss, PresentDiceCE) and loss.possible is PARTLY and loss.every == (name == "dice_ce")
