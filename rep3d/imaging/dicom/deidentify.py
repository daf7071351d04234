"""DICOM files without their patient: the Basic Application Level Confidentiality Profile of PS3.15, table E.1-1.

The table is that of the package dicom-anonymizer, which its makers generate from the standard (2026c); it is applied
here, since theirs neither walks into all sequences nor gives the same UID twice. What the table does not know is not
trusted: private attributes, and those that are in no dictionary, are removed; every UID that is not the standard's own
is replaced. Of the pixels nothing is changed, so whether something is written into them is said
(:func:`may_show_text`).
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from rep3d.errors import ImageError, MissingComponentError
from rep3d.imaging.dicom.files import DicomFile, OversizeError, check_size, pydicom, raw_text
from rep3d.imaging.dicom.pseudonyms import UID_ROOT, Pseudonyms, is_patient_code
from rep3d.imaging.dicom.series import DicomSeries, LeftOut

__all__ = ["METHOD", "deidentify_file", "deidentify_series", "identifying", "may_show_text"]

METHOD = "Rep3D Label: basic profile of PS3.15, table E.1-1"
_PROFILE = ("113100", "DCM", "Basic Application Confidentiality Profile")
_TABLE = "dicomanonymizer.dicom_anonymization_databases.dicomfields_2026c"
_STANDARD = "1.2.840.10008."  # the root of UIDs that are the same in every hospital
_KINDS = ("SOPClassUID", "TransferSyntaxUID")  # what a file is, not which
_TEXTS = frozenset({"AE", "CS", "LO", "LT", "SH", "ST", "UC", "UT", "PN"})
_DUMMIES: Mapping[str, str] = {"DA": "19000101", "DT": "19000101000000", "TM": "000000"}
# Who has a value here is named, unless what says that the identity was removed takes its place.
_NAMES = ("PatientName", "PatientID")
_DETAILS = (
    *("PatientBirthDate", "AccessionNumber", "OtherPatientIDs", "OtherPatientNames", "PatientAddress"),
    *("PatientTelephoneNumbers", "PatientMotherBirthName", "PatientBirthName", "ReferringPhysicianName"),
    *("InstitutionName", "OtherPatientIDsSequence", "IssuerOfPatientID"),
)
_TOLD = (*_NAMES, *_DETAILS[:2], "StudyDate")  # what the way back says of a patient and a study
_WRITES_ON_PIXELS = frozenset({"US", "IVUS", "SC", "XA", "RF", "CR", "DX", "MG", "ES", "XC", "GM", "OP", "OT", "BDUS"})


def deidentify_file(path: Path, names: Pseudonyms) -> dict[str, Any] | None:
    """Write a DICOM file anew, without what identifies a patient.

    Args:
        path: the file; it is replaced.
        names: makes codes and UIDs.

    Returns:
        What leads back: ``patient`` (code), ``series`` (the new UID), ``image`` (the name of its image), ``original``
        (what identified the patient), ``uids`` (new UID to the one that it replaced); None for a file that this has
        been done to before.

    Raises:
        ImageError: if it cannot be read, or not be written without its patient.
        MissingComponentError: without the package that has the table.
    """
    reader = pydicom()
    table = _actions()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            check_size(path)
            data = reader.dcmread(path, force=True)
            done = _is_done(data)
            if not ("SOPClassUID" in data or "Rows" in data):
                raise ImageError("is a damaged DICOM file: its header does not even say what it is. Export it again.")
            identity = {word: raw_text(data, word) or "" for word in _TOLD}
            patient = names.patient(DicomFile(path, identity, "").patient)
            original = {word: str(data[word].value) for word in _TOLD if identity[word]}
            modality = str(data.get("Modality", ""))
            uids: dict[str, str] = {}
            if done:  # it keeps its codes; that the rest was done, too, is not taken for granted
                patient = raw_text(data, "PatientID") or ""
            _walk(data, table, _Kept(names) if done else names, uids)
            data.PatientName = data.PatientID = patient
            data.PatientIdentityRemoved = "YES"
            data.DeidentificationMethod = METHOD
            data.DeidentificationMethodCodeSequence = [_code(reader)]
            data.preamble = bytes(128)
            data.file_meta = _file_meta(reader, data)
            part = path.with_name(f"{path.name}.part")
            data.save_as(part, write_like_original=False)
        os.replace(part, path)
    except OversizeError as error:
        raise ImageError(str(error)) from error
    except Exception as error:  # pydicom raises whatever a damaged file makes it meet; its words may quote the file
        path.with_name(f"{path.name}.part").unlink(missing_ok=True)
        if isinstance(error, (OSError, ImageError)):
            raise
        raise ImageError("is a damaged DICOM file, which cannot be de-identified. Export it again.") from error
    if done:
        return None
    series = str(data.get("SeriesInstanceUID", ""))
    image = names.image_name(modality, patient, series)
    return {"patient": patient, "series": series, "image": image, "original": original, "uids": uids}


def deidentify_series(series: DicomSeries, names: Pseudonyms) -> DicomSeries:
    """Return a series as it would be if its files had been de-identified; the files stay as they are.

    Nothing that is told of it names its patient then: neither itself, nor the files that it is made of.
    """
    slices = tuple(_nameless(file, names) for file in series.slices)
    beside = tuple(nameless_files(one, names) for one in series.beside)
    uid = slices[0].text("SeriesInstanceUID")
    return replace(series, uid=uid, description="", slices=slices, beside=beside)


def nameless_files(one: LeftOut, names: Pseudonyms) -> LeftOut:
    """Return files that are part of no volume, under codes."""
    return LeftOut(tuple(Path(_shown(file, names)) for file in one.files), one.error)


def _is_done(data: Any) -> bool:
    """Return whether a file says that this has been done to it, and has codes where we put them."""
    words = ("DeidentificationMethod", "PatientID", "PatientName", "StudyInstanceUID", "SeriesInstanceUID")
    method, patient, name, *uids = (raw_text(data, word) or "" for word in words)
    return _has_codes(method, patient, uids) and name == patient


def _has_codes(method: str, patient: str, uids: Sequence[str]) -> bool:
    return (
        method.startswith(METHOD)
        and is_patient_code(patient)
        and all(not uid or uid.startswith(UID_ROOT) for uid in uids)
    )


class _Kept:
    """Codes for a file that has ours already: they stay, and only what is none becomes one."""

    def __init__(self, names: Pseudonyms) -> None:
        self._names = names

    def uid(self, original: str) -> str:
        """Return a UID as it is if it was made here."""
        return original if original.startswith(UID_ROOT) else self._names.uid(original)

    def time(self, original: str) -> str:
        """Return a time as it is: it says nothing already."""
        return original


def identifying(path: Path) -> list[str]:
    """Return the attributes of a file that name its patient, by keyword; what they say is not told.

    Raises:
        ImageError: if it cannot be read.
    """
    reader = pydicom()
    try:
        check_size(path)
    except Exception as error:  # as above
        raise ImageError("is a damaged DICOM file, or one that is too large for a slice. Export it again.") from error
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = reader.dcmread(
            path,
            stop_before_pixels=True,
            force=True,
            specific_tags=[*_NAMES, *_DETAILS, "PatientIdentityRemoved"],
        )
    removed = str(data.get("PatientIdentityRemoved", "")).strip().upper() == "YES"
    asked = _DETAILS if removed else (*_NAMES, *_DETAILS)
    return [word for word in asked if word in data and data.get_item(word).value]


def may_show_text(series: DicomSeries) -> str | None:
    """Return why a patient's name may be written into the pixels of a series; None where nothing says so."""
    stated = {file.text("BurnedInAnnotation").upper() for file in series.slices}
    if "YES" in stated:
        return "its files say that text is burnt into the pixels"
    if stated == {"NO"}:
        return None
    if series.modality.upper() in _WRITES_ON_PIXELS:
        return f"images of modality {series.modality} often have text in their pixels, and its files do not deny it"
    if any(file.text("ConversionType") or "SCREEN SAVE" in file.text("ImageType").upper() for file in series.slices):
        return "it was made from other images or a screen, and its files do not deny text in the pixels"
    return None


def _nameless(file: DicomFile, names: Pseudonyms) -> DicomFile:
    uids = [file.text(word) for word in ("StudyInstanceUID", "SeriesInstanceUID")]
    if _has_codes(file.text("DeidentificationMethod"), file.text("PatientID"), uids):
        return file
    code = names.patient(file.patient)
    new = {"PatientID": code, "PatientName": code, "PatientBirthDate": "", "SeriesDescription": ""}
    for word, text in file.tags.items():
        if word.endswith("InstanceUID") or word == "FrameOfReferenceUID":
            new[word] = _uid(text, names)
    if file.text("AcquisitionTime"):
        new["AcquisitionTime"] = names.time(file.text("AcquisitionTime"))
    return replace(file, tags={**file.tags, **new}, shown=_shown(file.path, names))


def _shown(path: Path, names: Pseudonyms) -> str:
    return f"file {names.place(path.name)}"


def _walk(data: Any, table: Mapping[int, str], names: Pseudonyms | _Kept, uids: dict[str, str]) -> None:
    """Apply the table to a data set and all that is nested in it."""
    for tag in list(data.keys()):
        action = _action(tag, table)
        if action == "X":
            del data[tag]
            continue
        kind = data.get_item(tag).VR
        if kind in (None, "UN"):
            kind = pydicom().datadict.dictionary_VR(tag)
        if action is None and kind not in ("SQ", "UI", "TM"):
            continue  # it is written as it was read, byte for byte
        element = data[tag]
        if element.VR == "UN" or element.VR == "SQ" and action in ("D", "Z"):
            del data[tag]  # nobody knows what is in it; or it lists people, and is no part of an image
        elif element.VR == "SQ":
            for item in element.value:
                _walk(item, table, names, uids)
        elif element.VR == "UI":
            if not element.keyword.endswith(_KINDS):
                element.value = _replaced(element.value, names, uids)
        elif element.keyword == "AcquisitionTime":
            if element.value:  # the table allows a dummy: it tells volumes apart
                element.value = names.time(str(element.value).strip())
        elif action == "Z":
            element.value = None
        elif action == "D" and element.VR in _TEXTS:
            element.value = "ANONYMIZED"
        elif action == "D" and element.VR in _DUMMIES:
            element.value = _DUMMIES[element.VR]
        elif action == "D":
            del data[tag]


def _action(tag: Any, table: Mapping[int, str]) -> str | None:
    """Return what is to be done with an attribute: X removes, Z empties, D puts a dummy, None keeps."""
    if tag.is_private or tag.element == 0 or 0x5000 <= tag.group <= 0x50FF or 0x6000 <= tag.group <= 0x60FF:
        return "X"  # also group lengths, which no longer hold, and curves and overlays, which are drawings
    if not pydicom().datadict.dictionary_has_tag(tag):
        return "X"
    return table.get(int(tag))


def _replaced(value: Any, names: Pseudonyms | _Kept, uids: dict[str, str]) -> Any:
    def new(original: str) -> str:
        made = _uid(original, names)
        if made != original:
            uids[made] = original
        return made

    if isinstance(value, str) or value is None:
        return new(str(value or ""))
    return [new(str(one)) for one in value]


def _uid(original: str, names: Pseudonyms | _Kept) -> str:
    """Return what takes a UID's place; none, and the standard's own, stay."""
    return original if not original or original.startswith(_STANDARD) else names.uid(original)


def _code(reader: Any) -> Any:
    item = reader.Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = _PROFILE
    return item


def _file_meta(reader: Any, data: Any) -> Any:
    """Return what stands before the data set: only what a reader needs."""
    before = data.file_meta
    meta = reader.dataset.FileMetaDataset()
    uid = reader.uid
    plain = uid.ImplicitVRLittleEndian if data.is_implicit_VR else uid.ExplicitVRLittleEndian
    meta.TransferSyntaxUID = before.get("TransferSyntaxUID") or (
        plain if data.is_little_endian else uid.ExplicitVRBigEndian
    )
    known = data.get("SOPClassUID") or before.get("MediaStorageSOPClassUID")
    meta.MediaStorageSOPClassUID = known or uid.SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = data.get("SOPInstanceUID", "") or uid.generate_uid()
    return meta


@cache
def _actions() -> Mapping[int, str]:
    """Return the table, as tag to action; rows that leave a choice are removed where nothing needs them."""
    try:
        rows = import_module(_TABLE)
    except ImportError as error:
        raise MissingComponentError(
            "De-identifying DICOM needs the package dicom-anonymizer, which is not installed. Run: pip install "
            "dicom-anonymizer"
        ) from error
    chosen = {"X": ("X_TAGS", "X_Z_TAGS", "X_D_TAGS", "X_Z_D_TAGS"), "Z": ("Z_TAGS", "Z_D_TAGS"), "D": ("D_TAGS",)}
    table = {}
    for action, lists in chosen.items():
        for name in lists:
            for tag in getattr(rows, name):
                if len(tag) == 2:  # curves and overlays have four numbers
                    table[tag[0] << 16 | tag[1]] = action
    del table[pydicom().datadict.tag_for_keyword("AcquisitionTime")]
    return table
