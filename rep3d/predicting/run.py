"""Predicts all images of a folder, one after the other; a case that cannot be predicted costs no other.

What was done is not done again: the record of the folder says of what each file was made. Under ``torchrun`` the cases
are shared among the processes, which never wait for each other.
"""

from __future__ import annotations

import glob
import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rep3d import __version__
from rep3d.checkpoint import load_checkpoint
from rep3d.errors import CheckpointError, ConfigError, DiskFullError, ImageError, OutputError, machine_error, said
from rep3d.files import PART_SUFFIX, file_hash, leads_out, sync_folder, utc_now, whole_file
from rep3d.imaging.channels import read_channels
from rep3d.imaging.dicom.results import Maker, read_sources
from rep3d.imaging.dicom.segmentation import require_highdicom, write_segmentation
from rep3d.imaging.dicom.structures import write_structures
from rep3d.imaging.nifti import read_label
from rep3d.imaging.pictures import planes_picture
from rep3d.inference.predictor import Predictor
from rep3d.inference.views import check_views
from rep3d.output import check_output, check_output_folder, same_file
from rep3d.predicting.manifest import MANIFEST, STATISTICS, Manifest
from rep3d.predicting.sources import Source, find_sources
from rep3d.predicting.statistics import label_statistics
from rep3d.starter.facts import starter_words
from rep3d.tasks.colours import label_colours
from rep3d.tasks.config import Term

__all__ = ["FORMATS", "Predicted", "Wanted", "predict"]

FORMATS: Mapping[str, str] = {"nifti": ".nii.gz", "dicom-seg": ".seg.dcm", "rtstruct": ".rtstruct.dcm"}
"""Kinds of label maps, and how their files' names end."""
_WRITERS = {"dicom-seg": write_segmentation, "rtstruct": write_structures}
_UNCERTAINTY, _PREVIEW = ".uncertainty.nii.gz", ".png"
_LONGEST = timedelta(days=7)  # one process may have far larger images than another
_LEFT_SECONDS = 3600  # what is not done by then was left by a kill
_PREVIEW_SIZE = 384  # pixels of the patient's longest side


@dataclass(frozen=True)
class Wanted:
    """What to write for each image.

    Attributes:
        formats: kinds of label maps, some of :data:`FORMATS`.
        views: how many test-time views to average.
        uncertainty: whether to write a map of it.
        previews: whether to draw a picture.

    Raises:
        ConfigError: if there is no such format or number of views.
    """

    formats: tuple[str, ...] = ("nifti",)
    views: int = 1
    uncertainty: bool = False
    previews: bool = False

    def __post_init__(self) -> None:
        check_views(self.views)
        unknown = [name for name in self.formats if name not in FORMATS]
        if unknown or not self.formats:
            raise ConfigError(f"format: expected one or more of {', '.join(FORMATS)}, got {', '.join(self.formats)!r}")
        if len(set(self.formats)) < len(self.formats):
            raise ConfigError(f"format: name each once, got {', '.join(self.formats)!r}")

    @property
    def settings(self) -> dict[str, Any]:
        """What changes the outputs, as plain JSON types."""
        return {
            "formats": sorted(self.formats),
            "views": self.views,
            "uncertainty": self.uncertainty,
            "previews": self.previews,
        }

    def outputs(self, case: str) -> dict[str, str]:
        """Return the file names of a case, by kind."""
        files = {name: f"{case}{FORMATS[name]}" for name in self.formats}
        if self.uncertainty:
            files["uncertainty"] = f"{case}{_UNCERTAINTY}"
        if self.previews:
            files["preview"] = f"{case}{_PREVIEW}"
        return files


@dataclass
class Predicted:
    """What became of the cases.

    Attributes:
        done: ids of those that were predicted now.
        kept: ids of those that had been before.
        failed: id of each other, and why.
        earlier: of those predicted now, by id, the files of earlier runs that were left beside the new ones.
        left_out: files that are part of no image, and why.
        tuned: how they were computed faster, and what that does to the Dice, in words; None where plainly.
        attribution: where the model comes from, which whoever passes results on names; None where nothing is asked.
    """

    done: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    earlier: dict[str, list[str]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    tuned: str | None = None
    attribution: str | None = None


def predict(
    checkpoints: Sequence[Path],
    source: Path,
    output: Path,
    wanted: Wanted,
    device: str | None = None,
    engine: str | None = None,
    tell: Callable[[str, int, int, float | str], None] = lambda case, number, of, took: None,
    terms: Mapping[str, Term] | None = None,
) -> Predicted:
    """Predict an image, or all in a folder.

    Args:
        checkpoints: the model file, or several whose probabilities are averaged.
        source: a NIfTI file, a folder of them, or a folder with DICOM series.
        output: the folder to write into; it is made.
        wanted: what to write for each image.
        device: as :class:`~rep3d.inference.predictor.Predictor` takes it; of several processes each has a GPU of its
            own if it is not given.
        engine: likewise.
        tell: called after each case with its id, its number, how many this process has, and the seconds that it took,
            or words where it was not predicted now.
        terms: what the labels stand for, by name, in DICOM results and colours; None for what the model says of it.

    Raises:
        CheckpointError: if a model cannot be used, or the models do not fit each other.
        ConfigError, ImageError, MissingComponentError, OutputError: if nothing of it can be done.
        DiskFullError: if the disk is full; what was done is kept, and the same call goes on from there.
    """
    rank, size = _shared()
    sources = find_sources(source, skip=_check_apart(source, output))
    found = _with_formats(wanted, sources.cases)
    _check_names(wanted, [case for case in found if not case.refused])
    folder = check_output_folder(output, (MANIFEST, STATISTICS), (source, *checkpoints), option="OUTPUT")
    manifest, cases = Manifest(folder, rank, size), found[rank::size]
    manifest.check_free([name for case in cases if not case.refused for name in wanted.outputs(case.id).values()])
    models = [{"file": str(path.absolute()), "sha256": file_hash(path)} for path in checkpoints if path.is_file()]
    _check_different(models)
    first, *others = [load_checkpoint(path) for path in checkpoints]
    predictor = Predictor(first, device or _own_device(), engine, single_image=len(sources.cases) == 1, others=others)
    if source.is_file() and predictor.task.in_channels == 1:  # files of other channels that lie beside it are not asked
        cases = tuple(replace(case, channels=()) for case in cases)
    maker = _maker(predictor, [model["sha256"] for model in models], wanted)
    settings = {**wanted.settings, **({"tuned": predictor.tuned} if predictor.tuned else {})}
    if terms is not None:
        settings["terms"] = {name: term.to_dict() for name, term in terms.items()}
        predictor.task = replace(predictor.task, terms=dict(terms))
    source_words = starter_words(predictor.info)
    result = Predicted(left_out=sources.left_out, tuned=predictor.tuned, attribution=source_words)
    try:
        for number, case in enumerate(cases, 1):
            started = time.perf_counter()
            took: float | str = "was there already"
            made_of: dict[str, Any] = {"models": [m["sha256"] for m in models], "settings": settings}
            entry: dict[str, Any] = {"input": str(case.path), "rep3d": __version__, "version": predictor.version}
            entry["model_files"] = [model["file"] for model in models]
            entry |= {"attribution": source_words} if source_words else {}
            try:
                if case.refused:
                    raise ImageError(case.refused)
                made_of["input_sha256"] = case.digest()
                if manifest.is_done(case.id, made_of):
                    result.kept.append(case.id)
                else:
                    outputs = tuple(wanted.outputs(case.id).values())
                    entry |= manifest.begin(case.id, outputs, {**entry, **made_of})
                    entry |= _predict_one(case, manifest, predictor, wanted, maker)
                    left = [name for name in entry["written"] if name not in outputs and (folder / name).exists()]
                    if left:
                        entry["earlier"] = result.earlier[case.id] = left
                    took = entry["seconds"]["total"] = round(time.perf_counter() - started, 3)
                    manifest.note(case.id, {"state": "done", **entry, **made_of, "time": utc_now()})
                    result.done.append(case.id)
            except Exception as error:  # a file can be odd in ways that nobody thought of
                if isinstance(full := machine_error(error), (DiskFullError, ConfigError)):
                    raise full from error  # no fault of the case: the next one would fail, too
                result.failed[case.id], took = said(error), "failed"
                entry |= manifest.as_left(case.id)
                failed = {"state": "failed", "reason": said(error), **entry, **made_of, "time": utc_now()}
                manifest.note(case.id, failed)
            tell(case.id, number, len(cases), took)
    finally:
        manifest.finish(sources.left_out)
    if size > 1:
        _wait_for_others()
    return result


def _predict_one(
    case: Source, manifest: Manifest, predictor: Predictor, wanted: Wanted, maker: Maker
) -> dict[str, Any]:
    """Return what the record says of a case, after its files were written.

    They are made in a hidden folder, and come to their places when the record says what they are.
    """
    places = {kind: manifest.folder / name for kind, name in wanted.outputs(case.id).items()}
    for file in places.values():
        check_output(file, (file.suffix,), case.files)
    with _workshop(manifest.folder, case.id) as folder:
        entry = _made(case, {kind: folder / file.name for kind, file in places.items()}, predictor, wanted, maker)
        manifest.making(case.id, {made["file"]: made["sha256"] for made in entry["outputs"].values()})
        for file in places.values():
            os.replace(folder / file.name, file)
        sync_folder(manifest.folder)
    return entry


@contextmanager
def _workshop(output: Path, case: str) -> Iterator[Path]:
    """Yield a folder for what is not done yet; what killed runs left of the same case is removed."""
    start = f".{case[:50]}."
    for old in output.glob(f"{glob.escape(start)}*{PART_SUFFIX}"):
        if old.is_dir() and time.time() - old.stat().st_mtime > _LEFT_SECONDS:
            shutil.rmtree(old, ignore_errors=True)
    with TemporaryDirectory(prefix=start, suffix=PART_SUFFIX, dir=output) as folder:
        yield Path(folder)


def _made(
    case: Source, files: Mapping[str, Path], predictor: Predictor, wanted: Wanted, maker: Maker
) -> dict[str, Any]:
    """Return what the record says of a case, after its files were written where they are to be made.

    Args:
        case: the image.
        files: where to write, by kind.
        predictor, wanted, maker: what makes them, and how.
    """
    if case.series is not None and any(kind in files for kind in _WRITERS):
        read_sources(case.series)  # what nothing can refer to is told before the work
    with case.as_nifti() as image:
        label = files.get("nifti") or image[0].with_name(f"{image[0].name}.label.nii")
        found = predictor.segment(image, label, views=wanted.views, uncertainty=files.get("uncertainty"))
        began = time.perf_counter()
        channels, grid = read_channels(image, predictor.task.in_channels)
        intensities = channels[0]  # which statistics and preview are of
        values, _ = read_label(label)
    labels, terms = dict(predictor.values), predictor.task.terms
    for kind, write in _WRITERS.items():
        if kind in files:
            assert case.series is not None, "the formats were checked"
            write(values, case.series, files[kind], labels, terms, maker)
    if "preview" in files:
        colours = label_colours(labels, terms)
        by_value = {labels[name]: colour for name, colour in colours.items()}
        drawn = io.BytesIO()
        planes_picture(intensities, values, grid, by_value, _PREVIEW_SIZE).save(drawn, "PNG")
        with whole_file(files["preview"]) as content:
            content.write(drawn.getvalue())
    statistics = label_statistics(intensities, values, grid, labels)
    return {
        "outputs": {kind: {"file": file.name, "sha256": file_hash(file)} for kind, file in files.items()},
        "labels": labels,
        "statistics": statistics,
        "confidence": found.confidence,
        "uncertainty": round(found.uncertainty, 4),
        "device": found.device,
        "engine": found.engine,
        "tuned": found.tuned,
        "fallback": found.fallback,
        "seconds": {name: round(seconds, 3) for name, seconds in found.seconds.items()}
        | {"outputs": round(time.perf_counter() - began, 3)},
    }


def _maker(predictor: Predictor, digests: Sequence[str], wanted: Wanted) -> Maker:
    digest = digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()
    parameters = {"views": str(wanted.views), "models": str(len(digests))}
    return Maker(predictor.task.name, predictor.version, digest, parameters)


def _check_different(models: Sequence[Mapping[str, str]]) -> None:
    """Make sure that no model counts twice, under whatever name."""
    for number, model in enumerate(models):
        for other in models[:number]:
            if model["sha256"] == other["sha256"]:
                same = model["file"] == other["file"]
                what = "is given twice" if same else f"is the same model as {other['file']}"
                raise CheckpointError(f"{model['file']} {what}: it would count twice. Give each model once.")


def _check_apart(source: Path, output: Path) -> list[str]:
    """Make sure that outputs do not lie among the images; return which folder of theirs is passed over for it."""
    if same_file(source if source.is_dir() else source.parent, output):
        raise OutputError(f"OUTPUT: {output} is the folder of the images. Give another one.")
    if not source.is_dir() or leads_out(output, source):
        return []
    inner = Path(os.path.realpath(output)).relative_to(os.path.realpath(source)).parts
    if len(inner) > 1:
        raise OutputError(f"OUTPUT: {output} lies among the images of {source}. Give a folder beside it.")
    return list(inner)


def _with_formats(wanted: Wanted, cases: tuple[Source, ...]) -> tuple[Source, ...]:
    """Return the cases, those refused of which the wanted formats cannot be made.

    Raises:
        ConfigError: if these are all.
        MissingComponentError: if highdicom is wanted and not installed.
    """
    dicom = [name for name in wanted.formats if name in _WRITERS]
    if not dicom:
        return cases

    def why(case: Source) -> str:
        return f"{' and '.join(dicom)}: {case.path.name} is no DICOM series, and a DICOM result must refer to one."

    if all(case.series is None for case in cases):
        raise ConfigError(f"{why(cases[0])} Give the folder of the series, or choose nifti.")
    if "dicom-seg" in dicom:
        require_highdicom()
    advice = "Predict it on its own as nifti, or move it away."
    return tuple(
        replace(case, refused=f"{why(case)} {advice}") if case.series is None and not case.refused else case
        for case in cases
    )


def _check_names(wanted: Wanted, cases: Sequence[Source]) -> None:
    """Make sure that no case writes over what another one is predicted into, such as a.uncertainty over a's map."""
    writes: dict[str, str] = {}
    for case in cases:
        for name in wanted.outputs(case.id).values():
            if (other := writes.setdefault(name.lower(), case.id)) != case.id:
                raise OutputError(
                    f"OUTPUT: {name} would be written for the image {other} and for the image {case.id}. Rename one of "
                    f"the two, or move it out of INPUT."
                )


def _shared() -> tuple[int, int]:
    """Return the number of this process and how many there are, as ``torchrun`` tells them.

    Raises:
        ConfigError: if what the environment says is not possible.
    """
    told = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        rank, size = map(int, told)
    except ValueError:
        rank, size = 0, 0
    if not 0 <= rank < size:
        raise ConfigError(f"RANK, WORLD_SIZE: expected numbers as torchrun sets them, got {told[0]!r}, {told[1]!r}")
    return rank, size


def _wait_for_others() -> None:
    """Wait until all processes of ``torchrun`` have done their cases: it stops the others as soon as one has ended with
    status 1, as it does for a case that failed. Processes that were started one by one have nowhere to meet."""
    if not all(os.environ.get(name) for name in ("MASTER_ADDR", "MASTER_PORT")):
        return
    import torch.distributed

    torch.distributed.init_process_group("gloo", timeout=_LONGEST)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _own_device() -> str | None:
    """Return the GPU of this process where several share the cases and there are GPUs."""
    import torch

    local = os.environ.get("LOCAL_RANK", "")
    if not (local.isdigit() and torch.cuda.is_available()):
        return None
    return f"cuda:{int(local) % torch.cuda.device_count()}"
