"""The studies folder: images, labels, and every earlier label.

MONAI Label's own local datastore copies whatever comes to wherever its name leads, and overwrites what was there.
Here names are plain, files are checked before they are accepted, files appear whole or not at all, and a label that
is replaced or removed is kept in the history first.
"""

from __future__ import annotations

import logging
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel

from lib.channels import ONE, Channels
from lib.errors import ConflictError, RequestError
from lib.labels.expected import Expected, image_mark
from lib.labels.facts import FactsCache
from lib.labels.info import added_facts, submitted_facts
from lib.labels.reasons import ORIGINAL, REMOVED, REPLACED, UNKNOWN
from lib.labels.submission import PreparedLabel, SubmitOptions, described_values, prepare_label, with_shown_name
from lib.names import checked_name, split_suffix
from lib.paths import Workspace, utc_now
from lib.storage.bound import BoundRegistry
from lib.storage.entries import FINAL
from lib.storage.history import LabelHistory, file_time
from lib.storage.moving import move_together
from lib.storage.predictions import Predictions
from lib.storage.unusable import Unusable
from rep3d.errors import ImageError, LabelError
from rep3d.files import Stamp, file_stamp, file_state, make_folder, sync_folder
from rep3d.imaging.nifti import IMAGE_SUFFIXES, stored_grid
from rep3d.json_file import JsonFile, json_object

__all__ = ["Rep3DDatastore", "Submission"]

logger = logging.getLogger(__name__)

# A label of fewer voxels is compared with the prediction at once, others after the answer: reading takes seconds.
_COMPARE_AT_ONCE = 2**22


@dataclass(frozen=True)
class Submission:
    """A label that was accepted.

    Attributes:
        id: its id, which is the image's.
        duplicate: the same was there already, from the same author: nothing was changed.
        info: what is known about it.
        values: the voxel values that it has.
    """

    id: str
    duplicate: bool
    info: Mapping[str, Any]
    values: frozenset[int]


class Rep3DDatastore(BoundRegistry):
    """A datastore over a local folder.

    Args:
        folder: the studies folder.
        workspace: where history, predictions and removed cases go.
        labels: label name to voxel value, the server's one map.
        auto_reload: notice files that are put into or taken out of the folder while the server runs.
        read_only: never write; see :class:`lib.storage.registry.Registry`.
        channels: of the images.
    """

    def __init__(
        self,
        folder: Path,
        workspace: Workspace,
        labels: Mapping[str, int],
        auto_reload: bool,
        read_only: bool,
        channels: Channels = ONE,
    ) -> None:
        self._workspace = workspace
        self._label_values = labels
        self.history = LabelHistory(workspace.history)
        self.predictions = Predictions(workspace.predictions)
        self.label_facts = FactsCache(workspace.label_facts)
        self.unusable = Unusable(self, workspace.image_facts)
        super().__init__(folder, workspace, auto_reload, read_only, channels)

    # What is added ------------------------------------------------------------------------------------------

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any] | None) -> str:
        """Accept a new image.

        Args:
            image_id: its id; empty for the file's name.
            image_filename: the file to copy.
            image_info: facts to keep with it.

        Raises:
            ImageError: if the file is no readable three-dimensional image of the server's channels.
            RequestError: for a name that is not plain.
            ConflictError: for an id that exists.
        """
        stem, suffix = split_suffix(os.path.basename(image_filename), IMAGE_SUFFIXES)
        if not suffix:
            raise ImageError(
                f"An image must be a file of type {' or '.join(IMAGE_SUFFIXES)}, not {Path(image_filename).suffix!r}."
            )
        image_id = checked_name("image id", split_suffix(image_id, IMAGE_SUFFIXES)[0] or stem)
        info = added_facts({}, image_info, of_label=False)
        shown = f"image {image_id}"
        try:
            self.channels.read(Path(image_filename))
        except ImageError as error:
            raise ImageError(str(error).replace(Path(image_filename).name, shown)) from error
        folder = Path(self._datastore.image_path())
        with self._guard:
            self._refuse_if_read_only()
            if image_id in self._datastore.objects or any((folder / f"{image_id}{s}").exists() for s in IMAGE_SUFFIXES):
                raise ConflictError(f"There is an {shown} already. Choose another name, or remove that image first.")
            suffix = suffix.lower()
            name = f"{image_id}{suffix}"
            self.take_image_file(Path(image_filename), folder / name)
            info.update(ts=int(time.time()), name=name)
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=suffix))
            self._update_datastore_file()
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None) -> str:
        """As :meth:`submit_label`, with MONAI Label's arguments. Predictions may be empty, a person's label may not.

        Returns:
            The label's id, which is the image's.
        """
        options = SubmitOptions(empty=label_tag != FINAL)
        return self.submit_label(image_id, Path(label_filename), label_tag, label_info, options).id

    def submit_label(
        self,
        image_id: str,
        file: Path,
        tag: str,
        label_info: dict[str, Any] | None,
        options: SubmitOptions = SubmitOptions(),  # noqa: B008  (it cannot change)
    ) -> Submission:
        """Accept a label; one of the same tag that was there before is kept in the history.

        Args:
            image_id: the image it was drawn on.
            file: the file to copy.
            tag: ``"final"`` for a person's label.
            label_info: facts to keep with it, such as ``label_info`` and ``user``.
            options: what may be done to make it fit.

        Raises:
            LabelError: if the file does not fit the image or the labels.
            ConflictError: if image or label are not what ``options`` expect.
            NotFoundError: for an unknown image.
            RequestError: for a tag that is not plain, or names without sense.
        """
        self._refuse_if_read_only()
        image_file = self.image_file(image_id)
        self.checked_tag(tag)
        info = submitted_facts(label_info)
        described = described_values(label_info or {})  # also of what is too large to be kept
        with tempfile.TemporaryDirectory() as scratch:
            try:
                prepared = self._prepared(file, image_file, described, options, scratch)
            except LabelError as error:
                raise LabelError(with_shown_name(str(error), file, f"the label for image {image_id}")) from error
            info.update(prepared.changes)
            info["source"] = self._source(image_id, info)
            return self._store(image_id, file, tag, prepared, info, options.expected)

    def restore_label(self, image_id: str, entry: str, user: str | None) -> Submission:
        """Make an earlier label the current one again; the present one goes into the history.

        Args:
            image_id: its image.
            entry: the name of the entry.
            user: who asks for it; the author stays who it was.

        Raises:
            LabelError: if it does not fit the image or the labels (any more).
            NotFoundError: where there is no such entry.
            RequestError: for the original of a label that was changed.
        """
        self._refuse_if_read_only()
        image_file = self.image_file(image_id)
        file, facts = self.history.find(image_id, entry)
        if facts.get("reason") == ORIGINAL:
            raise RequestError(
                f"{entry!r} is a label as it was sent, with voxel values or a grid of its own. Restore the label that "
                f"was made of it, or submit the file again."
            )
        if facts.get("reason") == UNKNOWN:
            raise RequestError(
                f"The record of the earlier label {entry!r} is damaged, so its voxel values may be a client's own. "
                f"Download it, look at it, and submit it again."
            )
        options = SubmitOptions(empty=True)  # it was accepted before
        with tempfile.TemporaryDirectory() as scratch:
            prepared = self._prepared(file, image_file, {}, options, scratch)
            info = {key: value for key, value in facts.items() if key not in ("reason", "replaced", "file", "entry")}
            info["restored"] = {"entry": entry, "by": user, "time": utc_now()}
            return self._store(image_id, file, str(facts["tag"]), prepared, info, options.expected)

    def _prepared(
        self, file: Path, image: Path, described: Mapping[str, int | None], options: SubmitOptions, scratch: str
    ) -> PreparedLabel:
        return prepare_label(file, image, self.channels, self._label_values, described, options, Path(scratch))

    def _store(
        self, image_id: str, sent: Path, tag: str, prepared: PreparedLabel, info: dict[str, Any], expected: Expected
    ) -> Submission:
        _, suffix = split_suffix(prepared.file.name, IMAGE_SUFFIXES)
        folder = Path(self._datastore.label_path(tag))
        with self._guard:
            image = self._image(image_id)  # it may have been removed, or the registry read anew, since the check
            make_folder(folder)
            known = image.labels.get(tag)
            endings = dict.fromkeys((*IMAGE_SUFFIXES, known.ext if known else suffix))  # perhaps in capitals
            earlier = [folder / f"{image_id}{s}" for s in endings if (folder / f"{image_id}{s}").exists()]
            if tag == FINAL and known and self._is_duplicate(image_id, earlier, known.info, prepared, info):
                return Submission(image_id, True, dict(known.info), frozenset(prepared.facts.counts))
            expected.check(image_id, image_mark(self.image_file(image_id), self.channels), known and known.info)
            name = f"{image_id}{suffix}"
            if not set(prepared.facts.counts) - {0}:
                info["empty"] = True
            info.update(ts=int(time.time()), time=utc_now(), name=name)
            before, kept = file_state(folder / name), list[str]()
            try:
                for file in earlier:
                    entry = self._keep(file, image_id, tag, REPLACED)
                    if os.path.lexists(file):  # else the entry is the file itself
                        kept.append(entry)
                if prepared.changes:
                    facts = {key: info.get(key) for key in ("user", "client_id", "label_info", "labels", "source")}
                    info["original"] = self.history.keep(sent, image_id, tag, ORIGINAL, facts)
                    kept.append(info["original"])
                self._put_in_place(prepared.file, image_id, tag, folder / name, info)
            except BaseException:
                if file_state(folder / name) == before:  # it was not stored, so nothing was replaced
                    self.history.drop(image_id, kept)
                raise
            image.labels[tag] = DataModel(info=info, ext=suffix)
            # The label is stored. What follows is found out again at the next start, and cannot make it unstored.
            try:
                self._update_datastore_file()
                for file in earlier:  # only now: a crash before leaves the registry with a file that is there
                    if file.name != name and file.exists() and not file.samefile(folder / name):
                        file.unlink()
                self.label_facts.remember(folder / name, prepared.facts)
                self.label_facts.save()
            except OSError:
                logger.exception("label %s was stored, but not noted in all places; the next start does that", name)
        if tag == FINAL:
            self._compare(image_id, folder / name)
        return Submission(image_id, False, dict(info), frozenset(prepared.facts.counts))

    def _is_duplicate(
        self,
        image_id: str,
        earlier: list[Path],
        known: Mapping[str, Any],
        prepared: PreparedLabel,
        info: Mapping[str, Any],
    ) -> bool:
        """Return whether the same author sends the same again, as a client does that did not get the answer."""
        if len(earlier) != 1 or known.get("user") != info.get("user"):
            return False
        try:
            same = self.label_facts.of(earlier[0]).digest == prepared.facts.digest
            return same and self.misfit(image_id) is None  # else it is the label of another image, and now of this one
        except Exception:  # whatever is wrong with the label that is there, a new one may take its place
            return False

    def _source(self, image_id: str, info: Mapping[str, Any]) -> dict[str, Any] | None:
        """Return the model and version that a label began from: as the client says, else the prediction that was
        kept."""
        params = info["params"] if isinstance(info.get("params"), dict) else {}
        version = info.get("model_version") or info.get("version") or params.get("version")
        if version:
            return {"model": str(info["model"])[:200] if info.get("model") else None, "version": str(version)[:200]}
        kept = self.predictions.facts(image_id)
        return {"model": kept.get("model"), "version": kept.get("version")} if kept else None

    def keep_prediction(self, image_id: str, file: Path, facts: Mapping[str, Any]) -> None:
        """Keep a prediction for an image of this folder, to compare the submission with; NotFoundError for another.

        Args:
            image_id: the image.
            file: the label map (``.nii.gz``, the server's voxel values); it is copied.
            facts: ``model``, ``version`` and more.
        """
        with self._guard:
            self._refuse_if_read_only()
            self._image(image_id)
            self.predictions.keep(image_id, file, facts)

    def _compare(self, image_id: str, label: Path) -> None:
        """Note what a label was drawn on: the voxels of its image, and how far it agrees with the prediction."""

        def compare(stamp: Stamp) -> None:
            try:
                self.note_image(image_id)
            except Exception as error:
                logger.warning("image %s: the voxels that its label was drawn on were not noted: %s", image_id, error)
            try:
                found = self.predictions.compare(image_id, label, self._label_values)
                with self._guard:
                    record = self._datastore.label(image_id, FINAL)
                    if (
                        found and record and label.exists() and file_stamp(label) == stamp
                    ):  # else another came meanwhile
                        self._note_info(image_id, FINAL, {**record.info, "prediction": found})
                        record.info["prediction"] = found
                        self._update_datastore_file()
            except Exception as error:  # the label is stored: that must not look like a failure
                logger.warning("image %s: label and prediction were not compared: %s", image_id, error)

        try:
            stamp = file_stamp(label)
            voxels = math.prod(stored_grid(label).shape)
        except Exception:  # it was replaced or removed this moment
            return
        if voxels < _COMPARE_AT_ONCE:
            compare(stamp)
        else:
            threading.Thread(target=compare, args=(stamp,), name=f"compare {image_id}", daemon=True).start()

    # What is removed ----------------------------------------------------------------------------------------

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Take a label away, into the history; NotFoundError where there is none."""
        with self._guard:
            self._refuse_if_read_only()
            label = self._label(label_id, label_tag)
            file = self._place(label_tag, label_id, label.ext)
            if file.exists():
                entry = self._keep(file, label_id, label_tag, REMOVED)
                try:
                    file.unlink(missing_ok=True)
                except OSError:
                    self.history.drop(label_id, [entry])
                    raise
                sync_folder(file.parent)
            del self._datastore.objects[label_id].labels[label_tag]
            self._update_datastore_file()

    def remove_image(self, image_id: str) -> None:
        """Take an image and its labels away, into the folder of removed cases; NotFoundError for another id."""
        with self._guard:
            self._refuse_if_read_only()
            image = self._image(image_id)
            target = self._workspace.removed / f"{image_id}-{file_time()}"
            target.mkdir(parents=True)
            facts = JsonFile(target / "info.json", json_object, "facts about a removed image", dict, begins_anew=False)
            first = Path(self._datastore.image_path()) / f"{image_id}{image.image.ext}"
            moves = [(file, target / file.name) for file in self.channels.files(first)]
            for tag, known in image.labels.items():
                label = self._place(tag, image_id, known.ext)
                moves.append((label, target / tag / label.name))
            # Another image of this id must not inherit them.
            ours = (self.history.folder(image_id), "history"), (self.records.file(image_id), "records.json")
            moves += [(source, target / name) for source, name in ours if source.exists()]
            try:
                facts.write(image.model_dump())
                move_together(moves)
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
            self.predictions.remove(image_id)
            del self._datastore.objects[image_id]
            self._update_datastore_file()

    def _keep(self, file: Path, image_id: str, tag: str, reason: str) -> str:
        known = self._datastore.label(image_id, tag)
        return self.history.keep(file, image_id, tag, reason, known.info if known else {})
