"""In which precision a network is trained: in half of it where the device is fast at that, or where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from monai.inferers import SimpleInferer

from rep3d.inference.device import processor_name

__all__ = ["MixedPrecision", "tensor_cores"]


def _bfloat16_is_fast(device: torch.device) -> bool:
    """Return whether a step is faster in bfloat16 than in float32.

    So it is where there are matrix units for it. AVX512-BF16 alone does it on AMD's processors: on an EPYC a step of
    ``tiny`` took 0.4 to 0.65 of its time in float32, of ``base`` 0.5. Elsewhere it was seen to take 1.2 times as long.
    """
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    return _cpu_has("amx_tile") or (_cpu_has("avx512_bf16") and processor_name().startswith("AMD"))


def _cpu_has(what: str) -> bool:
    probe = getattr(torch.cpu, f"_is_{what}_supported", None)  # not in every release of PyTorch
    return probe is not None and bool(probe())


class MixedPrecision(SimpleInferer):
    """Runs the network in bfloat16 where that is fast (half the time of a step), with float32 weights and loss.

    bfloat16 has float32's range, so no loss scaling is needed.

    Args:
        device: where it runs.
        correct: takes the logits and what they are of, and returns what is trained on.
        precision: ``"auto"``: as above; ``"bfloat16"``: also where it is not fast; ``"float32"``: never in bfloat16.

    Attributes:
        precision: ``"bfloat16"`` or ``"float32"``, in which it is run.
    """

    def __init__(
        self,
        device: torch.device,
        correct: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
        precision: str = "auto",
    ) -> None:
        super().__init__()
        self.correct = correct
        self.device_type = device.type
        fast = precision == "bfloat16" or (precision == "auto" and _bfloat16_is_fast(device))
        self.precision = "bfloat16" if fast else "float32"

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.precision == "bfloat16"):
            found = network(inputs, *args, **kwargs)
        found = [logits.float() for logits in found] if isinstance(found, list) else found.float()
        return found if self.correct is None else self.correct(found, inputs)


@contextmanager
def tensor_cores(device: torch.device) -> Iterator[None]:
    """Let a GPU multiply float32 matrices as TF32, which the large kernels' transforms are made of.

    PyTorch allows this for convolutions anyway; its precision is that of half precision, its range float32's.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
