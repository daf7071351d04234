"""A segmentation as DICOM SEG, for images that came as DICOM: it names the patient only where the server does.

What it says of patient, study and images comes from the headers of the series as they may be given away: where the
server de-identifies, under its codes. ``rep3d dicom-map`` leads back.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.dicom.importer import DicomImport
from lib.dicom.privacy import Privacy
from lib.errors import RequestError
from lib.models.published import PublishedModel
from rep3d.files import file_hash
from rep3d.imaging.dicom import DicomSeries
from rep3d.imaging.dicom.results import Maker
from rep3d.imaging.dicom.segmentation import require_highdicom, write_segmentation
from rep3d.imaging.dicom.stack import stack
from rep3d.imaging.grid import Geometry, same_grid
from rep3d.imaging.nifti import read_label, stored_grid

__all__ = ["make_segmentation", "source_series"]


def source_series(dicom: DicomImport, image: str) -> DicomSeries:
    """Return the series that an image was made of.

    Args:
        dicom: what was taken in.
        image: id of the image; empty for one that is not in the studies folder.

    Raises:
        RequestError: if it did not come as DICOM, or its files are there no more.
        MissingComponentError: if DICOM SEG cannot be written here.
    """
    require_highdicom()
    series = dicom.series_of(image) if image else None
    if series is None:
        shown = f"Image {image[:200]!r}" if image else "An image that comes with the request"
        raise RequestError(
            f"output=dicom_seg is for images of the studies folder that came as DICOM, with their files still there: "
            f"a DICOM result must refer to them. {shown} is none of these. Choose all, image or json."
        )
    return series


def make_segmentation(
    privacy: Privacy, series: DicomSeries, image: Path, result: Mapping[str, Any], published: PublishedModel
) -> str:
    """Write a segmentation as DICOM SEG.

    Args:
        privacy: how patients are treated.
        series: what the image was made of.
        image: the image.
        result: ``file`` is the label map on its grid, ``params`` the facts about it.
        published: the model that made it.

    Returns:
        The file, which the caller removes.

    Raises:
        RequestError: if the image is not what its DICOM files say.
        ImageError: if nothing can refer to the series.
    """
    handle, output = tempfile.mkstemp(suffix=".dcm")
    os.close(handle)
    try:
        with tempfile.TemporaryDirectory(prefix="rep3d-dicom-") as folder:
            shown = privacy.headers(series, Path(folder))
            rows, columns = shown.slices[0].shape
            put = stack(shown.slices)
            if not same_grid(stored_grid(image), Geometry((columns, rows, len(put.slices)), put.affine)):
                raise RequestError(
                    f"Image {image.name} does not lie where its DICOM files do: was it replaced? Choose all, image or "
                    f"json."
                )
            facts, task = result["params"], published.predictor().task
            maker = Maker(task.name, str(facts["version"]), file_hash(published.path))
            terms = {name: term for name, term in task.terms.items() if name in facts["label_names"]}
            write_segmentation(read_label(result["file"])[0], shown, Path(output), facts["label_names"], terms, maker)
    except BaseException:
        for file in (output, result["file"]):
            Path(file).unlink(missing_ok=True)
        raise
    return output
