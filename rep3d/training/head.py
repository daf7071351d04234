"""A trained network for other labels: its body is kept, and of its head what the new labels share with the old ones.

The last layer is a 1x1x1 convolution (`rep3d.nn.network.head_of` finds it) with one row of weights per label (row 0 is
background), so a label that stays, by name, keeps all that was learned for it, and only the rows of new labels begin
anew.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import nn

from rep3d.checkpoint import Checkpoint
from rep3d.nn.fold import replace_modules
from rep3d.nn.network import head_of

__all__ = ["HeadChange", "head_change", "with_labels"]


@dataclass(frozen=True)
class HeadChange:
    """What becomes of a network's head when its labels change.

    Attributes:
        kept: labels whose rows stay as they were trained.
        added: labels whose rows begin anew.
        dropped: labels that the network knew and that are no longer wanted.
    """

    kept: tuple[str, ...]
    added: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether the labels are others; another order or other voxel values alone change nothing."""
        return bool(self.added or self.dropped)

    def to_dict(self) -> dict[str, list[str]]:
        """As plain JSON types."""
        return {"kept": list(self.kept), "added": list(self.added), "dropped": list(self.dropped)}

    @property
    def message(self) -> str:
        """What happens, in words."""
        if not self.changed:
            return f"the labels stay: {_listed(self.kept)}"
        parts = [f"the model knows {_listed(self.kept + self.dropped)}"]
        if self.dropped:
            parts.append(f"drops {_listed(self.dropped)}")
        if self.added:
            parts.append(f"its body is kept and only the head's rows of {_listed(self.added)} begin anew")
        else:
            parts.append("its body and the head's other rows are kept")
        return "; ".join(parts)


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def head_change(known: Mapping[str, int], wanted: Mapping[str, int]) -> HeadChange:
    """Compare labels by name, each in the order of its voxel values.

    Args:
        known: label name to voxel value of a trained network.
        wanted: those of the network to be.
    """
    old, new = (sorted(labels, key=lambda name: labels[name]) for labels in (known, wanted))
    return HeadChange(
        kept=tuple(name for name in new if name in known),
        added=tuple(name for name in new if name not in known),
        dropped=tuple(name for name in old if name not in wanted),
    )


def with_labels(checkpoint: Checkpoint, labels: Mapping[str, int], seed: int = 0) -> tuple[Checkpoint, HeadChange]:
    """Return a checkpoint for other labels; the given one stays as it is.

    Args:
        checkpoint: a trained network.
        labels: label name to voxel value of the new one.
        seed: of the rows that begin anew.

    Returns:
        The new checkpoint, whose facts say under ``head`` what was changed (nothing where no label changes), and the
        change.

    Raises:
        TaskError: if the labels are impossible.
    """
    old, task = checkpoint.task, checkpoint.task.with_labels(labels)
    change = head_change(old.labels, task.labels)
    # Rows are labels: 0 is background, then the labels by voxel value.
    rows = [(0, 0)]
    rows += [(task.label_names.index(name) + 1, old.label_names.index(name) + 1) for name in change.kept]
    model = copy.deepcopy(checkpoint.model)
    trained = head_of(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = _with_rows(trained, task.out_channels, rows)
    replace_modules(model, lambda module: head if module is trained else None)
    model.config = replace(model.config, out_channels=task.out_channels)
    # What an earlier training changed is not what the next one will change.
    info = {name: fact for name, fact in checkpoint.info.items() if name != "head"}
    if change.changed:
        info["head"] = change.to_dict()
    return Checkpoint(model.eval(), task, info), change


def _with_rows(trained: nn.Conv3d | nn.ConvTranspose3d, count: int, rows: list[tuple[int, int]]) -> nn.Module:
    """Return a new layer of that kind with ``count`` outputs; of the ``rows`` (new, old) it keeps what was trained."""
    head = type(trained)(trained.in_channels, count, kernel_size=1, bias=trained.bias is not None).to(trained.weight)
    new, known = (torch.tensor(column) for column in zip(*rows, strict=True))
    with torch.no_grad():
        # A transposed convolution has its outputs on the second axis.
        axis = int(isinstance(trained, nn.ConvTranspose3d))
        head.weight.transpose(0, axis)[new] = trained.weight.transpose(0, axis)[known]
        if head.bias is not None and trained.bias is not None:
            head.bias[new] = trained.bias[known]
    return head
