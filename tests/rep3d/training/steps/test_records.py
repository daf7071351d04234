"""The table of a training: whole rows, none twice, and never in the place of another file."""

from __future__ import annotations

import resource
import signal
from importlib.util import find_spec
from pathlib import Path

import pytest

from rep3d.errors import DiskFullError, MissingComponentError, OutputError
from rep3d.training.steps.records import CsvRecord, Records, check_csv, check_tensorboard

LABELS = ("Liver", 'Kidney, "left"')


def _fill(path: Path, steps: range, begin: int = 0) -> None:
    records = Records(path, None, LABELS, begin)
    for step in steps:
        records.write(step, {"minutes": step / 60, "loss": 1 / step, "learning_rate": 1e-4})
        if step % 2 == 0:
            records.write(step, {"validation_dice": 0.5}, {LABELS[1]: step / 10})


def test_a_table_that_goes_on_is_that_of_a_run_that_never_stopped(tmp_path: Path) -> None:
    whole, path = tmp_path / "whole.csv", tmp_path / "model.csv"
    _fill(whole, range(1, 7))
    assert whole.read_text().splitlines()[:3] == [
        'step,minutes,loss,learning_rate,validation_dice,validation_dice: Liver,"validation_dice: Kidney, ""left"""',
        "1,0.0166667,1,0.0001,,,",
        "2,0.0333333,0.5,0.0001,0.5,,0.2",
    ]
    for reached, kept in ((6, 4), (5, 5), (3, 2)):
        path.unlink(missing_ok=True)
        _fill(path, range(1, reached + 1))
        with path.open("a") as file:
            file.write("7,0.1,0.2")  # the process was killed here
        _fill(path, range(kept + 1, 7), kept)
        assert path.read_text() == whole.read_text(), (reached, kept)
    # The last step may be validated only after the run went on.
    CsvRecord(path, LABELS, 5).write(5, {"validation_dice": 0.25}, {"Liver": 0.75})
    assert path.read_text().splitlines()[-1] == "5,0.0833333,0.2,0.0001,0.25,0.75,"
    CsvRecord(path, LABELS)  # a new run
    assert len(path.read_text().splitlines()) == 1


def test_another_file_is_not_replaced_and_a_full_disk_leaves_whole_rows(tmp_path: Path) -> None:
    mine = tmp_path / "mine.csv"
    mine.write_text("case,patient\na,b\n")
    with pytest.raises(OutputError, match=r"mine\.csv is there and no table of a training"):
        check_csv(mine)
    path = tmp_path / "model.csv"
    _fill(path, range(1, 3))
    check_csv(path)
    record = CsvRecord(path, LABELS, 2)
    size = path.stat().st_size
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 5, before[1]))
        with pytest.raises(DiskFullError, match="larger than the disk"):
            record.write(3, {"minutes": 1, "loss": 0.25, "learning_rate": 1e-4}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    _fill(path, range(3, 4), 2)
    assert [row.split(",")[0] for row in path.read_text().splitlines()] == ["step", "1", "2", "3"]
    path.unlink()
    path.mkdir()
    with pytest.raises(OutputError, match="cannot be written any more .*so the training was ended"):
        record.write(4, {"loss": 0.25}, {})


@pytest.mark.skipif(find_spec("tensorboard") is not None, reason="tensorboard is installed here")
def test_without_tensorboard_the_line_that_installs_it_is_said() -> None:
    with pytest.raises(MissingComponentError, match=r"--tensorboard needs the package tensorboard: pip install"):
        check_tensorboard()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="tensorboard is not installed here")
def test_tensorboard_reads_what_was_written_and_steps_that_were_done_again_count_once(tmp_path: Path) -> None:
    check_tensorboard()
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for steps, begin in ((range(1, 5), 0), (range(3, 6), 2)):
        records = Records(None, tmp_path, LABELS, begin)
        for step in steps:
            records.write(step, {"loss": step / 10}, {"Liver": 0.5})
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == [1, 2, 3, 4, 5]
    assert events.Scalars("loss")[2].value == pytest.approx(0.3)
    assert len(events.Scalars("validation_dice/Liver")) == 5
