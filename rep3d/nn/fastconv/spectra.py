"""Keeps the spectra of kernels between the convolution's calls, for inference, where kernels stay as they are."""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from rep3d.nn.fastconv.dft import ConvolutionPlan

__all__ = ["SpectrumCache"]


class SpectrumCache:
    """Kernel spectra for inference, of the parameters used last, up to a bounded number of bytes.

    An entry holds no reference to its parameter and goes when the parameter dies. It is valid for one version of it:
    optimizers, ``load_state_dict`` and in-place operations raise the version. Edits through ``parameter.data`` do not,
    so on a CPU the entry also keeps the kernels it was computed from and compares them, which costs little. On a GPU
    that would make the host wait; there only spectra of frozen parameters (``requires_grad`` off) are kept.

    Args:
        max_bytes: Bound on the sum of all entries.
        max_entry_bytes: Larger spectra are not kept.
    """

    def __init__(self, max_bytes: int, max_entry_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_entry_bytes = max_entry_bytes
        self._entries: OrderedDict[tuple[Any, ...], _CacheEntry] = OrderedDict()
        self._lock = threading.RLock()

    def get(
        self,
        owner: torch.Tensor,
        kernels: torch.Tensor,
        plan: ConvolutionPlan,
        compute: Callable[[torch.Tensor, ConvolutionPlan], torch.Tensor],
    ) -> torch.Tensor | None:
        """Return the spectrum (C, Mz, My, Mx) of ``kernels`` (C, Kz, Ky, Kx), or None where none is kept.

        Args:
            owner: What ``kernels`` was made from. Only a parameter outlives the call; for anything else nothing is
                kept.
            kernels: The taps of ``owner`` that can reach a voxel.
            plan: Plan of the convolution.
            compute: Makes the spectrum where none is kept yet.
        """
        if owner.is_cuda and (owner.requires_grad or torch.cuda.is_current_stream_capturing()):
            return None  # may change unseen; or a captured graph would hold on to the address of what is kept here
        size = kernels.shape[0] * plan.spectrum_size * kernels.element_size()
        if not isinstance(owner, torch.nn.Parameter) or owner.is_inference() or size > self._max_entry_bytes:
            return None
        key = (id(owner), tuple(kernels.shape), plan.length, kernels.dtype)
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._entries.move_to_end(key)
        if entry is not None and entry.is_valid(owner, kernels):
            return entry.spectrum
        with torch.inference_mode(False), torch.no_grad():  # later calls may not be in inference mode
            entry = _CacheEntry(
                owner=weakref.ref(owner, lambda _: self._entries.pop(key, None)),
                version=owner._version,
                address=owner.data_ptr(),
                kernels=kernels.clone() if kernels.device.type == "cpu" else None,
                spectrum=compute(kernels, plan),
            )
        with self._lock:
            self._entries[key] = entry
            self._drop_oldest()
        return entry.spectrum

    def _drop_oldest(self) -> None:
        excess = sum(entry.size for entry in list(self._entries.values())) - self._max_bytes
        for key in list(self._entries):
            if excess <= 0:
                break
            dropped = self._entries.pop(key, None)
            excess -= 0 if dropped is None else dropped.size


@dataclass(frozen=True, eq=False)
class _CacheEntry:
    """A kernel spectrum and what tells whether it is still that of its owner."""

    owner: weakref.ref[torch.Tensor]
    version: int
    address: int
    kernels: torch.Tensor | None
    spectrum: torch.Tensor

    @property
    def size(self) -> int:
        """Bytes."""
        return self.spectrum.nbytes + (0 if self.kernels is None else self.kernels.nbytes)

    def is_valid(self, owner: torch.Tensor, kernels: torch.Tensor) -> bool:
        same_tensor = self.owner() is owner and self.version == owner._version and self.address == owner.data_ptr()
        return same_tensor and (self.kernels is None or torch.equal(self.kernels, kernels))
