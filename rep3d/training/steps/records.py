"""What is written down of a training while it runs: a table of its steps as CSV, and the same for TensorBoard.

Each row is on its way to the disk before the next step begins, so that a run that is killed has all of them. One that
goes on from a snapshot begins with cutting off what came after it: those steps are done again.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rep3d.errors import MissingComponentError, OutputError, machine_error
from rep3d.files import write_text

__all__ = ["CsvRecord", "Records", "TensorBoard", "check_csv", "check_tensorboard"]

_COLUMNS = ("step", "minutes", "loss", "learning_rate", "validation_dice")
_OF_LABEL = "validation_dice: "
INSTALL = "pip install tensorboard"


def check_csv(path: Path) -> None:
    """Refuse to replace a file that is no table of a training.

    Raises:
        OutputError: if there is one.
    """
    if path.exists() and _header(path)[: len(_COLUMNS)] != list(_COLUMNS):
        raise OutputError(f"{path} is there and no table of a training. Move it, or give the model another name.")


def _header(path: Path) -> list[str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        return next(csv.reader([file.readline()]), [])


def check_tensorboard() -> None:
    """Make sure that TensorBoard can be written.

    Raises:
        MissingComponentError: if it is not installed.
    """
    try:
        import torch.utils.tensorboard  # noqa: F401
    except ImportError as error:
        raise MissingComponentError(f"--tensorboard needs the package tensorboard: {INSTALL}") from error


class CsvRecord:
    """A CSV file with a row for each step: step, minutes, loss, learning rate, and, where it was measured, Dice.

    Args:
        path: the file; a new run replaces it.
        labels: names of the labels, each with a column.
        step: of the snapshot from which the run goes on; 0 for a new run.

    Raises:
        OSError: if it cannot be written.
    """

    def __init__(self, path: Path, labels: Sequence[str], step: int = 0) -> None:
        self._path = path
        self._fields = [*_COLUMNS, *(_OF_LABEL + name for name in labels)]
        rows = [row for row in self._rows() if int(row["step"]) <= step] if step else []
        self._last: dict[str, Any] = dict(rows[-1]) if rows else {}
        text = io.StringIO()
        writer = csv.DictWriter(text, self._fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[:-1])
        self._end = len(text.getvalue().encode())  # of all rows but the last, which may still be completed
        writer.writerows(rows[-1:])
        write_text(path, text.getvalue())

    def _rows(self) -> list[dict[str, str]]:
        """Return what is there, up to a line that was not written to its end."""
        if not self._path.exists() or _header(self._path) != self._fields:
            return []
        text = self._path.read_text(encoding="utf-8", errors="replace")
        rows = csv.DictReader(io.StringIO(text[: text.rfind("\n") + 1]))
        return [row for row in rows if None not in row and None not in row.values() and row["step"].isdigit()]

    def write(self, step: int, values: Mapping[str, float], dice: Mapping[str, float]) -> None:
        """Write a row, or complete that of the same step.

        Raises:
            DiskFullError, OutputError: if that is not possible; the rows before are whole.
        """
        row = {"step": str(step), **{name: f"{value:.6g}" for name, value in values.items()}}
        row |= {_OF_LABEL + name: f"{value:.6g}" for name, value in dice.items()}
        same = self._last.get("step") == row["step"]
        try:
            with self._path.open("r+", encoding="utf-8", newline="") as file:
                if not same:
                    self._end = file.seek(0, io.SEEK_END)
                self._last = {**self._last, **row} if same else row
                file.seek(self._end)
                csv.DictWriter(file, self._fields, lineterminator="\n").writerow(self._last)
                file.truncate()
        except OSError as error:
            words = f"{self._path} cannot be written any more ({error.strerror}), so the training was ended."
            raise machine_error(error) or OutputError(words) from error


class TensorBoard:
    """The same for TensorBoard.

    Args:
        folder: where its events are written, one file for each time that the run goes on.
        step: of the snapshot from which the run goes on; 0 for a new run.
    """

    def __init__(self, folder: Path, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=step + 1 if step else None)

    def write(self, step: int, values: Mapping[str, float], dice: Mapping[str, float]) -> None:
        """Write the values of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        for name, value in dice.items():
            self._writer.add_scalar(f"validation_dice/{name}", value, step)
        self._writer.flush()


class Records:
    """All that is written down of a run.

    Args:
        table: the CSV file; None for none.
        tensorboard: folder of TensorBoard; None for none.
        labels: names of the labels.
        step: of the snapshot from which the run goes on; 0 for a new run.
        writes: whether this process writes at all, among those that train together.
    """

    def __init__(
        self, table: Path | None, tensorboard: Path | None, labels: Sequence[str], step: int = 0, writes: bool = True
    ) -> None:
        self._into: list[CsvRecord | TensorBoard] = []
        if not writes:
            return
        if table is not None:
            self._into.append(CsvRecord(table, labels, step))
        if tensorboard is not None:
            self._into.append(TensorBoard(tensorboard, step))

    def write(self, step: int, values: Mapping[str, float], dice: Mapping[str, float] | None = None) -> None:
        """Write what is known of a step; what is given of one step in two calls is one row.

        Args:
            step: from 1.
            values: some of minutes, loss, learning_rate and validation_dice.
            dice: label name to Dice, where it was measured after this step.
        """
        for record in self._into:
            record.write(step, values, dice or {})
