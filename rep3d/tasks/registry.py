"""The tasks that Rep3D knows by name: those of the paper (arXiv 2505.19603) and the decathlon's hippocampus.

Spacing, intensity windows and patches of the first five are the paper's. Names and values are those of the data sets'
own ``dataset.json`` files, but for AMOS's "arota" and "gall bladder". Codes are SNOMED CT's as 3D Slicer's
terminologies and DICOM (PS3.16) use them. No weights come with a task: a table of tasks is no claim of accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from rep3d.errors import TaskError
from rep3d.tasks.config import Code, Intensity, TaskConfig, Term

__all__ = ["TASKS", "matching_task", "registered_task", "same_modality"]


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


_STRUCTURE = _sct("123037004", "Anatomical Structure")
_ALTERED = _sct("49755003", "Morphologically Altered Structure")
_RIGHT, _LEFT = _sct("24028007", "Right"), _sct("7771000", "Left")
_ANTERIOR, _POSTERIOR = _sct("255549009", "Anterior"), _sct("255551008", "Posterior")
_KIDNEY, _ADRENAL_GLAND = _sct("64033007", "Kidney"), _sct("23451007", "Adrenal gland")
_LIVER, _PANCREAS = _sct("10200004", "Liver"), _sct("15776009", "Pancreas")
_HIPPOCAMPUS = _sct("5366008", "Hippocampus")
_NEOPLASM, _CYST = _sct("108369006", "Neoplasm"), _sct("367643001", "Cyst")

_Colour = tuple[int, int, int]


def _organ(colour: _Colour, type: Code, modifier: Code | None = None) -> Term:
    return Term(colour, _STRUCTURE, type, modifier)


def _lesion(colour: _Colour, type: Code, region: Code) -> Term:
    return Term(colour, _ALTERED, type, region=region)


# In the order of AMOS's voxel values 1, 2, ...; the MR images are annotated with the first thirteen.
_ABDOMEN: Mapping[str, Term] = {
    "spleen": _organ((157, 108, 162), _sct("78961009", "Spleen")),
    "right kidney": _organ((185, 102, 83), _KIDNEY, _RIGHT),
    "left kidney": _organ((232, 164, 92), _KIDNEY, _LEFT),
    "gallbladder": _organ((104, 170, 60), _sct("28231008", "Gallbladder")),
    "esophagus": _organ((211, 190, 160), _sct("32849002", "Esophagus")),
    "liver": _organ((150, 52, 44), _LIVER),
    "stomach": _organ((240, 205, 70), _sct("69695003", "Stomach")),
    "aorta": _organ((230, 40, 40), _sct("15825003", "Aorta")),
    "postcava": _organ((0, 151, 206), _sct("64131007", "Inferior vena cava")),
    "pancreas": _organ((250, 140, 20), _PANCREAS),
    "right adrenal gland": _organ((110, 220, 200), _ADRENAL_GLAND, _RIGHT),
    "left adrenal gland": _organ((30, 140, 120), _ADRENAL_GLAND, _LEFT),
    "duodenum": _organ((255, 175, 205), _sct("38848004", "Duodenum")),
    "bladder": _organ((90, 90, 220), _sct("89837001", "Urinary bladder")),
    # One label for two organs: no single code says that.
    "prostate/uterus": Term((140, 110, 60)),
}
_PAPER_SPACING = (1.5, 1.5, 2.0)
_PAPER_CT = Intensity("window", -125.0, 275.0)
_PAPER_PATCH = (96, 96, 96)


def _task(
    name: str,
    terms: Mapping[str, Term],
    modality: str,
    spacing: tuple[float, float, float],
    intensity: Intensity,
    description: str,
    roi_size: tuple[int, int, int] = _PAPER_PATCH,
) -> TaskConfig:
    """Return a task whose labels have the values 1, 2, ... in the order of ``terms``."""
    values = {label: value for value, label in enumerate(terms, start=1)}
    return TaskConfig(name, values, spacing, intensity, "RAS", roi_size, description, terms, modality)


_ALL: Sequence[TaskConfig] = (
    _task("amos_ct", _ABDOMEN, "CT", _PAPER_SPACING, _PAPER_CT, "Fifteen abdominal organs on CT (AMOS 2022)"),
    _task(
        "amos_mri",
        dict(list(_ABDOMEN.items())[:13]),
        "MRI",
        (1.0, 1.0, 1.0),
        Intensity("window", 0.0, 1000.0),
        "Thirteen abdominal organs on MR (AMOS 2022)",
    ),
    _task(
        "kits",
        {
            "kidney": _organ((185, 102, 83), _KIDNEY),
            "tumor": _lesion((250, 220, 60), _NEOPLASM, _KIDNEY),
            "cyst": _lesion((70, 160, 230), _CYST, _KIDNEY),
        },
        "CT",
        _PAPER_SPACING,
        _PAPER_CT,
        "Kidneys with their tumours and cysts on CT (KiTS 2021)",
    ),
    _task(
        "msd_pancreas",
        {
            "pancreas": _organ((250, 140, 20), _PANCREAS),
            "cancer": _lesion((60, 130, 220), _NEOPLASM, _PANCREAS),
        },
        "CT",
        _PAPER_SPACING,
        _PAPER_CT,
        "Pancreas and its tumours on CT (Medical Segmentation Decathlon, task 7)",
    ),
    _task(
        "msd_hepatic_vessel",
        {
            "Vessel": Term((0, 151, 206), _STRUCTURE, _sct("59820001", "Blood vessel"), region=_LIVER),
            "Tumour": _lesion((240, 120, 60), _NEOPLASM, _LIVER),
        },
        "CT",
        _PAPER_SPACING,
        Intensity("window", 0.0, 230.0),
        "Vessels and tumours of the liver on CT (Medical Segmentation Decathlon, task 8)",
    ),
    _task(
        "msd_hippocampus",
        {
            "Anterior": _organ((230, 130, 70), _HIPPOCAMPUS, _ANTERIOR),
            "Posterior": _organ((70, 140, 220), _HIPPOCAMPUS, _POSTERIOR),
        },
        "MRI",
        (1.0, 1.0, 1.0),
        Intensity("zscore", 0.5, 99.5),
        "Head (anterior) and body with tail (posterior) of the hippocampus on MR (Medical Segmentation Decathlon, "
        "task 4)",
        (48, 64, 48),
    ),
)
TASKS: Mapping[str, TaskConfig] = MappingProxyType({task.name: task for task in _ALL})

# What the data sets' own files write where we write it otherwise.
_PUBLISHED_SPELLINGS: Mapping[str, str] = {"arota": "aorta", "gall bladder": "gallbladder"}


def registered_task(name: str) -> TaskConfig:
    """Return the task of that name.

    Raises:
        TaskError: if there is none.
    """
    if name not in TASKS:
        raise TaskError(f"There is no task {name!r}. There are: {', '.join(TASKS)}.")
    return TASKS[name]


def same_modality(one: str | None, other: str | None) -> bool:
    """Return whether two names of modalities may mean the same; ``"MR"`` is ``"MRI"``, and a missing one may be any."""
    first, second = ((text or "").upper().replace("MRI", "MR") for text in (one, other))
    return not first or not second or first == second


def matching_task(labels: Mapping[str, int], modality: str | None = None) -> TaskConfig | None:
    """Return the registered task with the same label names and voxel values, or None.

    Args:
        labels: label name to voxel value, as a data set says; the published misspellings of AMOS are understood.
        modality: ``"CT"``, ``"MRI"``, ... of the images, if known; a task for another one does not match.
    """
    spelled = {_PUBLISHED_SPELLINGS.get(name, name): value for name, value in labels.items()}
    for task in TASKS.values():
        if spelled == task.labels and same_modality(modality, task.modality):
            return task
    return None
