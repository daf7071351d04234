"""From an image file to a label file in the image's own geometry.

The folded network slides over the image on the task's grid; its probabilities (not its labels) are brought back onto
the image's own voxels, whatever their orientation, spacing or obliqueness, and only then decided: that is where
sub-voxel accuracy is kept.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.transforms import SpatialResample

from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.deploy import reparameterize
from rep3d.engines import Engine, choose_engine
from rep3d.errors import ConfigError, ImageError
from rep3d.transforms import preparation
from rep3d.volumes import Geometry, geometry, write_label

__all__ = ["Predictor", "Segmentation", "choose_device", "count_windows", "fit_window", "predictive_uncertainty"]

_OVERLAP = 0.5  # of neighbouring windows, as a share of their sides


@dataclass(frozen=True)
class Segmentation:
    """What :meth:`Predictor.segment` found.

    Attributes:
        volumes_ml: volume of each label in millilitres, in the written label map.
        uncertainty: mean normalised predictive entropy in [0, 1], see :func:`predictive_uncertainty`.
        seconds: time taken by ``read``, ``network`` and ``write``.
        engine: what ran the network, ``"torch"`` or ``"openvino"``.
    """

    volumes_ml: dict[str, float]
    uncertainty: float
    seconds: dict[str, float]
    engine: str


def choose_device(name: str | None = None) -> torch.device:
    """The device of that name, or the best one at hand.

    Raises:
        ConfigError: if the name is unknown or the device is not there.
    """
    if not name or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices. Use 'auto' or 'cpu'."
        )
    return device


def fit_window(roi_size: tuple[int, ...], shape: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """The sliding window for an image: ``roi_size``, but no larger than the image needs at the network's stride.

    Args:
        roi_size: the task's window (D, H, W) in voxels.
        shape: the image (D, H, W) in voxels.
        stride: side lengths must be multiples of this.
    """
    window = tuple(
        min(math.ceil(side / stride), math.ceil(length / stride)) * stride
        for side, length in zip(roi_size, shape, strict=True)
    )
    # The network's deepest stage is normalised over its voxels, so it needs more than one.
    return window if max(window) > stride else (2 * stride, *window[1:])


def count_windows(window: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """How many sliding windows (D, H, W) cover an image (D, H, W), each overlapping the next by half."""
    return math.prod(
        math.ceil(max(length - side, 0) / (side * (1 - _OVERLAP))) + 1
        for side, length in zip(window, shape, strict=True)
    )


def predictive_uncertainty(probabilities: torch.Tensor) -> float:
    """Mean entropy of the prediction in and around the predicted foreground, as a share of the largest possible.

    It is a mean over a region, not a sum over voxels, so a large image is not preferred for being large. Where nothing
    is predicted, the region is the most uncertain hundredth of the voxels.

    Args:
        probabilities: (C, D, H, W) softmax output, C >= 2.

    Returns:
        A number from 0 (certain) to 1 (every class equally likely).
    """
    entropy = -(probabilities * probabilities.clamp_min(1e-8).log()).sum(0) / math.log(probabilities.shape[0])
    foreground = (probabilities[0] < 0.5).float()
    region = torch.nn.functional.max_pool3d(foreground[None, None], 5, 1, 2)[0, 0] > 0
    if bool(region.any()):
        return float(entropy[region].mean())
    return float(entropy.flatten().topk(max(1, entropy.numel() // 100)).values.mean())


class Predictor:
    """A trained model, folded and ready to segment files.

    Not for use from several threads at once.

    Attributes:
        engine: what runs the network, see :mod:`rep3d.engines`; it is the same for all images, so that an image always
            gives the same result (with ``single_image`` it is settled by that image).

    Args:
        checkpoint: the model and its task.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or None for the best at hand.
        engine: ``"torch"``, ``"openvino"`` or ``"auto"``; None for the environment variable ``REP3D_ENGINE``, or auto.
        single_image: set this where only one image will be segmented: a faster engine that takes a second to start is
            then taken only where that image is large enough to pay for it.

    Raises:
        ConfigError: if the device or the engine is unknown or not there.
    """

    engine: Engine

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str | None = None,
        engine: str | None = None,
        *,
        single_image: bool = False,
    ) -> None:
        self.task = checkpoint.task
        self.info = checkpoint.info
        self.version = checkpoint.version
        self.device = choose_device(device)
        self.stride = checkpoint.model.stride
        self.model = reparameterize(checkpoint.model).to(self.device).eval().requires_grad_(False)
        self._engine_name = engine
        self._single_image = single_image
        self.engine = choose_engine(self.model, self.device, engine, voxels=0 if single_image else math.inf)
        self._prepare = preparation(self.task)

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: str | None = None,
        engine: str | None = None,
        *,
        single_image: bool = False,
    ) -> Predictor:
        """From a checkpoint file; the other arguments are those of the class.

        Raises:
            CheckpointError: if the file is not usable.
            ConfigError: if the device or the engine is unknown or not there.
        """
        return cls(load_checkpoint(path), device, engine, single_image=single_image)

    @torch.inference_mode()
    def probabilities(self, image: Path | str) -> MetaTensor:
        """Class probabilities on the task's grid.

        Args:
            image: a NIfTI file.

        Returns:
            (out_channels, D, H, W) softmax output; its ``affine`` places it in RAS mm.

        Raises:
            ImageError: if the file is no readable three-dimensional image.
        """
        return self._probabilities(self._read(image)[1])

    def _read(self, image: Path | str) -> tuple[Geometry, MetaTensor]:
        grid = geometry(image)
        tensor = self._prepare({"image": str(image)})["image"]
        if tensor.ndim != 4 or tensor.shape[0] != 1:
            raise ImageError(
                f"{Path(image).name}: expected a three-dimensional image, got shape {tuple(tensor.shape[1:])}"
            )
        return grid, tensor

    def _probabilities(self, tensor: MetaTensor) -> MetaTensor:
        shape = tuple(tensor.shape[1:])
        window = fit_window(self.task.roi_size, shape, self.stride)
        if self._single_image and self.engine.name == "torch":
            voxels = count_windows(window, shape) * math.prod(window)
            self.engine = choose_engine(self.model, self.device, self._engine_name, voxels)
        inferer = SlidingWindowInferer(window, sw_batch_size=2, overlap=_OVERLAP, mode="gaussian", progress=False)
        try:
            logits = inferer(tensor.as_tensor()[None].to(self.device), self.engine)
        finally:
            self.engine.release()
        return MetaTensor(logits[0].float().softmax(0).cpu(), affine=tensor.affine)

    def uncertainty(self, image: Path | str) -> float:
        """How unsure the model is about an image, from 0 to 1; see :func:`predictive_uncertainty`."""
        return predictive_uncertainty(self.probabilities(image))

    @torch.inference_mode()
    def segment(self, image: Path | str, output: Path | str) -> Segmentation:
        """Segments an image file into a label file with the task's voxel values, on the image's own grid.

        Args:
            image: a NIfTI file.
            output: the label map to write (``.nii.gz``).

        Raises:
            ImageError: if the file is no readable three-dimensional image.
        """
        started = time.perf_counter()
        grid, tensor = self._read(image)
        read = time.perf_counter()
        probabilities = self._probabilities(tensor)
        network = time.perf_counter()
        values = self._decide(probabilities, grid)
        write_label(values, image, output)
        volumes = {name: float((values == value).sum()) * grid.voxel_ml for name, value in self.task.labels.items()}
        uncertainty = predictive_uncertainty(probabilities)
        done = time.perf_counter()
        seconds = {"read": read - started, "network": network - read, "write": done - network}
        return Segmentation(volumes, uncertainty, seconds, self.engine.name)

    def _decide(self, probabilities: MetaTensor, grid: Geometry) -> np.ndarray:
        resample = SpatialResample(mode="bilinear", padding_mode="border", align_corners=True)
        on_image = resample(probabilities, dst_affine=torch.as_tensor(grid.affine), spatial_size=grid.shape)
        channel = torch.as_tensor(on_image).argmax(0).numpy()
        return np.asarray([0, *self.task.label_values])[channel]
