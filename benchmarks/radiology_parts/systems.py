"""The two apps that ``radiology.py`` compares: how each is served, trained and read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from parts.label_server import LabelServer, Trained, running_server

from radiology_parts.app import AppChanges, RadiologyApp
from rep3d.checkpoint import save_checkpoint
from rep3d.nn.zoo import build_network, preset_config
from rep3d.tasks.config import TaskConfig

__all__ = ["Ours", "Radiology", "System"]

_NEVER = 1_000_000  # iterations or epochs that no budget of minutes allows


class _System:
    """An app with its studies folder.

    Args:
        name: how the results call it.
        folder: all that it writes goes there.
        labels: label name to voxel value 1, 2, ...
    """

    network_time: str  # the name of the network's time among the latencies of an answer

    def __init__(self, name: str, folder: Path, labels: Mapping[str, int]) -> None:
        self.name = name
        self.folder = folder
        self.labels = dict(labels)

    @property
    def studies(self) -> Path:
        """The studies folder."""
        return self.folder / "studies"

    @property
    def log(self) -> Path:
        """What the servers print, one after the other's."""
        number = len(list(self.folder.glob("server_*.log")))
        return self.folder / f"server_{number}.log"


class Ours(_System):
    """Rep3D Label."""

    network_time = "network"

    @property
    def has_published(self) -> bool:
        """Whether it has a trained model. Without one the radiology app answers requests with random weights."""
        return any((self.studies / "rep3d").rglob("published.pt"))

    @contextmanager
    def served(self) -> Iterator[LabelServer]:
        """Its server, running."""
        # The other app scores no unlabelled images in the background either.
        conf = {"labels": ",".join(self.labels), "preset": "tiny", "score_minutes": "0"}
        with running_server(self.studies, self.log, conf) as server:
            yield server

    def train(self, server: LabelServer, minutes: float, seconds: float | None, seed: int) -> Trained:
        """Trains on all labels submitted.

        Args:
            server: its server.
            minutes: time for the training.
            seconds: what the other system took, from the request to the published model, if it was measured.
            seed: of the training, where the app takes one.
        """
        return server.train({"max_minutes": minutes, "iterations": _NEVER, "seed": seed})

    def use_random_weights(self, spacing: tuple[float, float, float], roi_size: tuple[int, int, int]) -> None:
        """Make the app answer requests before any training."""
        task = TaskConfig("rep3d", self.labels, spacing=spacing, roi_size=roi_size)
        network = build_network(preset_config("tiny", 1, len(self.labels) + 1))
        save_checkpoint(self.studies / "rep3d" / "published.pt", network, task, {"version": "v1"})


class Radiology(_System):
    """MONAI Label's radiology app with its ``segmentation`` model (SegResNet).

    Args:
        name, folder, labels: as of :class:`Ours`.
        python: interpreter of its environment.
        source: the app's folder, or None for the installed one.
        changes: what to change in its files.
    """

    network_time = "infer"
    # Its default tracking does not start with today's mlflow. Caching what is the same in each epoch is its own option.
    training = {"tracking": "None", "dataset": "CacheDataset", "dataloader": "ThreadDataLoader", "max_epochs": _NEVER}

    def __init__(
        self, name: str, folder: Path, labels: Mapping[str, int], python: Path, source: Path | None, changes: AppChanges
    ) -> None:
        super().__init__(name, folder, labels)
        self._python, self._source, self.changes = python, source, changes

    @property
    def app(self) -> RadiologyApp:
        """Its copy of the app, made when first asked for."""
        return RadiologyApp(self._python, self._source, self.folder / "app", self.changes)

    @property
    def has_published(self) -> bool:
        return self.app.published.exists()

    @contextmanager
    def served(self) -> Iterator[LabelServer]:
        conf = {"models": "segmentation", "labels": ",".join(self.labels), "use_pretrained_model": "false"}
        conf["sam2"] = "false"  # it would load weights from the internet at the start
        app = self.app
        with running_server(self.studies, self.log, conf, app.folder, app.python, "segmentation") as server:
            yield server

    def train(self, server: LabelServer, minutes: float, seconds: float | None, seed: int) -> Trained:
        trained = server.train(self.training, stop_after=max(60 * minutes, seconds or 0))
        self.app.publish_best()
        return trained

    def use_random_weights(self, spacing: tuple[float, float, float], roi_size: tuple[int, int, int]) -> None:
        """Without a checkpoint the app uses the network as initialised."""


System = Ours | Radiology
