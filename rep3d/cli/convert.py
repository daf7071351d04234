"""``rep3d convert``: a data set in another layout."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from rep3d.cli.common import console, show_left_out
from rep3d.errors import Rep3DError, TaskError

__all__ = ["Layout", "convert"]


class Layout(str, Enum):
    """How the files of a data set are laid out."""

    decathlon = "decathlon"
    nnunet = "nnunet"
    plain = "plain"
    studies = "studies"


def convert(
    source: Annotated[
        Path,
        typer.Argument(help="Data set: imagesTr and labelsTr, or images and labels. With --label-maps, the images."),
    ],
    out: Annotated[Path, typer.Argument(help="Folder to write; a new one, or one that is empty.")],
    to: Annotated[
        Layout,
        typer.Option(
            help="decathlon: several channels in a 4D file; nnunet: x_0000, x_0001 ...; plain: images, labels; "
            "studies: of a folder of images alone, a studies folder for the server."
        ),
    ],
    label_maps: Annotated[Path | None, typer.Option(help="Folder of the label maps, where it lies elsewhere.")] = None,
    labels: Annotated[
        str | None, typer.Option(help="Label names and values, such as liver=1,tumour=2.", show_default="dataset.json")
    ] = None,
    channels: Annotated[
        str | None, typer.Option(help="Names of the channels, such as CT, or T1,T2.", show_default="dataset.json")
    ] = None,
) -> None:
    """Write a data set in another layout.

    Everything is copied: voxel values and affines stay as they are. A case that cannot be converted is named, and the
    others are written all the same; the command then ends with status 1.
    """
    from rep3d.data.cases import read_data_set
    from rep3d.data.meaning import meaning_of
    from rep3d.imaging.converting import convert_data_set, convert_images
    from rep3d.tasks.dataset_json import require_folder

    data = None
    if to is not Layout.studies:
        data = read_data_set(source, label_maps)
    elif label_maps is not None:
        raise TaskError("--label-maps: --to studies takes images alone. Leave it out.")
    else:
        require_folder(source)
    named = tuple(name.strip() for name in channels.split(",")) if channels else None
    if named and not all(named):
        raise TaskError(f"--channels: expected a name for each channel, with commas between, got {channels!r}.")
    meaning = meaning_of(source, _table(labels) if labels else None, named)
    with console.status("") as status:

        def tell(id_: str) -> None:
            status.update(f"copying {escape(id_)}")

        if data is None:
            done = convert_images(source, meaning, out, tell)
        else:
            done = convert_data_set(data, meaning, to.value, out, tell)
    show_left_out(done.left_out)
    counts = [f"{len(done.cases)} cases"] if done.cases else []
    counts += [f"{len(done.tests)} images without label maps"] if done.tests else []
    console.print(f"Wrote {escape(str(out))}: {', '.join(counts)} ({to.value})", soft_wrap=True)
    for remark in done.remarks:
        console.print(remark, soft_wrap=True)
    if done.failed:
        raise Rep3DError(f"{len(done.failed)} images could not be converted; they are named above.")


def _table(text: str) -> tuple[dict[str, int], int | None]:
    """Return the labels, and the value to ignore, of ``"liver=1,tumour=2,ignore=255"``.

    Raises:
        TaskError: if it is something else.
    """
    from rep3d.tasks.dataset_json import labels_and_ignore

    pairs = [part.rpartition("=") for part in text.split(",")]
    for part, (name, _, value) in zip(text.split(","), pairs, strict=True):
        if not name.strip() or not value.strip():
            raise TaskError(f"--labels: expected NAME=VALUE, with commas between several, got {part!r}.")
    return labels_and_ignore((name, value) for name, _, value in pairs)
