"""What may be used is the smallest of what the machine, the container or job, and the address space leave."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

import rep3d.memory
from rep3d.errors import ImageError, OutOfMemoryError, TooLargeError
from rep3d.imaging.grid import Geometry, resample_label
from rep3d.imaging.nifti import read_image, read_label
from rep3d.imaging.transforms import preparation
from rep3d.memory import free_and_total, require_memory
from rep3d.tasks.config import TaskConfig

GB = 10**9


def _group(folder: Path, limit: tuple[str, str], used: tuple[str, int], cache: tuple[str, int]) -> None:
    folder.mkdir(parents=True)
    (folder / limit[0]).write_text(f"{limit[1]}\n")
    (folder / used[0]).write_text(f"{used[1]}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{cache[0]} {cache[1]}\n")


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Return what puts this process into cgroups, as /proc/self/cgroup tells of them."""
    monkeypatch.setattr(rep3d.memory, "_OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(rep3d.memory, "_GROUPS", tmp_path / "groups")

    def enter(told: str) -> Path:
        (tmp_path / "cgroup").write_text(told)
        return tmp_path / "groups"

    return enter


def _v2(folder: Path, limit: str, used: int, cache: int) -> None:
    _group(folder, ("memory.max", limit), ("memory.current", used), ("inactive_file", cache))


def test_the_limit_of_a_group_counts_less_its_use(groups: Callable[[str], Path]) -> None:
    root = groups("0::/user/job\n")
    _v2(root / "user", str(GB // 2), GB // 4, 0)
    _v2(root / "user" / "job", "max", GB, 0)
    assert free_and_total() == (GB // 4, GB // 2)


def test_what_was_read_from_files_is_given_up(groups: Callable[[str], Path]) -> None:
    _v2(groups("0::/\n"), str(GB // 2), GB // 4, GB // 8)
    assert free_and_total() == (GB // 4 + GB // 8, GB // 2)


def test_the_older_groups_and_a_container_that_names_the_hosts_place(groups: Callable[[str], Path]) -> None:
    root = groups("9:cpu:/docker/a\n4:memory:/docker/a\n0::/\n")
    names = ("memory.limit_in_bytes", str(GB // 2)), ("memory.usage_in_bytes", GB // 4), ("total_inactive_file", 0)
    _group(root / "memory", *names)
    assert free_and_total() == (GB // 4, GB // 2)


def test_without_groups_it_is_the_machine(groups: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "cgroup").unlink(missing_ok=True)
    free, total = free_and_total()
    assert 0 < free <= total <= psutil.virtual_memory().total


def test_the_address_space_counts(groups: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    groups("")
    used = psutil.Process().memory_info().vms
    monkeypatch.setattr(resource, "getrlimit", lambda _: (used + 1000 * 2**20, -1))
    free, total = free_and_total()
    assert total <= used + 1000 * 2**20 and free <= 1100 * 2**20


def test_both_sizes_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rep3d.memory, "free_and_total", lambda: (GB, 8 * GB))
    require_memory(GB, "for this", "Wait.")
    with pytest.raises(OutOfMemoryError, match="Not enough memory for this: 2.0 GB are needed, 1.0 GB are free. Wait."):
        require_memory(2 * GB, "for this", "Wait.")
    with pytest.raises(TooLargeError, match="for this: 9.0 GB are needed, and all that may be used here is 8.0 GB"):
        require_memory(9 * GB, "for this", "Wait.")


def test_memory_is_looked_at_before_it_is_taken(
    write_nifti: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image ten times as large in all directions, by its header, is refused at each step that would need memory."""
    image = write_nifti("scout.nii.gz", np.ones((24, 24, 16), np.int16), np.diag([45.0, 45.0, 45.0, 1.0]))
    label = write_nifti("label.nii.gz", np.ones((24, 24, 16), np.uint8), np.diag([45.0, 45.0, 45.0, 1.0]))
    task = TaskConfig("toy", {"A": 1}, (0.3, 0.3, 0.3))
    for with_label in (False, True):
        with pytest.raises(TooLargeError, match="3451x3451x2251 voxels of 0.3x0.3x0.3 mm.*428.* GB are needed"):
            preparation(task, with_label)({"image": str(image), "label": str(label)})
    with pytest.raises(TooLargeError, match="label map of 36000x36000x24000 voxels"):
        resample_label(np.ones((24, 24, 16), np.uint8), Geometry((24, 24, 16), np.eye(4)), _ten_times())
    monkeypatch.setattr(rep3d.memory, "free_and_total", lambda: (10_000, 8 * GB))
    for read in (read_image, read_label):
        with pytest.raises(OutOfMemoryError, match=f"to read {(image if read is read_image else label).name}"):
            read(image if read is read_image else label)
    with pytest.raises(ImageError):
        read_image(image.with_name("none.nii"))


def _ten_times() -> Geometry:
    return Geometry((36_000, 36_000, 24_000), np.eye(4))
