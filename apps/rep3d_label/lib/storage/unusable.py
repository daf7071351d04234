"""Which images nobody can work with, and why: found out once, for all who would meet it.

An image is unusable if it cannot be read as a three-dimensional grey image with the server's channels, or if its axes
are not at right angles, which 3D Slicer cannot show; one that was annotated elsewhere all the same stays in use. Its
header is looked at when it appears, its voxels when somebody is about to work with it. What was found is remembered
with the file's time stamp, so a file that changes is looked at again, and a restart reads nothing twice.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np

from lib.channels import Channels, joined_stamp
from lib.errors import NotFoundError, in_words, is_out_of_memory
from lib.storage.entries import CaseFiles
from lib.storage.passed_over import PassedOver
from lib.storage.registry import Registry
from rep3d.errors import ImageError, OutOfMemoryError, Rep3DError
from rep3d.files import file_state
from rep3d.imaging.grid import Geometry
from rep3d.imaging.labels import check_grid
from rep3d.imaging.nifti import stored_grid
from rep3d.json_file import JsonFile, json_object

__all__ = ["ImageFacts", "Unusable"]

logger = logging.getLogger(__name__)

_WORTH_WRITING = 100  # headers: fewer are read again after a restart in no time
_SHEAR = 1e-3  # cosine between two axes from which on the Slicer extension refuses an image
_REMEDY = "Submit it again, or restore an earlier label from the case's history."

Stamp = tuple[int, ...]


@dataclass(frozen=True)
class ImageFacts:
    """What is known of an image's file.

    Attributes:
        stamp: of the file that was looked at.
        shape: voxels along the stored axes; None where that cannot be told, as are the next four.
        affine: the numbers of the matrix from voxel indices to RAS in mm, row by row.
        spacing: voxel size in mm along them.
        axes: their closest anatomical directions, such as ``"LAS"``.
        voxel_ml: volume of a voxel in millilitres.
        error: why it cannot be read.
        tilted: why Slicer cannot show it.
        read: whether all voxels were read.
    """

    stamp: Stamp
    shape: tuple[int, ...] | None = None
    affine: tuple[float, ...] | None = None
    spacing: tuple[float, ...] | None = None
    axes: str | None = None
    voxel_ml: float | None = None
    error: str | None = None
    tilted: str | None = None
    read: bool = False

    @classmethod
    def of(cls, file: Path, stamp: Stamp, channels: Channels) -> ImageFacts:
        """Look at the header of a file."""
        try:
            grid = channels.grid(file)
        except Exception as error:  # whatever is wrong with a file, it is unusable
            return cls(stamp, error=_reason(error, file))
        return cls(
            stamp,
            shape=grid.shape,
            affine=tuple(grid.affine.ravel().tolist()),
            spacing=tuple(round(side, 4) for side in grid.spacing),
            axes="".join(grid.axis_codes),
            voxel_ml=grid.voxel_ml,
            tilted=_tilted(grid, file.name),
        )

    def reason(self, labelled: bool) -> str | None:
        """Return why nobody can work with the image, or None.

        Args:
            labelled: whether it has a final label.
        """
        return self.error or (None if labelled else self.tilted)


@dataclass(frozen=True)
class _LabelFacts:
    """Why a final label is of no use, None where it is; and the stamps of label and image that were looked at."""

    stamp: Stamp
    error: str | None = None


_Facts = TypeVar("_Facts", ImageFacts, _LabelFacts)


class _Known(Generic[_Facts]):
    """Facts by image id."""

    def __init__(self) -> None:
        self.all: dict[str, _Facts] = {}

    def at(self, image_id: str, stamp: Stamp) -> _Facts | None:
        """Return facts about a file that has not changed since."""
        found = self.all.get(image_id)
        return found if found and found.stamp == stamp else None

    def merge(self, others: Mapping[str, _Facts], newer: bool) -> None:
        """Take up what another process, or an earlier one, found out; ``newer`` says that a file changed for it."""
        for image_id, found in others.items():
            own = self.all.get(image_id)
            if own is None or (own.stamp == found.stamp and found.error) or (newer and own.stamp != found.stamp):
                self.all[image_id] = found

    def stored(self, ids: Collection[str]) -> dict[str, Any]:
        """Return what is written of it, of these images."""
        return {image_id: asdict(self.all[image_id]) for image_id in sorted(self.all) if image_id in ids}


class Unusable:
    """Knows the images that cannot be used, and the labels that do not fit. Safe to use from several threads.

    Args:
        registry: the images.
        path: where it is remembered; processes of one server share the file.

    Attributes:
        changes: how often something was found to be unusable, or to be in order again.
    """

    def __init__(self, registry: Registry, path: Path) -> None:
        self._registry = registry
        lost = "nothing: the headers of images and labels are read again"
        self._file: JsonFile[dict[str, Any]] = JsonFile(path, _parsed, lost, dict, begins_anew=True)
        self._guard = threading.RLock()
        self._images: _Known[ImageFacts] = _Known()
        self._labels: _Known[_LabelFacts] = _Known()
        self._state: object = None
        self._unsaved = 0
        self.changes = 0

    # What is known, without reading images --------------------------------------------------------------------

    def reasons(self) -> dict[str, str]:
        """Return the images that are known to be unusable, with the reason."""
        self._refresh()
        found = {}
        with self._guard:
            suspects = [id_ for id_, one in self._images.all.items() if one.error or one.tilted]
        for image_id in sorted(suspects):
            try:
                files = self._registry.files_of(image_id)
                facts = self._images.at(image_id, self._stamp(files))
            except (NotFoundError, OSError):  # removed
                continue
            reason = facts.reason(files.label is not None) if facts else None
            if reason:
                found[image_id] = reason
        return found

    def refuse(self, image_id: str) -> None:
        """Refuse an image that is known to be unusable (ImageError)."""
        reason = self.reasons().get(image_id)
        if reason:
            raise ImageError(reason)

    def labels(self) -> list[PassedOver]:
        """Return the final labels that are known to be of no use."""
        found = []
        with self._guard:
            suspects = [id_ for id_, one in self._labels.all.items() if one.error]
        for image_id in sorted(suspects):
            try:
                files = self._registry.files_of(image_id)
            except NotFoundError:
                continue
            error = self.label_error(files)
            if files.label and error:
                place = "/".join(files.label.parts[-3:])  # below the studies folder: labels/final/NAME
                found.append(PassedOver(place, error, _REMEDY))
        return found

    def label_error(self, files: CaseFiles) -> str | None:
        """Return why the final label of an image is known to be of no use."""
        try:
            facts = self._labels.at(files.id, self._both(files)) if files.label else None
        except OSError:
            return None
        return facts.error if facts else None

    # Looking at files -----------------------------------------------------------------------------------------

    def remembered(self, files: CaseFiles) -> ImageFacts:
        """Return what the header of an image said last, without a look at the file; nothing where it was not read yet.

        A folder of thousands is looked at in the background, after each change.
        """
        with self._guard:
            return self._images.all.get(files.id) or ImageFacts(())

    def look(self, files: CaseFiles) -> ImageFacts:
        """Return what the header of an image says; it is read if it has changed."""
        try:
            stamp = self._stamp(files)
        except OSError:
            return ImageFacts((), error=f"{files.image.name} is no longer there.")
        with self._guard:
            known = self._images.at(files.id, stamp)
        return known or self._note_image(files, ImageFacts.of(files.image, stamp, self._registry.channels))

    def check(self, image_id: str) -> str | None:
        """Make sure that somebody can work with an image: its voxels are read, unless they were.

        Returns:
            Why not; None where it can be used, or where that cannot be told for want of memory.

        Raises:
            NotFoundError: where there is no image of that id.
        """
        self._refresh()
        files = self._registry.files_of(image_id)
        facts = self.look(files)
        if not facts.read and not facts.error:
            try:
                self._registry.channels.read(files.image)
            except Exception as error:
                if is_out_of_memory(error) or isinstance(error, OutOfMemoryError):
                    return None
                facts = replace(facts, error=_reason(error, files.image), read=True)
            else:
                facts = replace(facts, read=True)
            self._note_image(files, facts)
        return facts.reason(files.label is not None)

    def look_at_all(self) -> None:
        """Look at the headers of all images and labels that changed, and remember what they say."""
        self._refresh()
        for image_id in self._registry.list_images():
            try:
                files = self._registry.files_of(image_id)
            except NotFoundError:  # removed meanwhile
                continue
            image = self.look(files)
            if image.shape and image.affine and files.label:
                self._look_at_label(files, Geometry(image.shape, np.reshape(image.affine, (4, 4))))
        if self._unsaved >= _WORTH_WRITING:
            self.save()

    def note_label(self, files: CaseFiles, error: str | None) -> None:
        """Record that a final label cannot be read, or can."""
        try:
            stamp = self._both(files)
        except OSError:
            return
        self._note_label(files.id, _LabelFacts(stamp, error))

    def _look_at_label(self, files: CaseFiles, grid: Geometry) -> None:
        assert files.label
        try:
            stamp = self._both(files)
            if self._labels.at(files.id, stamp):
                return
            check_grid(stored_grid(files.label), grid, files.label.name, files.image.name)
        except OSError:  # removed meanwhile
            return
        except Exception as error:
            self._note_label(files.id, _LabelFacts(stamp, _reason(error, files.label)))
        else:
            self._note_label(files.id, _LabelFacts(stamp))

    def _note_label(self, image_id: str, facts: _LabelFacts) -> None:
        with self._guard:
            before = self._labels.all.get(image_id)
            self._labels.all[image_id] = facts
            self._unsaved += before != facts
            self.changes += (before.error if before else None) != facts.error

    def _note_image(self, files: CaseFiles, facts: ImageFacts) -> ImageFacts:
        try:
            if self._stamp(files) != facts.stamp:  # it changed while it was read: the next look tells
                return facts
        except OSError:
            return facts
        with self._guard:
            before = self._images.all.get(files.id)
            self._images.all[files.id] = facts
            self._unsaved += 1
            self.changes += (before.reason(False) if before else None) != facts.reason(False)
        if facts.error and facts.read and (before is None or before.error != facts.error):
            logger.warning("image %s cannot be used: %s", files.id, facts.error)
            self.save()  # rare, and others should know at once; what headers say is written by look_at_all
        return facts

    def _stamp(self, files: CaseFiles) -> Stamp:
        """Return the stamp of an image, which is another one in a server for images of other channels."""
        count = self._registry.channels.count
        if count == 1:
            return _stamp(files.image)
        return (*joined_stamp(map(_stamp, self._registry.channels.files(files.image))), count)

    def _both(self, files: CaseFiles) -> Stamp:
        return (*_stamp(files.label or files.image), *self._stamp(files))

    # The file -------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Write what is known of the images that there are."""
        there = set(self._registry.list_images())  # before the lock, which the registry takes while it is locked itself
        with self._guard, self._file.locked():
            self._refresh()
            self._file.write({"images": self._images.stored(there), "labels": self._labels.stored(there)})
            self._state, self._unsaved = file_state(self._file.path), 0

    def _refresh(self) -> None:
        """Take up what another process wrote."""
        with self._guard:
            state = file_state(self._file.path)
            if state == self._state:
                return
            content = self._file.read()
            first, self._state = self._state is None, state
            self.changes += 1
            self._images.merge(content.get("images", {}), newer=not first)
            self._labels.merge(content.get("labels", {}), newer=not first)


def _stamp(file: Path) -> Stamp:
    """Return what changes when a file does, or the right to read it."""
    status = file.stat()
    return status.st_mtime_ns, status.st_size, status.st_ctime_ns


def _reason(error: Exception, file: Path) -> str:
    return str(error) if isinstance(error, Rep3DError) else f"{file.name} cannot be read ({in_words(error)})."


def _tilted(grid: Geometry, name: str) -> str | None:
    axes = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    off = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if off <= _SHEAR:
        return None
    degrees = np.degrees(np.arcsin(min(off, 1.0)))
    return (
        f"3D Slicer cannot show {name}: two of its axes are {degrees:.2g} degrees off the right angle (a tilted "
        f"gantry, perhaps). Resample it to a grid with right angles."
    )


def _parsed(content: Any) -> dict[str, Any]:
    json_object(content, images=dict, labels=dict)
    images = {id_: _facts(ImageFacts, one) for id_, one in content["images"].items()}
    return {"images": images, "labels": {id_: _facts(_LabelFacts, one) for id_, one in content["labels"].items()}}


def _facts(kind: type[_Facts], stored: Any) -> _Facts:
    names = {field.name for field in dataclasses.fields(kind)}
    known = {key: value for key, value in json_object(stored, stamp=list).items() if key in names}
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in known.items()}
    return kind(**values)
