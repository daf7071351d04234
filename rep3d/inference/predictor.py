"""From an image file to a label file in the image's own geometry.

The folded network slides over the image on the task's grid; its probabilities (not its labels) are brought back onto
the image's own voxels, whatever their orientation, spacing or obliqueness, and only then decided: that is where
sub-voxel accuracy is kept.

Only the part of an image that holds the patient is computed (`rep3d.imaging.body`); outside is background. Where a
version has a fine stage (`rep3d.inference.fine`), it looks again where the first one found something.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers.utils import dense_patch_slices

from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.errors import CheckpointError
from rep3d.fair_lock import device_turn
from rep3d.imaging.body import BodyMask, body_mask
from rep3d.imaging.channels import Files, as_files
from rep3d.imaging.dicom import as_nifti
from rep3d.imaging.grid import Geometry, Place
from rep3d.imaging.nifti import IMAGE_SUFFIXES, write_label, write_share
from rep3d.imaging.saving import label_bytes
from rep3d.imaging.transforms import ImageSteps
from rep3d.inference.device import choose_device
from rep3d.inference.engines import FLOAT32
from rep3d.inference.ensemble import check_members
from rep3d.inference.fine import FineStage
from rep3d.inference.first_look import worth_computing
from rep3d.inference.label_resampling import decide, interpolated_map
from rep3d.inference.region import Box, cropped, overlap, region_of, surroundings, widened
from rep3d.inference.segmentation import Segmentation
from rep3d.inference.sliding import WindowTurns, check_memory, count_windows, fit_window, sliding_probabilities
from rep3d.inference.stage import Stage, kept_type
from rep3d.inference.tuned import Way, tuned_way
from rep3d.inference.uncertainty import label_confidence, regional_mean, voxel_entropy
from rep3d.inference.views import VIEWS, check_views
from rep3d.output import check_output, require_room

__all__ = ["Predictor", "Segmentation", "choose_device", "count_windows", "fit_window"]


@dataclass(frozen=True)
class _Prepared:
    """An image that was read.

    Attributes:
        file: its file, of several channels the first one's; of a DICOM series, the NIfTI form.
        grid: its grid.
        image: its voxels as they are stored, for a fine stage; None where there is none.
        tensor: what the network sees of it.
        body: where the patient is in that.
    """

    file: Path
    grid: Geometry
    image: MetaTensor | None
    tensor: MetaTensor
    body: BodyMask


class Predictor(Stage):
    """A trained model, folded and ready to segment files.

    May be used from several threads at once: their windows are then computed in turn.

    Attributes:
        fine: the second stage; None where the version has none.
        others: further models of an ensemble; the mean of all probabilities counts.
        tuned: as :class:`Segmentation` has it.

    Args:
        checkpoint: the model and its task.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or None for the best at hand.
        engine: ``"torch"``, ``"openvino"`` or ``"auto"``; None for the environment variable ``REP3D_ENGINE``, or auto.
        single_image: set this where only one image will be segmented: a faster engine that takes a second to start is
            then taken only where that image is large enough to pay for it.
        values: the voxel value to write for each label name; labels of the model that it lacks become background. None
            for the values of the model's task.
        others: models for the same task, such as those of the other folds.
        way: how to compute; None for what was measured for each version, see :mod:`rep3d.inference.tuned`.

    Raises:
        CheckpointError: if the models do not fit each other.
        ConfigError: if the device or the engine is unknown or not there.
        CheckpointError: if the network takes other channels than the task's images have.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        device: str | None = None,
        engine: str | None = None,
        *,
        single_image: bool = False,
        values: Mapping[str, int] | None = None,
        others: Sequence[Checkpoint] = (),
        way: Way | None = None,
    ) -> None:
        if checkpoint.model.in_channels != checkpoint.task.in_channels:
            raise CheckpointError(
                f"This model cannot be used alone: its images have {checkpoint.task.in_channels} channels, and its "
                f"network takes {checkpoint.model.in_channels}, as the fine stage of a model does."
            )
        check_members(checkpoint, others)
        at = choose_device(device)
        found = [(way, None) if way else tuned_way(each, at, engine) for each in (checkpoint, *others)]
        ways = [each for each, _ in found]
        super().__init__(checkpoint, at, engine, single_image, ways[0])
        self.info = checkpoint.info
        self.version = " + ".join(each.version for each in (checkpoint, *others))
        self.others = [
            Stage(other, at, engine, single_image, each) for other, each in zip(others, ways[1:], strict=True)
        ]
        told = [
            words
            for stage, (way_of, words) in zip((self, *self.others), found, strict=True)
            if words and (way_of.precision == FLOAT32 or stage.engine.name != "torch")  # else it did not start
        ]
        self.tuned = " ".join(dict.fromkeys(told)) or None
        self.values = dict(self.task.labels if values is None else values)
        self.fine = FineStage(checkpoint.fine, at, engine, single_image, ways[0]) if checkpoint.fine else None
        self._steps = ImageSteps(self.task)

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
    def probabilities(self, image: Files, views: int = 1) -> MetaTensor:
        """Class probabilities on the task's grid, the mean over test-time views; of two stages, the coarse one's.

        Args:
            image: a NIfTI file, or a folder with one DICOM series; of several channels, one 4D file or one of these for
                each, in the task's order.
            views: how many of `rep3d.inference.views.VIEWS`; 1 is the plain image.

        Returns:
            (out_channels, D, H, W) softmax output; its ``affine`` places it in RAS mm.

        Raises:
            ImageError: if it is no readable three-dimensional image.
        """
        with self._read(image) as prepared:
            part, body, place = self._part(prepared)
            return _on_whole(self._mean(part, body, views, self.turns()), place, prepared.tensor)

    def view_probabilities(self, image: Files, views: int) -> Iterator[MetaTensor]:
        """Class probabilities on the task's grid, one test-time view after the other, the plain image first.

        Raises and arguments as :meth:`probabilities`.
        """
        check_views(views)
        with self._read(image) as prepared:
            part, body, place = self._part(prepared)
            for found in self._views(part, body, views, self.turns()):
                yield _on_whole(found, place, prepared.tensor)

    @torch.inference_mode()
    def features(self, image: Files) -> np.ndarray:
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
        image: Files,
        output: Path | str,
        *,
        views: int = 1,
        box: Box | None = None,
        uncertainty: Path | None = None,
        cancelled: Callable[[], bool] | None = None,
        coarse: bool = False,
    ) -> Segmentation:
        """Segment an image into a label file with the voxel values of its labels, on the image's own grid.

        Args:
            image: as in :meth:`probabilities`.
            output: the label map to write (``.nii.gz`` or ``.nii``), into a folder that is there.
            views: how many test-time views to average; 1 for none.
            box: compute and write only this part; the rest becomes background.
            uncertainty: also write here, as NIfTI on the image's grid, the entropy of the prediction, from 0 (certain)
                to 1, in steps of 1/255; 0 outside the box.
            cancelled: asked before each window, and before each layer of the network.
            coarse: of two stages, use the first alone, which takes seconds.

        Raises:
            OutputError: if a file cannot be written, or is the image.
            DiskFullError: if there is no room for it.
            ImageError: if it is no readable three-dimensional image, has other channels than the task, or if the box
                holds none of its voxels.
            OutOfMemoryError: if the image or the result does not fit into memory.
            ConfigError: if there are not so many views.
            InferenceCancelled: if ``cancelled`` said True; nothing was written.
        """
        check_views(views)
        check_output(output, IMAGE_SUFFIXES, (*as_files(image), uncertainty))
        if uncertainty is not None:
            check_output(uncertainty, IMAGE_SUFFIXES, (*as_files(image), output))
        started = time.perf_counter()
        with self._read(image) as prepared:
            require_room(Path(output).parent, label_bytes(prepared.grid, output), str(output))
            region = box.on(prepared.grid) if box else None
            part, body, _ = self._part(prepared, region)
            read = time.perf_counter()
            turns = self.turns(cancelled)
            if self.way.first_look and self.fine is None and not self.others:
                part, body = worth_computing(self, part, body, turns)
            first = MetaTensor(self._mean(part, body, views, turns), affine=part.affine)
            last, refined = turns, None
            if self.fine is not None and not coarse:
                assert prepared.image is not None, "it is kept where there is a fine stage"
                again = self.fine.turns(cancelled)
                refined = self.fine.refine(prepared.image, first, views, again)
                turns.fallback = " ".join(filter(None, (turns.fallback, again.fallback))) or None
                coarse = refined is None and again.fallback is not None
                last = turns if refined is None else again
            network = time.perf_counter()
            turns.check()
            result = first if refined is None else refined
            probabilities = result.as_tensor()
            within = overlap(region_of(result, prepared.grid), region)
            found = decide(probabilities, result.affine.numpy(), prepared.grid, self._values(), within)
            entropy = voxel_entropy(probabilities)
            turns.check()
            write_label(found.values, prepared.file, output)
            if uncertainty is not None:
                shares = interpolated_map(entropy, result.affine.numpy(), prepared.grid, within)
                if refined is not None:  # around it, the coarse stage's
                    wide = overlap(region_of(first, prepared.grid), region)
                    inner = shares[within]
                    unsure = voxel_entropy(first.as_tensor())
                    shares = interpolated_map(unsure, first.affine.numpy(), prepared.grid, wide)
                    shares[within] = inner
                write_share(shares, prepared.file, uncertainty)
        voxel_ml = prepared.grid.voxel_ml
        counts = dict(zip(self.task.label_names, found.counts[1:], strict=True))
        overall = regional_mean(entropy, probabilities)
        confidence = self._confidence(probabilities, counts)
        done = time.perf_counter()
        return Segmentation(
            volumes_ml={name: counts.get(name, 0) * voxel_ml for name in self.values},
            uncertainty=overall,
            seconds={"read": read - started, "network": network - read, "write": done - network},
            engine=last.engine.name,
            confidence=confidence,
            device=str(last.computed_on),
            fallback=turns.fallback,
            version=self.version,
            stage="coarse" if self.fine is not None and coarse else "all",
            tuned=self.tuned,
        )

    # How --------------------------------------------------------------------------------------------------------

    @contextmanager
    def _read(self, image: Files) -> Iterator[_Prepared]:
        with ExitStack() as stack:
            files = [stack.enter_context(as_nifti(file)) for file in as_files(image)]
            stored = self._steps.read(files)
            grid = Geometry(tuple(stored.meta["stored_shape"]), np.asarray(stored.meta["stored_affine"]))
            spaced = self._steps.spaced(stored)
            hounsfield = [intensity.mode == "window" for intensity in self.task.intensities]
            spacing = tuple(spaced.affine[:3, :3].norm(dim=0).tolist())
            body = body_mask(spaced.as_tensor(), spacing, self.task.orientation, hounsfield)
            kept = stored if self.fine is not None else None
            del stored  # a large image's voxels are not held for nothing
            yield _Prepared(files[0], grid, kept, self._steps.scaled(spaced), body)

    def _part(self, prepared: _Prepared, region: Place | None = None) -> tuple[MetaTensor, BodyMask, Place]:
        """Return what must be computed of an image, for a region of it or all; the body in it; and where that lies.

        The intensities were scaled before, by the whole image, as in training.
        """
        whole = prepared.tensor
        shape = tuple(whole.shape[1:])
        place = prepared.body.box(shape)
        if region is not None:
            around = [side // 4 for side in self.task.roi_size]
            asked = surroundings(region, prepared.grid, whole, around)
            shared = overlap(asked, place)
            place = shared if all(part.start < part.stop for part in shared) else asked
        place = widened(place, self.window(shape), shape)
        return cropped(whole, place), prepared.body.within(place), place

    def _views(
        self, part: MetaTensor, body: BodyMask, views: int, turns: WindowTurns, member: Stage | None = None
    ) -> Iterator[torch.Tensor]:
        stage = member or self
        image = part.as_tensor()
        shape = tuple(image.shape[1:])
        window = stage.window(shape)
        padded = tuple(max(side, length) for side, length in zip(window, shape, strict=True))
        channels = self.task.out_channels
        kind = kept_type(channels, shape)
        maps = 1 if views == 1 and not self.others else 3
        check_memory(channels, padded, maps=maps, each=kind.itemsize, window=window)
        stage.settle_engine(turns, views * stage.work(shape))
        for view in VIEWS[:views]:
            wanted = None if view.moves else body.holds
            predict = partial(
                sliding_probabilities,
                window=window,
                turns=turns,
                channels=channels,
                wanted=wanted,
                dtype=kind,
                overlap=stage.way.overlap,
            )
            with torch.inference_mode(), stage.in_use(turns.engine):
                found = view.predict(image, window, predict)
            yield found

    def _mean(self, part: MetaTensor, body: BodyMask, views: int, turns: WindowTurns) -> torch.Tensor:
        check_views(views)
        total, count = torch.empty(0), 0
        for member in (None, *self.others):
            own = member.turns(turns.cancelled) if member else turns
            for found in self._views(part, body, views, own, member):
                count += 1
                total = total.lerp_(found, 1 / count) if count > 1 else found  # no sum that half precision would round
            if own.fallback and own is not turns:
                turns.fallback = " ".join(filter(None, (turns.fallback, own.fallback)))
        return total

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


def _on_whole(found: torch.Tensor, place: Place, whole: MetaTensor) -> MetaTensor:
    """Return the probabilities of a part as those of the whole image, which is background elsewhere."""
    shape = (len(found), *whole.shape[1:])
    if found.shape != shape:
        part, found = found, torch.zeros(shape)
        found[0] = 1
        found[(slice(None), *place)] = part
    return MetaTensor(found.float(), affine=whole.affine)
