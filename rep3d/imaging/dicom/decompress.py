"""Compressed pixels, by SimpleITK in a process of its own: on some damaged files its decoders crash, or never end."""

from __future__ import annotations

import importlib.util
import io
import os
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any

import numpy as np

from rep3d.errors import MissingComponentError
from rep3d.imaging.dicom.files import NUMBERS, pydicom

__all__ = ["Decompressor"]

_CHILD = Path(__file__).with_name("gdcm_child.py")
_SECONDS = 60.0  # for one slice, and the start of the process


class Decompressor:
    """Decompresses slices, one after the other; a context, at whose end its process ends.

    Raises:
        MissingComponentError: if SimpleITK is not installed.
    """

    def __init__(self) -> None:
        if importlib.util.find_spec("SimpleITK") is None:
            raise MissingComponentError(
                "Reading compressed DICOM needs the package SimpleITK, which is not installed. "
                "Run: pip install SimpleITK"
            )

    def __enter__(self) -> Decompressor:
        self._folder = TemporaryDirectory(prefix="rep3d-dicom-")
        self._process = subprocess.Popen(
            [sys.executable, str(_CHILD)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def pixels(self, data: Any) -> np.ndarray | None:
        """Return the (rows, columns) numbers as they are stored; None where they cannot be decompressed.

        Args:
            data: the file, as pydicom reads it.
        """
        file = Path(self._folder.name) / "slice.dcm"
        _plain(data).save_as(file, write_like_original=False)
        asked, answers = self._process.stdin, self._process.stdout
        assert asked is not None and answers is not None
        limit = threading.Timer(_SECONDS, self._process.kill)
        limit.start()
        try:
            asked.write(os.fsencode(file) + b"\n")
            asked.flush()
            length = int.from_bytes(answers.read(8), "big")  # nothing at all comes from a process that crashed
            return np.load(io.BytesIO(answers.read(length))) if length else None
        except (BrokenPipeError, ValueError):
            return None
        finally:
            limit.cancel()


def _plain(data: Any) -> Any:
    """Return the pixels with nothing else, so that nothing is done to them: no rescaling, no turning round of
    MONOCHROME1."""
    uid = pydicom().uid
    plain = pydicom().dataset.FileDataset("", {}, file_meta=data.file_meta, preamble=bytes(128))
    for keyword in NUMBERS:
        if data.get(keyword) is not None:
            setattr(plain, keyword, data[keyword].value)
    plain.SOPClassUID, plain.SOPInstanceUID = uid.CTImageStorage, uid.generate_uid()
    plain.PhotometricInterpretation, plain.SamplesPerPixel = "MONOCHROME2", 1
    plain["PixelData"] = data["PixelData"]
    meta = plain.file_meta
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = plain.SOPClassUID, plain.SOPInstanceUID
    plain.is_little_endian, plain.is_implicit_VR = True, False
    return plain
