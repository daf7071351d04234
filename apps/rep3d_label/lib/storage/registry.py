"""What is in the studies folder, and how the list of it is read and written.

MONAI Label's own local datastore writes its list in place, and from several threads at once.
"""

from __future__ import annotations

import functools
import logging
import os
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from json import dumps
from pathlib import Path
from typing import Any

from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from pydantic_core import from_json
from watchdog.events import FileSystemEvent, FileSystemEventHandler

from lib.channels import ONE, Channels
from lib.errors import ConflictError, NotFoundError, RequestError
from lib.names import checked_tag, split_suffix
from lib.paths import copy_whole
from lib.storage.entries import FINAL, CaseFiles, files_of, found_file, images_folder
from lib.storage.passed_over import TAGS, PassedOver, is_folder_of_labels, look_through, sort_out
from rep3d.data.cases import Case
from rep3d.errors import DamagedFileError, machine_error, said
from rep3d.files import leads_out
from rep3d.imaging.nifti import IMAGE_SUFFIXES
from rep3d.json_file import JsonFile, json_object

__all__ = ["DATASTORE_FILE", "Registry"]

logger = logging.getLogger(__name__)

DATASTORE_FILE = "datastore_v2.json"
_MOST_TAGS = 32  # each is a folder of its own, and a label of each image in the list
_NAMED_TAGS = 5


def _guarded(method: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method of MONAI Label's that runs while no other thread changes the list."""

    @functools.wraps(method)
    def guarded(self: Registry, *args: Any, **options: Any) -> Any:
        with self._guard:
            return method(self, *args, **options)

    return guarded


class Registry(LocalDatastore):
    """The list of images and labels of a folder.

    Args:
        folder: the studies folder.
        auto_reload: notice files that are put into or taken out of the folder while the server runs.
        read_only: never write. For child processes, whose copy of the registry ages: writing it would erase what the
            server registered meanwhile.
        channels: of each image; one of others is unusable.

    Raises:
        DamagedFileError: if the list is damaged and may only be read.
    """

    take_image_file: Callable[[Path, Path], None] = staticmethod(copy_whole)
    """Copies an image that was sent to its place."""

    def __init__(self, folder: Path, auto_reload: bool, read_only: bool, channels: Channels = ONE) -> None:
        self.channels = channels
        lost = "who submitted which label, when and from what; images and labels are found again by their files"
        self._list = JsonFile(folder / DATASTORE_FILE, self._parsed, lost, self._new, begins_anew=False)
        self._may_write = not read_only
        self._images_found_in = images_folder(folder)
        # The watcher of the folder runs in a thread of its own, and so do requests.
        self._guard = threading.RLock()
        self._config_ts: float = 0
        self._starting = True
        super().__init__(
            str(folder),
            images_dir=self._images_found_in,
            datastore_config=DATASTORE_FILE,
            extensions=[f"*{suffix}" for suffix in IMAGE_SUFFIXES],
            auto_reload=auto_reload,
            read_only=read_only,
        )
        self._starting = False
        if auto_reload:
            self._handler.on_moved = self._on_moved

    # What is there ------------------------------------------------------------------------------------------

    list_images = _guarded(LocalDatastore.list_images)  # ids of all images
    get_labeled_images = _guarded(LocalDatastore.get_labeled_images)  # ids of the images with a final label
    get_unlabeled_images = _guarded(LocalDatastore.get_unlabeled_images)  # ids of the images without one
    status = _guarded(LocalDatastore.status)  # counts of images and labels
    json = _guarded(LocalDatastore.json)  # the whole registry

    def image_file(self, image_id: str) -> Path:
        """Return the file of an image; NotFoundError where there is none of that id."""
        with self._guard:
            self._image(image_id)
            return Path(self.get_image_uri(image_id))

    def label_file(self, image_id: str, tag: str) -> Path:
        """Return the file of an image's label; 404 where there is no such image or label."""
        with self._guard:
            self._label(image_id, tag)
            return Path(self.get_label_uri(image_id, tag))

    def labelled_cases(self) -> list[Case]:
        """Return the cases with a final label, by id."""
        found = []
        with self._guard:
            for id_ in sorted(self.get_labeled_images()):
                with suppress(ConflictError):  # a link, which is passed over and named as soon as the folder is read
                    image, label = Path(self.get_image_uri(id_)), Path(self.get_label_uri(id_, FINAL))
                    found.append(Case(id_, image, label, self.channels.files(image)))
        return found

    def case_files(self) -> Iterator[CaseFiles]:
        """Yield all images with what belongs to them, by id."""
        with self._guard:
            images, final = Path(self._datastore.image_path()), Path(self._datastore.label_path(FINAL))
            objects = sorted(self._datastore.objects.items())
        for image_id, found in objects:
            yield files_of(image_id, found, images, final)

    def files_of(self, image_id: str) -> CaseFiles:
        """Return an image with what belongs to it; NotFoundError where there is none of that id."""
        with self._guard:
            images, final = Path(self._datastore.image_path()), Path(self._datastore.label_path(FINAL))
            return files_of(image_id, self._image(image_id), images, final)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return what is known about an image; NotFoundError where there is none of that id."""
        self._image(image_id)
        info: dict[str, Any] = super().get_image_info(image_id)
        info.pop("path", None)  # nobody's affair; a client that finds such a file on its own disk would load that one
        info.pop("id", None)  # MONAI Label puts these facts over those of a sample, and adds to "strategy"
        if not isinstance(info.get("strategy", {}), dict):
            del info["strategy"]
        return info

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return what is known about a label; NotFoundError where there is none."""
        self._label(label_id, label_tag)
        return super().get_label_info(label_id, label_tag)

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Return a ZIP file of the labelled cases, which the caller removes; NotFoundError where there is none.

        Cases whose files cannot be read are left out; ``left_out.json`` says which, and why.
        Written without the guard (the stock method's reading of all volumes would make every other request wait).
        """
        with self._guard:
            cases = self.labelled_cases()
            facts = self._datastore.model_dump_json(exclude={"base_path"})
        if not cases:
            raise NotFoundError("No image is annotated yet, so there is no data set to download. Submit a label first.")
        handle, name = tempfile.mkstemp(suffix=".zip")
        try:
            with os.fdopen(handle, "wb") as file, zipfile.ZipFile(file, "w") as archive:
                left_out = {}
                for case in cases[:limit_cases] if limit_cases and limit_cases > 0 else cases:
                    try:
                        for needed in case.files:  # all or none
                            needed.open("rb").close()
                    except OSError as error:
                        left_out[case.id] = str(error)
                        continue
                    for channel in case.channels:
                        archive.write(channel, f"image/{channel.name}")
                    archive.write(case.label, f"label/{case.label.name}")
                if left_out:
                    archive.writestr("left_out.json", dumps(left_out))
                archive.writestr("metadata.json", facts)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        return name

    def _image(self, image_id: str) -> ImageLabelModel:
        with self._guard:
            found = self._datastore.objects.get(image_id)
        if found is None:
            raise NotFoundError(f"There is no image {image_id[:200]!r} in the studies folder.")
        return found

    def _label(self, label_id: str, tag: str) -> DataModel:
        found = self._image(label_id).labels.get(tag)
        if found is None:
            raise NotFoundError(f"Image {label_id} has no label with the tag {tag[:200]!r}.")
        return found

    # How the list is read and written -----------------------------------------------------------------------

    def _to_id(self, file: str) -> tuple[str, str]:
        """Name and suffix, split at the end only (the stock method removes the suffix wherever it occurs)."""
        return split_suffix(file, IMAGE_SUFFIXES)

    def _add_non_existing_images(self) -> int:
        """Take up new images; return how many (the stock method compares each file with each image)."""
        self._init_from_datastore_file()
        objects, added = self._datastore.objects, 0
        for name, image_id in self._images_there().items():
            if image_id not in objects:
                objects[image_id] = ImageLabelModel(image=found_file(name, name.removeprefix(image_id)))
                added += 1
        if added:
            logger.info("studies folder: %d new images", added)
        return added

    def _add_non_existing_labels(self, tag: str) -> int:
        """Take up new labels of a tag, from a folder that is one of labels; return how many."""
        self._init_from_datastore_file()
        folder, added = Path(self._datastore.label_path(tag)), 0
        if not is_folder_of_labels(folder, Path(self._datastore_path)):
            return 0
        for name, image_id in sort_out(folder, self._endings(tag), Path(self._datastore_path))[0].items():
            image = self._datastore.objects.get(image_id)
            if image is not None and tag not in image.labels:
                image.labels[tag] = found_file(name, name.removeprefix(image_id))
                added += 1
        if added:
            logger.info("studies folder: %d new labels with the tag %s", added, tag)
        return added

    def _images_there(self) -> dict[str, str]:
        """Return the files of the images to take up, of several for one image the first, with their ids."""
        images = Path(self._datastore.image_path())
        return sort_out(images, self._endings(None), Path(self._datastore_path), self.channels)[0]

    def _endings(self, tag: str | None) -> dict[str, str]:
        """Return the endings of the files by id: of the images, or of the labels of a tag."""
        objects = self._datastore.objects
        if tag is None:
            return {id_: one.image.ext for id_, one in objects.items()}
        return {id_: label.ext for id_, one in objects.items() if (label := one.labels.get(tag))}

    def checked_tag(self, tag: str) -> str:
        """Return a tag that labels may be stored under.

        Raises:
            RequestError: if it is no plain name, that of another one in other letters, or one more than there may be.
            ConflictError: if its folder leads out of the studies folder.
        """
        with self._guard:
            tags = self._datastore.tags()
            checked_tag(tag, {*TAGS, *tags})
            if leads_out(self._datastore.label_path(tag), self._datastore_path):
                raise ConflictError(f"The folder labels/{tag} leads out of the studies folder. Replace that link.")
        if tag not in tags and tag != FINAL and len(tags) >= _MOST_TAGS:
            raise RequestError(
                f"There are labels with {len(tags)} different tags, which is as many as may be. Choose one of them: "
                f"{', '.join(sorted(tags)[:_NAMED_TAGS])}, ..."
            )
        return tag

    def get_image_uri(self, image_id: str) -> str:
        """Return the path of an image, of several files for one the first; ConflictError where one leads out of the
        studies folder."""
        found = self._datastore.objects.get(image_id)
        if self.channels.count == 1 or found is None:
            return self._inside(super().get_image_uri(image_id), f"Image {image_id}")
        file = Path(self._datastore.image_path()) / f"{image_id}{found.image.ext}"  # beside it are the other channels
        for channel in self.channels.files(file):
            self._inside(str(channel), f"Image {image_id}")
        return str(file)

    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the path of a label; ConflictError where it leads out of the studies folder."""
        return self._inside(super().get_label_uri(label_id, label_tag), f"The label of image {label_id}")

    def _inside(self, path: str, what: str) -> str:
        if path and leads_out(path, self._datastore_path):
            raise ConflictError(f"{what} is a link that leads out of the studies folder. Copy the file itself there.")
        return path

    def label_time(self, image_id: str, tag: str) -> str | None:
        """Return when a label came, without waiting for those who change something; None where that is not known."""
        found = self._datastore.objects.get(image_id)
        label = found.labels.get(tag) if found else None
        return label.info.get("time") if label else None

    def passed_over(self) -> list[PassedOver]:
        """Return what lies in the folder and is not used."""
        with self._guard:
            images, final = Path(self._datastore.image_path()), Path(self._datastore.label_path(FINAL))
            known, labels = self._endings(None), self._endings(FINAL)
        return look_through(Path(self._datastore_path), images, known, final, labels, self.channels)

    def tell_changes(self, handler: FileSystemEventHandler) -> None:
        """Tell a handler, too, of all that changes in the folder, where the registry notices it itself."""
        if self._auto_reload:
            self._observer.schedule(handler, path=self._datastore_path, recursive=True)

    def _on_any_event(self, event: FileSystemEvent) -> None:
        """Take up what came or went; an error must not end the watcher's thread, which nobody would notice."""
        try:
            if not self._is_known(event):
                super()._on_any_event(event)
        except Exception:
            logger.exception("studies folder: a change was not taken up; the next one is")

    def _is_known(self, event: FileSystemEvent) -> bool:
        """Return whether a change is the server's own, which has been taken up."""
        return False

    def _on_moved(self, event: Any) -> None:
        """Take up a file that was renamed into place, as rsync does; our own registry is written so, too."""
        if event.dest_path != self._datastore_config_path:
            self._on_any_event(event)

    def _on_modify_event(self, event: Any) -> None:
        try:
            super()._on_modify_event(event)
        except Exception:
            logger.exception("studies folder: a change of the registry was not taken up")

    _reconcile_datastore = _guarded(LocalDatastore._reconcile_datastore)

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        """Read the list, unless it is as this process has read or written it."""
        with self._guard:
            changed = self._list.path.stat().st_mtime if self._list.path.exists() else 0
            if changed == self._config_ts:
                return
            try:
                self._datastore, self._config_ts = self._list.read(), changed
            except DamagedFileError:
                self._refuse_if_read_only()
                kept = self._list.set_aside()
                if throw_exception and kept:  # at the start; later, what is in memory is whole
                    self._datastore = self._salvaged(kept)
                self._update_datastore_file()

    def _update_datastore_file(self, lock: bool = True) -> None:
        """Write the registry atomically (the stock method writes in place: a crash leaves half of it)."""
        self._refuse_if_read_only()
        with self._guard, self._list.locked():  # MONAI Label's own lock
            try:
                self._list.write(self.json(), ensure_ascii=True)  # MONAI Label reads it in the system's encoding
            except OSError as error:
                if not self._starting or machine_error(error) is None:
                    raise
                logger.error("the list of images could not be written; the next change does that: %s", said(error))
                return
            self._config_ts = self._list.path.stat().st_mtime

    def _new(self) -> LocalDatastoreModel:
        return LocalDatastoreModel(
            name="new-dataset",
            description="New Dataset",
            images_dir=self._images_found_in,
            base_path=self._datastore_path,
        )

    def _parsed(self, content: Any) -> LocalDatastoreModel:
        found = LocalDatastoreModel.model_validate({**json_object(content), "base_path": self._datastore_path})
        if not found.objects:  # a folder that was empty when first served may have got any layout since
            found.images_dir = self._images_found_in
        return found

    def _salvaged(self, damaged: Path) -> LocalDatastoreModel:
        """Return what a file that was cut off says before its end; the last image may be incomplete, so it is left
        out."""
        try:
            content = from_json(damaged.read_bytes(), allow_partial=True)
            content["objects"].popitem()
            found = self._parsed(content)
        except (ValueError, TypeError, KeyError, AttributeError):
            return self._new()
        logger.error("%s: what is known of %d images could still be read", self._list.path, len(found.objects))
        return found

    def _refuse_if_read_only(self) -> None:
        if not self._may_write:
            raise ConflictError("Only the server writes to the studies folder; this process may read only.")
