"""From an image file to a label file in the image's own geometry.

The folded network slides over the image on the task's grid; its probabilities (not its labels) are brought back onto
the image's own voxels, whatever their orientation, spacing or obliqueness, and only then decided: that is where
sub-voxel accuracy is kept.
"""

from __future__ import annotations

import copy
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers.utils import dense_patch_slices

from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.errors import ConfigError
from rep3d.fair_lock import device_turn
from rep3d.imaging.dicom import as_nifti
from rep3d.imaging.grid import Geometry
from rep3d.imaging.nifti import IMAGE_SUFFIXES, write_label, write_share
from rep3d.imaging.saving import label_bytes
from rep3d.imaging.transforms import preparation
from rep3d.inference.engines import Engine, choose_engine
from rep3d.inference.label_resampling import decide, interpolated_map
from rep3d.inference.region import Box
from rep3d.inference.sliding import WindowTurns, check_memory, count_windows, fit_window, sliding_probabilities
from rep3d.inference.uncertainty import label_confidence, regional_mean, voxel_entropy
from rep3d.inference.views import VIEWS, check_views
from rep3d.nn.fold import reparameterize
from rep3d.output import check_output, require_room

__all__ = ["Predictor", "Segmentation", "choose_device", "count_windows", "fit_window"]


@dataclass(frozen=True)
class Segmentation:
    """What :meth:`Predictor.segment` found.

    Attributes:
        volumes_ml: volume of each label in millilitres, in the written label map.
        uncertainty: mean normalised predictive entropy in [0, 1], see :func:`rep3d.inference.uncertainty.mean_entropy`.
        seconds: time taken by ``read``, ``network`` and ``write``.
        engine: what ran the network, ``"torch"`` or ``"openvino"``.
        confidence: mean probability of each label where it is the most probable, on the task's grid; for a label so
            small that it is that nowhere on this grid, its highest probability there; None where it is absent from the
            written label map.
        device: where the network ran.
        fallback: what was done for want of memory, in words; None where there was enough.
        version: of the model.
    """

    volumes_ml: dict[str, float]
    uncertainty: float
    seconds: dict[str, float]
    engine: str
    confidence: dict[str, float | None]
    device: str
    fallback: str | None
    version: str


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of that name, or the best one at hand.

    Raises:
        ConfigError: if the name is unknown or the device is not there.
    """
    if not name or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"There is no {name!r} here: this machine has {torch.cuda.device_count()} CUDA devices. "
            f"Use 'auto' or 'cpu'."
        )
    return device


@dataclass(frozen=True)
class _Prepared:
    """An image that was read: its file (of a DICOM series, the NIfTI form), its grid, and what the network sees."""

    file: Path
    grid: Geometry
    tensor: MetaTensor


class Predictor:
    """A trained model, folded and ready to segment files.

    May be used from several threads at once: their windows are then computed in turn.

    Attributes:
        engine: what runs the network, see :mod:`rep3d.inference.engines`; the same for all images, so that an image
            always gives the same result (with ``single_image`` it is settled by that image).

    Args:
        checkpoint: the model and its task.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or None for the best at hand.
        engine: ``"torch"``, ``"openvino"`` or ``"auto"``; None for the environment variable ``REP3D_ENGINE``, or auto.
        single_image: set this where only one image will be segmented: a faster engine that takes a second to start is
            then taken only where that image is large enough to pay for it.
        values: the voxel value to write for each label name; labels of the model that it lacks become background. None
            for the values of the model's task.

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
        values: Mapping[str, int] | None = None,
    ) -> None:
        self.task = checkpoint.task
        self.info = checkpoint.info
        self.version = checkpoint.version
        self.device = choose_device(device)
        self.stride = checkpoint.model.stride
        self.values = dict(self.task.labels if values is None else values)
        self.model = reparameterize(checkpoint.model).to(self.device).eval().requires_grad_(False)
        self._engine_name = engine
        self._single_image = single_image
        self.engine = choose_engine(self.model, self.device, engine, voxels=0 if single_image else math.inf)
        self._prepare = preparation(self.task)
        self._users_guard = threading.Lock()
        self._users = 0

    @classmethod
    def load(
        cls,
        path: Path | str,
        device: str | None = None,
        engine: str | None = None,
        *,
        single_image: bool = False,
        values: Mapping[str, int] | None = None,
    ) -> Predictor:
        """From a checkpoint file; the other arguments are those of the class.

        Raises:
            CheckpointError: if the file is not usable.
            ConfigError: if the device or the engine is unknown or not there.
        """
        return cls(load_checkpoint(path), device, engine, single_image=single_image, values=values)

    # What it says about an image --------------------------------------------------------------------------------

    @torch.inference_mode()
    def probabilities(self, image: Path | str, views: int = 1) -> MetaTensor:
        """Class probabilities on the task's grid, the mean over test-time views.

        Args:
            image: a NIfTI file, or a folder with one DICOM series.
            views: how many of `rep3d.inference.views.VIEWS`; 1 is the plain image.

        Returns:
            (out_channels, D, H, W) softmax output; its ``affine`` places it in RAS mm.

        Raises:
            ImageError: if it is no readable three-dimensional image.
        """
        with self._read(image) as prepared:
            return MetaTensor(self._mean(prepared.tensor, views, self._turns()), affine=prepared.tensor.affine)

    def view_probabilities(self, image: Path | str, views: int) -> Iterator[MetaTensor]:
        """Class probabilities on the task's grid, one test-time view after the other, the plain image first.

        Raises and arguments as :meth:`probabilities`.
        """
        check_views(views)
        with self._read(image) as prepared:
            for found in self._views(prepared.tensor, views, self._turns()):
                yield MetaTensor(found, affine=prepared.tensor.affine)

    @torch.inference_mode()
    def features(self, image: Path | str) -> np.ndarray:
        """Return what the network's deepest level makes of an image, averaged over the voxels of all windows.

        Args:
            image: as in :meth:`probabilities`.

        Returns:
            float32 vector, one number per channel of the deepest level.

        Raises:
            ImageError: if it is no readable three-dimensional image.
        """
        with self._read(image) as prepared:
            tensor = prepared.tensor.as_tensor()
        shape = tuple(tensor.shape[1:])
        window = fit_window(self.task.roi_size, shape, self.stride)
        missing = [max(side - length, 0) for side, length in zip(window, shape, strict=True)]
        padding = [width for total in reversed(missing) for width in (total // 2, total - total // 2)]
        padded = torch.nn.functional.pad(tensor[None], padding)
        found = []
        for place in dense_patch_slices(padded.shape[2:], window, window):
            with device_turn(self.device):
                deepest = self.model.deepest(padded[(slice(None), slice(None), *place)].to(self.device))
                found.append(deepest.float().mean((0, 2, 3, 4)).cpu())
        return torch.stack(found).mean(0).numpy()

    @torch.inference_mode()
    def segment(
        self,
        image: Path | str,
        output: Path | str,
        *,
        views: int = 1,
        box: Box | None = None,
        uncertainty: Path | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Segmentation:
        """Segment an image into a label file with the voxel values of its labels, on the image's own grid.

        Args:
            image: a NIfTI file, or a folder with one DICOM series.
            output: the label map to write (``.nii.gz`` or ``.nii``), into a folder that is there.
            views: how many test-time views to average; 1 for none.
            box: compute and write only this part; the rest becomes background.
            uncertainty: also write here, as NIfTI on the image's grid, the entropy of the prediction, from 0 (certain)
                to 1, in steps of 1/255; 0 outside the box.
            cancelled: asked before each window, and before each layer of the network.

        Raises:
            OutputError: if a file cannot be written, or is the image.
            DiskFullError: if there is no room for it.
            ImageError: if it is no readable three-dimensional image, or if the box holds none of its voxels.
            OutOfMemoryError: if the image or the result does not fit into memory.
            ConfigError: if there are not so many views.
            InferenceCancelled: if ``cancelled`` said True; nothing was written.
        """
        check_views(views)
        check_output(output, IMAGE_SUFFIXES, (image, uncertainty))
        if uncertainty is not None:
            check_output(uncertainty, IMAGE_SUFFIXES, (image, output))
        started = time.perf_counter()
        with self._read(image) as prepared:
            require_room(Path(output).parent, label_bytes(prepared.grid, output), str(output))
            region = box.on(prepared.grid) if box else None
            tensor = self._crop(prepared, region) if region else prepared.tensor
            read = time.perf_counter()
            turns = self._turns(cancelled)
            probabilities = self._mean(tensor, views, turns)
            network = time.perf_counter()
            turns.check()
            found = decide(probabilities, tensor.affine.numpy(), prepared.grid, self._values(), region)
            entropy = voxel_entropy(probabilities)
            turns.check()
            write_label(found.values, prepared.file, output)
            if uncertainty is not None:
                shares = interpolated_map(entropy, tensor.affine.numpy(), prepared.grid, region)
                write_share(shares, prepared.file, uncertainty)
        voxel_ml = prepared.grid.voxel_ml
        counts = dict(zip(self.task.label_names, found.counts[1:], strict=True))
        volumes = {name: counts.get(name, 0) * voxel_ml for name in self.values}
        overall = regional_mean(entropy, probabilities)
        confidence = self._confidence(probabilities, counts)
        done = time.perf_counter()
        seconds = {"read": read - started, "network": network - read, "write": done - network}
        return Segmentation(
            volumes,
            overall,
            seconds,
            turns.engine.name,
            confidence,
            str(turns.computed_on),
            turns.fallback,
            self.version,
        )

    # How --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _read(self, image: Path | str) -> Iterator[_Prepared]:
        with as_nifti(image) as file:
            tensor = self._prepare({"image": str(file)})["image"]
            grid = Geometry(tuple(tensor.meta["stored_shape"]), np.asarray(tensor.meta["stored_affine"]))
            yield _Prepared(file, grid, tensor)

    def _turns(self, cancelled: Callable[[], bool] | None = None) -> WindowTurns:
        return WindowTurns(self.engine, self.device, self._spare_engine, cancelled)

    def _spare_engine(self) -> Engine:
        cpu = torch.device("cpu")
        return choose_engine(copy.deepcopy(self.model).to(cpu), cpu, "auto")

    @contextmanager
    def _in_use(self, engine: Engine) -> Iterator[None]:
        """Keep the engine's buffers for as long as any request uses it."""
        with self._users_guard:
            self._users += 1
        try:
            yield
        finally:
            with self._users_guard:
                self._users -= 1
                if not self._users:
                    engine.release()

    def _views(self, tensor: MetaTensor, views: int, turns: WindowTurns) -> Iterator[torch.Tensor]:
        image = tensor.as_tensor()
        shape = tuple(image.shape[1:])
        window = fit_window(self.task.roi_size, shape, self.stride)
        padded = tuple(max(side, length) for side, length in zip(window, shape, strict=True))
        channels = self.task.out_channels
        check_memory(channels, padded, maps=1 if views == 1 else 3)
        if self._single_image and self.engine.name == "torch":
            voxels = views * count_windows(window, shape) * math.prod(window)
            self.engine = turns.engine = choose_engine(self.model, self.device, self._engine_name, voxels)
        for view in VIEWS[:views]:
            with torch.inference_mode(), self._in_use(turns.engine):
                found = view.predict(image, window, lambda seen: sliding_probabilities(seen, window, turns, channels))
            yield found

    def _mean(self, tensor: MetaTensor, views: int, turns: WindowTurns) -> torch.Tensor:
        check_views(views)
        found = self._views(tensor, views, turns)
        total = next(found)
        for other in found:
            total += other
        return total.div_(views) if views > 1 else total

    def _values(self) -> list[int]:
        """Return the voxel value of each output channel."""
        return [0, *(self.values.get(name, 0) for name in self.task.label_names)]

    def _confidence(self, probabilities: torch.Tensor, counts: Mapping[str, int]) -> dict[str, float | None]:
        on_grid = dict(zip(self.task.label_names, label_confidence(probabilities)[1:], strict=True))
        found: dict[str, float | None] = {}
        for name in self.values:
            present = counts.get(name, 0) > 0
            found[name] = on_grid[name] if present else None
            if present and on_grid[name] is None:
                found[name] = float(probabilities[1 + self.task.label_names.index(name)].max())
        return found

    def _crop(self, prepared: _Prepared, region: tuple[slice, slice, slice]) -> MetaTensor:
        """Return what a region of the stored image needs of the prepared one, with surroundings for the network.

        The intensities were scaled before, by the whole image, as in training.
        """
        tensor = prepared.tensor
        to_grid = np.linalg.inv(tensor.affine.numpy()) @ prepared.grid.affine
        corners = np.array(np.meshgrid(*[(part.start, part.stop - 1) for part in region])).reshape(3, -1)
        index = to_grid[:3, :3] @ corners + to_grid[:3, 3:]
        around = np.array(self.task.roi_size) // 4
        low = np.clip(np.floor(index.min(1)).astype(int) - around, 0, np.array(tensor.shape[1:]) - 1)
        high = np.clip(np.ceil(index.max(1)).astype(int) + around + 1, low + 1, tensor.shape[1:])
        part = tensor.as_tensor()[(slice(None), *(slice(a, b) for a, b in zip(low, high, strict=True)))]
        affine = tensor.affine.clone()
        affine[:3, 3] += affine[:3, :3] @ torch.as_tensor(low, dtype=affine.dtype)
        return MetaTensor(part.contiguous(), affine=affine)
