"""Other labels for a trained network: the body and the rows of labels that stay are kept, bit for bit."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from rep3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rep3d.errors import TaskError
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.fold import reparameterize
from rep3d.nn.rep3d import Rep3D
from rep3d.nn.zoo import build_model
from rep3d.tasks.config import TaskConfig, Term
from rep3d.training.head import head_change, with_labels
from tests.rep3d.nn.test_zoo import SMALL, skip_without_einops

CONFIG = Rep3DConfig(out_channels=3, dims=(2, 2, 2, 2), depths=(1, 1, 1, 1), hidden_size=2, kernel_size=3)
# By value: Head is channel 1, Tail channel 2.
TASK = TaskConfig("toy", {"Tail": 7, "Head": 2}, roi_size=(32, 32, 32), terms={"Tail": Term((1, 2, 3))})
INFO = {"version": "v4", "parent": "v3", "cases": ["a"]}


@pytest.fixture
def trained() -> Checkpoint:
    """Return a network after a few real optimizer steps, so that its statistics and rows are not those of a fresh
    one."""
    torch.manual_seed(0)
    model = Rep3D(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), 0.05)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(1, 1, 32, 32, 32)).square().mean().backward()
        optimizer.step()
    return Checkpoint(model.eval(), TASK, INFO)


def _body(model: Rep3D) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("out.")}


def _rows(model: Rep3D) -> list[torch.Tensor]:
    head = model.out.conv.conv
    return [torch.cat([weight.flatten(), bias[None]]) for weight, bias in zip(head.weight, head.bias, strict=True)]


def test_extended_labels_keep_body_and_rows(trained: Checkpoint, tmp_path: Path) -> None:
    before = {name: tensor.clone() for name, tensor in trained.model.state_dict().items()}
    # Tail now comes first by value, and the new label between the two.
    new, change = with_labels(trained, {"Head": 9, "Body": 5, "Tail": 1})
    assert (change.kept, change.added, change.dropped) == (("Tail", "Head"), ("Body",), ())
    assert change.changed and "Body" in change.message and "body is kept" in change.message
    assert new.task.label_names == ("Tail", "Body", "Head") and new.task.terms == TASK.terms
    for name, tensor in _body(new.model).items():
        assert torch.equal(tensor, before[name]), name
    background, tail, body, head = _rows(new.model)
    old_background, old_head, old_tail = _rows(trained.model)
    assert torch.equal(background, old_background) and torch.equal(head, old_head) and torch.equal(tail, old_tail)
    assert all(not torch.equal(body, row) for row in (old_background, old_head, old_tail))
    bound = CONFIG.dims[0] ** -0.5  # of a convolution's own initialisation with that many inputs
    assert body.abs().max() <= bound and body.abs().min() > 0
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(new.model(x)[:, [0, 3, 1]], trained.model(x), rtol=1e-6, atol=1e-6)
    save_checkpoint(tmp_path / "new.pt", new.model, new.task, new.info)
    loaded = load_checkpoint(tmp_path / "new.pt")
    assert loaded.info["head"] == {"kept": ["Tail", "Head"], "added": ["Body"], "dropped": []}
    assert (loaded.version, loaded.info["parent"]) == ("v4", "v3")
    for name, tensor in trained.model.state_dict().items():
        assert torch.equal(tensor, before[name]), f"the given network was changed: {name}"
    assert trained.info == INFO and trained.model.config.out_channels == 3


def test_what_is_learned_afterwards_does_not_reach_the_given_network(trained: Checkpoint) -> None:
    before = _rows(trained.model)
    new, _ = with_labels(trained, {"Head": 1, "Body": 2})
    with torch.no_grad():
        for parameter in new.model.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(row, old) for row, old in zip(_rows(trained.model), before, strict=True))


def test_dropped_labels_lose_their_row(trained: Checkpoint) -> None:
    new, change = with_labels(trained, {"Tail": 1})
    assert (change.kept, change.added, change.dropped) == (("Tail",), (), ("Head",))
    assert "drops Head" in change.message
    background, _, tail = _rows(trained.model)
    assert [torch.equal(row, old) for row, old in zip(_rows(new.model), (background, tail), strict=True)] == [True] * 2


def test_no_label_in_common_keeps_the_body_and_background(trained: Checkpoint) -> None:
    new, change = with_labels(trained, {"Liver": 1})
    assert (change.kept, change.added, change.dropped) == ((), ("Liver",), ("Head", "Tail"))
    assert torch.equal(_rows(new.model)[0], _rows(trained.model)[0])
    assert all(torch.equal(a, b) for a, b in zip(_body(new.model).values(), _body(trained.model).values(), strict=True))


def test_other_values_alone_change_no_label(trained: Checkpoint) -> None:
    new, change = with_labels(trained, {"Tail": 1, "Head": 2})
    assert not change.changed and "stay" in change.message and "head" not in new.info
    background, head, tail = _rows(trained.model)
    for row, old in zip(_rows(new.model), (background, tail, head), strict=True):
        assert torch.equal(row, old)
    # A change that an earlier training made is not said again of the next one.
    extended, _ = with_labels(trained, {"Head": 1, "Body": 2})
    assert "head" in extended.info
    assert "head" not in with_labels(extended, {"Head": 1, "Body": 2})[0].info


def test_new_rows_follow_the_seed_alone(trained: Checkpoint) -> None:
    labels = {"Head": 1, "Body": 2}
    torch.manual_seed(1)
    one, _ = with_labels(trained, labels, seed=5)
    drawn = torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn), "the caller's random state was used up"
    again, _ = with_labels(trained, labels, seed=5)
    other, _ = with_labels(trained, labels, seed=6)
    assert torch.equal(_rows(one.model)[2], _rows(again.model)[2])
    assert not torch.equal(_rows(one.model)[2], _rows(other.model)[2])


def test_impossible_labels_are_refused(trained: Checkpoint) -> None:
    with pytest.raises(TaskError, match="at least one"):
        with_labels(trained, {})


def test_labels_are_compared_by_name() -> None:
    change = head_change({"liver": 3}, {"tumour": 1, "liver": 2})
    assert (change.kept, change.added, change.dropped) == (("liver",), ("tumour",), ())
    assert not head_change({"liver": 1}, {"liver": 2}).changed


@pytest.mark.parametrize("name", SMALL)
def test_every_network_is_kept_folded_and_given_other_labels(name: str, tmp_path: Path) -> None:
    skip_without_einops(name)
    torch.manual_seed(0)
    model = build_model(name, 1, 3, roi_size=(64, 32, 32), **SMALL[name]).eval()
    save_checkpoint(tmp_path / "model.pt", model, TASK, INFO)
    loaded = load_checkpoint(tmp_path / "model.pt")
    assert type(loaded.model) is type(model) and loaded.model.config == model.config
    kept = loaded.model.state_dict()
    assert all(torch.equal(kept[name], tensor) for name, tensor in model.state_dict().items())
    new, _ = with_labels(loaded, {"Head": 1, "Body": 2, "Tail": 3})
    x = torch.randn(1, 1, 64, 32, 32)
    with torch.no_grad():
        expected = loaded.model(x)
        found = reparameterize(new.model)(x)
        assert found.shape == (1, 4, 64, 32, 32)
        torch.testing.assert_close(found[:, [0, 1, 3]], expected, rtol=1e-4, atol=1e-4)
        deepest = model.deepest(x)
    assert deepest.shape[1] > 3 and 1 < math.prod(deepest.shape[2:]) <= 8 * 4 * 4
    save_checkpoint(tmp_path / "new.pt", new.model, new.task, new.info)
    assert load_checkpoint(tmp_path / "new.pt").model.config.out_channels == 4
