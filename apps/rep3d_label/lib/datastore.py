"""The studies folder: images, labels, and every earlier label.

MONAI Label's own local datastore copies whatever comes to wherever its name leads, and overwrites what was there.
Here names are plain, files are checked before they are accepted, files appear whole or not at all, and a label that
is replaced or removed is kept in the history first.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import DefaultLabelTag

from lib.names import checked_name, split_suffix
from lib.startup import StartupError
from lib.workspace import Workspace, copy_whole, utc_now, write_text
from rep3d.cases import Case
from rep3d.errors import ImageError, LabelError
from rep3d.volumes import IMAGE_SUFFIXES, check_label, geometry

__all__ = ["DATASTORE_FILE", "Rep3DDatastore", "check_registry", "images_folder"]

DATASTORE_FILE = "datastore_v2.json"
_FINAL = DefaultLabelTag.FINAL.value


def images_folder(studies: Path) -> str:
    """Where the images of a studies folder are, relative to it.

    That is the folder itself, or ``imagesTr`` in a folder of the decathlon's layout without images at its top.
    """
    if any(split_suffix(file.name, IMAGE_SUFFIXES)[1] and not file.name.startswith(".") for file in studies.iterdir()):
        return "."
    return "imagesTr" if (studies / "dataset.json").is_file() and (studies / "imagesTr").is_dir() else "."


def check_registry(path: Path) -> None:
    """Refuses to start with a damaged registry of images and labels; the files themselves are not in danger.

    Raises:
        StartupError: if the file is there and cannot be read.
    """
    if not path.exists():
        return
    try:
        LocalDatastoreModel.model_validate_json(path.read_bytes())
    except ValueError as error:
        raise StartupError(
            f"MONAI Label's list of images and labels in {path}",
            f"a damaged file ({str(error).splitlines()[0]})",
            "Move that file away: images and labels are found again by their files, only facts about them are lost.",
        ) from error


class Rep3DDatastore(LocalDatastore):
    """A datastore over a local folder.

    Args:
        folder: the studies folder.
        workspace: where history and removed cases go.
        labels: label name to voxel value; labels with other values are refused.
        auto_reload: notice files that are put into or taken out of the folder while the server runs.
        read_only: never write. For child processes, whose copy of the registry ages: writing it would erase what the
            server registered meanwhile.
    """

    def __init__(
        self, folder: Path, workspace: Workspace, labels: Mapping[str, int], auto_reload: bool, read_only: bool
    ) -> None:
        self._workspace = workspace
        self._label_values = labels
        self._may_write = not read_only
        self._images_found_in = images_folder(folder)
        # The watcher of the folder runs in a thread of its own, and so do requests.
        self._guard = threading.RLock()
        super().__init__(
            str(folder),
            images_dir=self._images_found_in,
            datastore_config=DATASTORE_FILE,
            extensions=[f"*{suffix}" for suffix in IMAGE_SUFFIXES],
            auto_reload=auto_reload,
            read_only=read_only,
        )

    # What is there ------------------------------------------------------------------------------------------

    def list_images(self) -> list[str]:
        """Ids of all images."""
        with self._guard:
            return super().list_images()

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the images with a final label."""
        with self._guard:
            return super().get_labeled_images(label_tag, labels)

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Ids of the images without a final label."""
        with self._guard:
            return super().get_unlabeled_images(label_tag, labels)

    def image_file(self, image_id: str) -> Path:
        """The file of an image; 404 where there is none of that id."""
        with self._guard:
            self._image(image_id)
            return Path(self.get_image_uri(image_id))

    def labelled_cases(self) -> list[Case]:
        """The cases with a final label, by id."""
        with self._guard:
            return [
                Case(id_, Path(self.get_image_uri(id_)), Path(self.get_label_uri(id_, _FINAL)))
                for id_ in sorted(self.get_labeled_images())
            ]

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """What is known about an image; 404 where there is none of that id."""
        self._image(image_id)
        return super().get_image_info(image_id)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """What is known about a label; 404 where there is none."""
        self._label(label_id, label_tag)
        return super().get_label_info(label_id, label_tag)

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """A ZIP file of the labelled cases; 404 where there is none."""
        if not self.get_labeled_images():
            raise HTTPException(
                404, "dataset: expected at least one image with a final label, got none. Submit one first."
            )
        with self._guard:
            return super().get_dataset_archive(limit_cases)

    def status(self) -> dict[str, Any]:
        """Counts of images and labels."""
        with self._guard:
            return super().status()

    def json(self) -> dict[str, Any]:
        """The whole registry."""
        with self._guard:
            return super().json()

    def _image(self, image_id: str) -> ImageLabelModel:
        with self._guard:
            found = self._datastore.objects.get(image_id)
        if found is None:
            raise HTTPException(
                404, f"image: expected the id of an image in the studies folder, got {image_id[:200]!r}"
            )
        return found

    def _label(self, label_id: str, tag: str) -> DataModel:
        found = self._image(label_id).labels.get(tag)
        if found is None:
            raise HTTPException(404, f"label: image {label_id!r} has no label with the tag {tag[:200]!r}")
        return found

    # What is added ------------------------------------------------------------------------------------------

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any] | None) -> str:
        """Accepts a new image.

        Args:
            image_id: its id; empty for the file's name.
            image_filename: the file to copy.
            image_info: facts to keep with it.

        Raises:
            ImageError: if the file is no readable three-dimensional image.
            HTTPException: 422 for a name that is not plain, 409 for an id that exists.
        """
        stem, suffix = split_suffix(os.path.basename(image_filename), IMAGE_SUFFIXES)
        if not suffix:
            raise ImageError(
                f"image: expected a file of type {' or '.join(IMAGE_SUFFIXES)}, got {Path(image_filename).suffix!r}"
            )
        image_id = checked_name("image id", split_suffix(image_id, IMAGE_SUFFIXES)[0] or stem)
        info = _checked_info(image_info)
        shown = f"image {image_id}"
        try:
            geometry(image_filename)
        except ImageError as error:
            raise ImageError(str(error).replace(Path(image_filename).name, shown)) from error
        folder = Path(self._datastore.image_path())
        with self._guard:
            self._refuse_if_read_only()
            if image_id in self._datastore.objects or any((folder / f"{image_id}{s}").exists() for s in IMAGE_SUFFIXES):
                raise HTTPException(
                    409, f"{shown}: there is one already. Choose another id, or remove that image first."
                )
            name = f"{image_id}{suffix}"
            copy_whole(Path(image_filename), folder / name)
            info.update(ts=int(time.time()), name=name)
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=suffix))
            self._update_datastore_file()
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any] | None) -> str:
        """Accepts a label; one of the same tag that was there before is kept in the history.

        Args:
            image_id: the image it was drawn on.
            label_filename: the file to copy.
            label_tag: ``"final"`` for a person's label.
            label_info: facts to keep with it, such as ``label_info`` and ``user``.

        Returns:
            The label's id, which is the image's.

        Raises:
            LabelError: if the file does not fit the image or the task.
            HTTPException: 404 for an unknown image, 422 for a tag that is not plain.
        """
        image_file = self.image_file(image_id)
        checked_name("label tag", label_tag)
        info = _checked_info(label_info)
        shown = f"label for image {image_id}"
        _, suffix = split_suffix(os.path.basename(label_filename), IMAGE_SUFFIXES)
        if not suffix:
            got = Path(label_filename).suffix
            raise LabelError(
                f"{shown}: expected a file of type {' or '.join(IMAGE_SUFFIXES)}, got {got!r}. Export it as NIfTI."
            )
        try:
            check_label(label_filename, image_file, self._label_values)
        except LabelError as error:
            raise LabelError(str(error).replace(Path(label_filename).name, shown)) from error
        folder = Path(self._datastore.label_path(label_tag))
        with self._guard:
            self._refuse_if_read_only()
            image = self._image(image_id)  # it may have been removed, or the registry read anew, since the check
            folder.mkdir(parents=True, exist_ok=True)
            earlier = [folder / f"{image_id}{s}" for s in IMAGE_SUFFIXES if (folder / f"{image_id}{s}").exists()]
            for file in earlier:
                self._keep(file, image_id, label_tag)
            name = f"{image_id}{suffix}"
            copy_whole(Path(label_filename), folder / name)
            for file in earlier:
                if file.name != name:
                    file.unlink()
            info.update(ts=int(time.time()), time=utc_now(), name=name)
            image.labels[label_tag] = DataModel(info=info, ext=suffix)
            self._update_datastore_file()
        return image_id

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Adds facts to an image; 404 where there is none of that id."""
        with self._guard:
            self._refuse_if_read_only()
            self._image(image_id).image.info.update(_checked_info(info))
            self._update_datastore_file()

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Adds facts to a label; 404 where there is none."""
        with self._guard:
            self._refuse_if_read_only()
            self._label(label_id, label_tag).info.update(_checked_info(info))
            self._update_datastore_file()

    # What is removed ----------------------------------------------------------------------------------------

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Takes a label away, into the history; 404 where there is none."""
        with self._guard:
            self._refuse_if_read_only()
            self._label(label_id, label_tag)
            file = Path(self.get_label_uri(label_id, label_tag))
            if file.exists():
                self._keep(file, label_id, label_tag)
                file.unlink()
            del self._datastore.objects[label_id].labels[label_tag]
            self._update_datastore_file()

    def remove_image(self, image_id: str) -> None:
        """Takes an image and its labels away, into the folder of removed cases; 404 where there is none of that id."""
        with self._guard:
            self._refuse_if_read_only()
            image = self._image(image_id)
            target = self._workspace.removed / f"{image_id}-{_file_time()}"
            target.mkdir(parents=True)
            write_text(target / "info.json", json.dumps(image.model_dump(), indent=2, default=str))
            for tag in image.labels:
                (target / tag).mkdir()
                label = Path(self.get_label_uri(image_id, tag))
                shutil.move(label, target / tag / label.name)
            file = Path(self.get_image_uri(image_id))
            shutil.move(file, target / file.name)
            del self._datastore.objects[image_id]
            self._update_datastore_file()

    def _keep(self, file: Path, image_id: str, tag: str) -> None:
        """Copies a label that is about to be replaced into the history, with what is known about it."""
        folder = self._workspace.history / image_id
        folder.mkdir(parents=True, exist_ok=True)
        _, suffix = split_suffix(file.name, IMAGE_SUFFIXES)
        name = f"{tag}-{_file_time()}"
        copy_whole(file, folder / f"{name}{suffix}")
        known = self._datastore.label(image_id, tag)
        facts = {**(known.info if known else {}), "image": image_id, "tag": tag, "replaced": utc_now()}
        write_text(folder / f"{name}.json", json.dumps(facts, indent=2, default=str))

    # How the base class reads and writes --------------------------------------------------------------------

    def _to_id(self, file: str) -> tuple[str, str]:
        """Name and suffix, split at the end only (the stock method removes the suffix wherever it occurs)."""
        return split_suffix(file, IMAGE_SUFFIXES)

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """Files that match; hidden ones, such as macOS leaves beside images, are none of ours."""
        with self._guard:
            return {key: file for key, file in super()._list_files(path, patterns).items() if not file.startswith(".")}

    def _reconcile_datastore(self) -> None:
        with self._guard:
            super()._reconcile_datastore()

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        with self._guard:
            super()._init_from_datastore_file(throw_exception)
            if not self._datastore.objects:  # a folder that was empty when first served may have got any layout since
                self._datastore.images_dir = self._images_found_in

    def _update_datastore_file(self, lock: bool = True) -> None:
        """Writes the registry atomically (the stock method writes in place: a crash leaves half of it)."""
        self._refuse_if_read_only()
        path = Path(self._datastore_config_path)
        text = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        with self._guard, FileLock(self._lock_file) if lock else nullcontext():
            write_text(path, text)
            self._config_ts = path.stat().st_mtime

    def _refuse_if_read_only(self) -> None:
        if not self._may_write:
            raise HTTPException(409, "studies folder: only the server writes to it, this process may read only")


def _checked_info(info: dict[str, Any] | None) -> dict[str, Any]:
    if not isinstance(info or {}, dict):
        raise HTTPException(422, f"params: expected a JSON object, got {type(info).__name__}")
    return dict(info or {})


def _file_time() -> str:
    """The time in UTC as part of a file name, with microseconds so that two in a second differ."""
    return datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%S.%fZ")
