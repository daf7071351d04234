"""The list of images and labels, with facts that live as long as the labels do.

MONAI Label drops an image with all that is known about it as soon as its file is away, and takes a label file for what
its name says. Here what is known comes from the record that is bound to the label file that is there.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel
from watchdog.events import FileSystemEvent

from lib.channels import ONE, Channels
from lib.errors import BusyError
from lib.labels.fit import misfit, voxel_digest
from lib.labels.info import added_facts
from lib.paths import Workspace
from lib.storage.entries import FINAL, CaseFiles
from lib.storage.records import DrawnOn, FileState, LabelRecord, LabelRecords
from lib.storage.registry import Registry
from rep3d.files import Stamp, file_hash, file_stamp, file_state, leads_out, whole_file

__all__ = ["BoundRegistry"]

logger = logging.getLogger(__name__)

_FOUND = {"ts", "name"}  # what MONAI Label says of a file that it found


class BoundRegistry(Registry):
    """The list of images and labels of a folder, which forgets nothing about a label.

    Args:
        folder: the studies folder.
        workspace: where the records are.
        auto_reload, read_only, channels: see :class:`lib.storage.registry.Registry`.
    """

    def __init__(
        self, folder: Path, workspace: Workspace, auto_reload: bool, read_only: bool, channels: Channels = ONE
    ) -> None:
        self.records = LabelRecords(workspace.label_records)
        self._bound: dict[tuple[str, str], FileState] = {}  # image and tag: the file that the list's facts are about
        self._misfits: dict[str, tuple[Stamp, Stamp, str | None]] = {}
        self._unsure: set[str] = set()
        self._looking: threading.Thread | None = None
        super().__init__(folder, auto_reload, read_only, channels)

    # A folder that is away ----------------------------------------------------------------------------------

    def _is_away(self) -> bool:
        """Return whether the folder that was served is not there, as while a network drive is unmounted."""
        parts = self._list.path, Path(self._datastore.label_path(None))
        return bool(self._config_ts) and not any(part.exists() for part in parts)

    def _refuse_if_read_only(self) -> None:
        super()._refuse_if_read_only()
        if self._is_away():
            raise BusyError(
                "The studies folder is not there: its drive may be unmounted, or it was moved. Nothing was changed. "
                "Put it back, then try again."
            )

    def _reconcile_datastore(self) -> None:
        with self._guard:
            if self._is_away():
                logger.error("%s is not there; what is known of its images is kept until it is back", self._list.path)
                return
            super()._reconcile_datastore()
            self._bound = {key: state for key, state in self._bound.items() if self._datastore.label(*key)}

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        before = self._config_ts
        super()._init_from_datastore_file(throw_exception)
        if self._config_ts != before:  # another list: what it says may be about other files
            self._bound.clear()

    def _is_known(self, event: FileSystemEvent) -> bool:
        file = Path(os.fsdecode(event.dest_path or event.src_path))
        tag = file.parent.name
        with self._guard:  # which is held until a label that is being stored is bound
            state = self._bound.get((self._to_id(file.name)[0], tag))
            in_place = file.parent == Path(self._datastore.label_path(tag))
            return state is not None and in_place and file_state(file) == state

    # What comes and goes ------------------------------------------------------------------------------------

    def _remove_non_existing(self) -> int:
        """Take out of the list what is not in the folder; what is known about it stays on record."""
        self._init_from_datastore_file()
        studies = self._datastore_path
        images = _files(self._datastore.image_path(), studies)
        labels = {tag: _files(self._datastore.label_path(tag), studies) for tag in self._datastore.tags()}
        # With another number of channels, the same files may be other images.
        joined = any(one.image.ext.startswith("_") for one in self._datastore.objects.values())
        there = self._images_there() if joined or self.channels.count > 1 else None
        gone = 0
        for image_id, image in list(self._datastore.objects.items()):
            name = f"{image_id}{image.image.ext}"
            away = name not in images or (there is not None and there.get(name) != image_id)
            for tag, label in list(image.labels.items()):
                if away or f"{image_id}{label.ext}" not in labels[tag]:
                    self._keep_known(image_id, tag, label)
                    del image.labels[tag]
                    gone += 1
            if away:
                if set(image.image.info) - _FOUND:
                    self.records.put_image_info(image_id, image.image.info)
                del self._datastore.objects[image_id]
                gone += 1
        return gone

    def _add_non_existing_images(self) -> int:
        known = set(self._datastore.objects)
        added = super()._add_non_existing_images()
        for image_id in self._datastore.objects.keys() - known:
            info = self._datastore.objects[image_id].image.info
            info.update({key: value for key, value in self.records.image_info(image_id).items() if key not in _FOUND})
        return added

    def _add_non_existing_labels(self, tag: str) -> int:
        changed = super()._add_non_existing_labels(tag)
        for image_id, image in self._datastore.objects.items():
            if tag in image.labels:
                changed += self._bind(image_id, image, tag)
        return changed

    def _bind(self, image_id: str, image: ImageLabelModel, tag: str) -> bool:
        """Make the list say of a label what is on record of the file that is there; return whether it changed."""
        label, folder = image.labels[tag], Path(self._datastore.label_path(tag))
        file = folder / f"{image_id}{label.ext}"
        state = file_state(file)
        bound = self._bound.get((image_id, tag))
        if state is None or bound == state:
            return False
        try:
            found = self.records.match(image_id, tag, folder)
            if found is not None:
                record, state = found
                self._note(image_id, tag, record, state)
                ext = record.name.removeprefix(image_id)
                if (label.ext, label.info) == (ext, record.info):
                    return False
                image.labels[tag] = DataModel(ext=ext, info=dict(record.info))
                return True
            if not self.records.of(image_id, tag) and (bound is None or not set(label.info) - _FOUND):
                self._bound[image_id, tag] = state  # of an older server, or put there by hand: as the list has it
                return False
            # Another file in the place of ours is not the work of ours' author.
            if set(label.info) - _FOUND:
                logger.warning("%s was replaced in the folder: its author is not known any more", file)
            info = {"ts": int(time.time()), "name": file.name}
            self._note(image_id, tag, LabelRecord(file.name, file_hash(file), state, info), state)
            image.labels[tag] = DataModel(ext=label.ext, info=info)
            return True
        except OSError as error:  # it goes away this moment, or cannot be read or noted; others are taken up
            logger.warning("%s: what is known about it could not be looked up: %s", file, error)
            return False

    def _note(self, image_id: str, tag: str, record: LabelRecord, state: FileState) -> None:
        """Put a record first, bound to the file as it is now."""
        records = self.records.of(image_id, tag)
        bound = LabelRecord(record.name, record.sha256, state, record.info, record.drawn_on)
        if not records or records[0] != bound:
            self.records.put(image_id, tag, bound)
        self._bound[image_id, tag] = state

    def _place(self, tag: str, image_id: str, suffix: str) -> Path:
        """Return a label's file in the studies folder itself, where MONAI Label's path is what it links to."""
        return Path(self._datastore.label_path(tag)) / f"{image_id}{suffix}"

    def _put_in_place(self, source: Path, image_id: str, tag: str, target: Path, info: Mapping[str, Any]) -> None:
        """Copy a label file to its place, with what is known about it on record before: both hold, or neither does."""
        drawn_on = DrawnOn(self.channels.stamp(self.image_file(image_id)), None) if tag == FINAL else None
        with source.open("rb") as file, whole_file(target) as out:
            shutil.copyfileobj(file, out)
            out.flush()
            os.fsync(out.fileno())
            told = os.fstat(out.fileno())  # which a renamed file keeps
            state = told.st_mtime_ns, told.st_size, told.st_ino
            self.records.put(image_id, tag, LabelRecord(target.name, file_hash(source), state, info, drawn_on))
        self._bound[image_id, tag] = state

    def _keep_known(self, image_id: str, tag: str, label: DataModel) -> None:
        """Put on record what an older server knew about a label."""
        if not set(label.info) - _FOUND or self.records.of(image_id, tag):
            return
        file = self._place(tag, image_id, label.ext)
        state = self._bound.get((image_id, tag)) or file_state(file)
        if state is None:
            return
        sha256 = file_hash(file) if file_state(file) == state else ""
        self.records.put(image_id, tag, LabelRecord(file.name, sha256, state, label.info))

    def put_on_record(self) -> None:
        """Put on record what an older server knew, and what a killed one did not come to."""
        for image_id in self.list_images():
            try:
                with self._guard:
                    image = self._datastore.objects.get(image_id)
                    for tag, label in image.labels.items() if image else ():
                        self._keep_known(image_id, tag, label)
                self.note_image(image_id)
            except Exception as error:  # whatever is wrong with it, others are noted
                logger.warning("image %s: what is known about its labels was not put on record: %s", image_id, error)

    def _note_info(self, image_id: str, tag: str, info: Mapping[str, Any]) -> None:
        """Put facts on record that were added to a label; the guard is held."""
        label = self._label(image_id, tag)
        file = self._place(tag, image_id, label.ext)
        found = self.records.match(image_id, tag, file.parent)
        record, state = found or (LabelRecord(file.name, file_hash(file), file_state(file) or (0, 0, 0), {}), None)
        self.records.put(
            image_id, tag, LabelRecord(record.name, record.sha256, state or record.state, info, record.drawn_on)
        )

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add facts to an image; NotFoundError where there is none of that id."""
        with self._guard:
            self._refuse_if_read_only()
            image = self._image(image_id).image
            facts = added_facts(image.info, info, of_label=False)
            self.records.put_image_info(image_id, facts)
            image.info = facts
            self._update_datastore_file()

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add facts to a label; NotFoundError where there is none. Who made it, when and from what is not changed."""
        with self._guard:
            self._refuse_if_read_only()
            label = self._label(label_id, label_tag)
            facts = added_facts(label.info, info, of_label=True)
            self._note_info(label_id, label_tag, facts)
            label.info = facts
            self._update_datastore_file()

    # Is a label that of its image? --------------------------------------------------------------------------

    def note_image(self, image_id: str) -> None:
        """Put on record which voxels the final label of an image was drawn on, if its file is still the same."""
        with self._guard:
            image = self._datastore.objects.get(image_id)
            records = self.records.of(image_id, FINAL)
            if image is None or not records or records[0].drawn_on is None or records[0].drawn_on.digest:
                return
            file, stamp = self.image_file(image_id), records[0].drawn_on.stamp
        if self.channels.stamp(file) != stamp:
            return
        digest = voxel_digest(file, self.channels)
        with self._guard:
            latest = self.records.of(image_id, FINAL)
            if latest and latest[0].drawn_on == DrawnOn(stamp, None) and self.channels.stamp(file) == stamp:
                self._put_drawn_on(image_id, latest[0], DrawnOn(stamp, digest))

    def _put_drawn_on(self, image_id: str, record: LabelRecord, image: DrawnOn) -> None:
        self.records.put(image_id, FINAL, LabelRecord(record.name, record.sha256, record.state, record.info, image))

    def fits_at_a_glance(self, image_id: str, image: Path, label: Path) -> tuple[bool, str | None]:
        """Return whether it is known if a label is that of its image, and why it is not; reads no voxels."""
        stamps = self.channels.stamp(image), file_stamp(label)
        known = self._misfits.get(image_id)
        if known is not None and known[:2] == stamps:
            return True, known[2]
        records = self.records.of(image_id, FINAL)
        as_drawn = bool(records and records[0].drawn_on and records[0].drawn_on.stamp == stamps[0])
        return as_drawn, None

    def seen_misfit(self, files: CaseFiles) -> str | None:
        """Return why a label is not that of its image, as far as is known; the rest is found out in the background."""
        try:
            known, reason = self.fits_at_a_glance(files.id, files.image, files.label) if files.label else (True, None)
        except OSError:  # one of them went away this moment
            return None
        if not known:
            with self._guard:
                self._unsure.add(files.id)
                if self._looking is None or not self._looking.is_alive():
                    self._looking = threading.Thread(target=self._look, name="label fits", daemon=True)
                    self._looking.start()
        return reason

    def _look(self) -> None:
        while self._unsure:
            image_id = self._unsure.pop()
            try:
                self.misfit(image_id)
            except Exception as error:  # whatever is wrong with it, others are looked at
                logger.warning("image %s: whether its label fits was not found out: %s", image_id, error)

    def misfit(self, image_id: str) -> str | None:
        """Return why the final label of an image is not that of the image that is there now; None where it is.

        Raises:
            NotFoundError: where there is no such label.
            Rep3DError, OSError: if one of the files cannot be read.
        """
        image, label = self.image_file(image_id), self.label_file(image_id, FINAL)
        known, reason = self.fits_at_a_glance(image_id, image, label)
        if known:
            return reason
        stamps = self.channels.stamp(image), file_stamp(label)
        with self._guard:
            records = self.records.of(image_id, FINAL)
        drawn_on = records[0].drawn_on if records else None
        digest = drawn_on.digest if drawn_on else None
        reason = misfit(image_id, image, label, digest, drawn_on is not None, self.channels)
        self._misfits[image_id] = (*stamps, reason)
        if reason:
            logger.warning("case %s: %s", image_id, reason)
        elif drawn_on and self._may_write:  # the same voxels in another file: not to be compared again
            with self._guard:
                if self.records.of(image_id, FINAL)[:1] == records[:1]:
                    self._put_drawn_on(image_id, records[0], DrawnOn(stamps[0], drawn_on.digest))
        return reason


def _files(folder: str, studies: str) -> set[str]:
    """Return the names of what is in a folder, links to nothing or out of the studies folder aside; none where it is
    away."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if not entry.is_symlink() or _leads_to_a_file(entry.path, studies)}
    except FileNotFoundError:
        return set()


def _leads_to_a_file(link: str, studies: str) -> bool:
    return os.path.exists(link) and not leads_out(link, studies)
