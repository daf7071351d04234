"""Slicer's scene as the workflow sees it: volumes, segmentations, overlays, curves.

It knows MRML nodes and nothing of Qt, servers or files of labels, and every method returns quickly: what is big is
copied in steps. It touches only nodes that it made and segments that are the server's labels; a node that is gone is
refused in words. The parts are in the other files of this folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import LocalProblem
from ..images.files import LabelFile, VolumeFile
from ..images.segnrrd import SegmentationData
from ..labels import Label, SegmentName
from .images import set_geometry
from .names import BINARY, SURFACE, source_representation
from .nodes import OVERLAY, ROLE, SEGMENTATION, VOLUME, SampleNodes, mark, nodes_of
from .observing import observe, observe_nodes
from .plots import Curves
from .segments import (
    LabelLoad,
    LoadedLabel,
    check_fits,
    drawn,
    ensure_segments,
    has_label_voxels,
    segment_names,
    write_label,
)
from .snapshot import Grid, LayersLoad, grid_of, is_on_grid, restore, snapshot
from .views import Views
from .volumes import SlabLoad, SlabSave, add_volume, check_uploadable, highest
from .watch import Watch

__all__ = ["Scene"]

_VOLUME_REFERENCE = "rep3dVolume"  # the user may give a segmentation another reference geometry; this one stays


class Scene:
    """The scene.

    Args:
        slicer: The slicer module.
        scene: The vtkMRMLScene, by default the application's.
        undo: Makes an undo point of a segmentation; returns False if it cannot. None: there is no segment editor.

    Attributes:
        server: Address written on the nodes that are made from now on.
    """

    def __init__(self, slicer: Any, scene: Any = None, undo: Callable[[Any], bool] | None = None) -> None:
        self._slicer, self._scene, self._undo = slicer, scene or slicer.mrmlScene, undo
        self.server = ""
        self._nodes = SampleNodes(self._scene)
        self._views = Views(slicer, self._scene)
        self._curves = Curves(self._scene)
        self._watch: Watch | None = None
        self._writing = 0
        self._surfaces: list[Any] = []  # segmentations whose surfaces a write of ours has dropped
        kind = slicer.vtkMRMLScene
        self._tags = [
            observe(self._scene, kind.StartCloseEvent, self._closing),
            observe(self._scene, kind.EndCloseEvent, self._closed),
            observe_nodes(self._scene, kind.NodeAboutToBeRemovedEvent, self._going),
            observe(self._scene, kind.NodeRemovedEvent, self._removed),
        ]

    def close(self) -> None:
        """Observe nothing any more; the nodes stay."""
        self.unwatch()
        for tag in self._tags:
            self._scene.RemoveObserver(tag)
        self._tags = []

    def _closing(self) -> None:
        self.unwatch()
        self._nodes.closing()

    def _closed(self) -> None:
        self._nodes.closed()
        self._views.forget()
        self._curves.forget()
        self._surfaces.clear()

    def _going(self, node: Any) -> None:
        if self._watch is not None and self._watch.node is node:
            self._views.keep()
            self._watch.going()

    def _removed(self) -> None:
        if self._watch is not None and not self._nodes.is_here(self._watch.node):
            self.unwatch()

    # ---- volumes

    def begin_volume(self, volume: VolumeFile, name: str, image_id: str) -> SlabLoad:
        """Begin to put an image into the scene; call `step` of what is returned until it returns True.

        Args:
            volume: The VolumeFile.
            name: To show; made unique.
            image_id: The server's id of the image; "" for a volume to be laid over it, which gets a window from zero
                to its highest value.

        Raises:
            LocalProblem, BadAnswer: The file of voxels is missing or does not fit.
        """

        def finish(image: Any) -> Any:
            top = None if image_id else highest(image)
            node = add_volume(self._slicer, self._scene, image, name, volume, top)
            mark(node, VOLUME if image_id else OVERLAY, image_id, self.server)
            self._nodes.add(node)
            return node

        return SlabLoad(self._slicer, volume, finish)

    def show_volume(self, node: Any) -> None:
        """Show a volume in all slice views, whole."""
        self._require_volume(node)
        self._views.show(node)

    def begin_volume_snapshot(self, node: Any, path: str | Path) -> SlabSave:
        """Begin to write a volume's voxels to a `.npy` file; call `step` of what is returned until it returns True.

        Raises:
            LocalProblem: It cannot be written, or the volume is none that a server could take as it is seen.
        """
        self._require_volume(node)
        check_uploadable(self._scene, node)
        return SlabSave(node, path)

    # ---- segmentations

    def segmentation_for(self, volume: Any, entries: Iterable[Label], create: bool = True) -> Any:
        """Return the latest segmentation that this module made for a volume, with a segment for each label.

        Where there is none: a new one with empty segments, or None if `create` is False.
        """
        self._require_volume(volume)
        for node in reversed(nodes_of(self._scene, "vtkMRMLSegmentationNode")):
            if node.GetAttribute(ROLE) == SEGMENTATION and node.GetNodeReference(_VOLUME_REFERENCE) is volume:
                self.ensure_segments(node, entries)
                return node
        if not create:
            return None
        node = self._new_segmentation(volume, f"{volume.GetName()} segmentation")
        self.ensure_segments(node, entries)
        return node

    def ensure_segments(self, node: Any, entries: Iterable[Label]) -> None:
        """Add a segment for each label that has none; nothing else changes."""
        self._require_segmentation(node)
        with self._own_write(node):
            ensure_segments(self._slicer, node.GetSegmentation(), entries, {})

    def begin_label(self, label: LabelFile) -> LabelLoad:
        """Begin to fetch a label's voxels; when `step` of what is returned gives True, its `label` is written at once.

        Raises:
            LocalProblem, BadAnswer: The file of voxels is missing or does not fit.
        """
        return LabelLoad(self._slicer, label)

    def apply_label(self, node: Any, label: LoadedLabel, entries: Iterable[Label], mode: str = "undo") -> Any:
        """Give the label segments new voxels, and leave every other segment as it is.

        Args:
            node: The segmentation.
            label: What `begin_label` gives.
            entries: Labels of the model; those that the label does not have become empty.
            mode: "undo" writes into `node` behind an undo point of the segment editor. Where none can be made, though
                there are voxels to lose, or where the user gave `node` another geometry than the image's, a new
                segmentation is made and `node` is left as it is. "new" makes one always.

        Returns:
            The segmentation that was written to.

        Raises:
            LocalProblem, BadAnswer: The label does not fit the image, or a file or node is gone. Nothing was changed.
        """
        if mode not in ("undo", "new"):
            raise ValueError(f"Expected mode 'undo' or 'new', got '{mode}'.")
        entries, volume, grid = self._prepare(node, label, entries)
        if mode == "new" or not is_on_grid(node, grid) or not self._may_write(node, label, entries):
            node = self._new_segmentation(volume, f"{volume.GetName()} auto-segmentation")
        self._write(node, label, entries)
        return node

    def load_label(self, node: Any, label: LoadedLabel, entries: Iterable[Label]) -> None:
        """Put a stored label into a segmentation whose label segments are still empty.

        Raises:
            LocalProblem, BadAnswer: They are not, or as `apply_label`. Nothing was changed.
        """
        entries, _, grid = self._prepare(node, label, entries)
        if has_label_voxels(node.GetSegmentation(), label.file, entries) or not is_on_grid(node, grid):
            raise LocalProblem(f"'{node.GetName()}' is not empty any more. Nothing was changed; open the case again.")
        self._write(node, label, entries)

    def snapshot(self, node: Any) -> SegmentationData:
        """Return a copy of all segments on the grid of the image, see `is_on_grid`; voxels beyond it are kept."""
        self._require_segmentation(node)
        return snapshot(self._slicer, node, self._grid(node))

    def surfaces_again(self) -> bool:
        """Make the surfaces again that `apply_label` has dropped with the voxels that they were of; return True."""
        nodes, self._surfaces = self._surfaces, []
        for node in nodes:
            if self._nodes.is_here(node):
                with self._own_write(node):
                    node.CreateClosedSurfaceRepresentation()
        return True

    def is_on_grid(self, node: Any) -> bool:
        """Return whether a snapshot is exact; else Slicer resamples to nearest neighbours, for the user to be told."""
        self._require_segmentation(node)
        return is_on_grid(node, self._grid(node))

    def begin_restore(self, data: SegmentationData) -> LayersLoad:
        """Begin to fetch a snapshot's voxels; when `step` of what is returned gives True, its `images` are there."""
        return LayersLoad(self._slicer, data)

    def restore(
        self, volume: Any, data: SegmentationData, entries: Iterable[Label], name: str, images: list[Any] | None = None
    ) -> Any:
        """Return a new segmentation with what a snapshot had: overlaps, order, tags and the user's segments included.

        Labels that the model has gained since get an empty segment. `images` are those of `begin_restore`.

        Raises:
            LocalProblem: It was drawn on an image of another grid.
        """
        self._require_volume(volume)
        node = self._new_segmentation(volume, f"{name} segmentation")
        try:
            with self._own_write(node):
                restore(self._slicer, node, data, grid_of(self._slicer, node, volume), images)
        except LocalProblem:
            self._nodes.remove_one(node)
            raise
        self.ensure_segments(node, entries)
        return node

    def drawn_segments(self, node: Any) -> set[str]:
        """Return the ids of the segments that have voxels."""
        self._require_segmentation(node)
        return set(self._drawn(node))

    def segment_names(self, node: Any) -> list[SegmentName]:
        """Return the segments as far as their meaning goes, in the order of the list."""
        self._require_segmentation(node)
        return segment_names(node.GetSegmentation())

    def watch(self, node: Any, edited: Callable[[], None], going: Callable[[], None] = lambda: None) -> None:
        """Call a function after each edit of a segmentation by the user, until `unwatch` or the node is gone.

        Args:
            node: The segmentation.
            edited: The function.
            going: Called when the user takes the node out of the scene, while it is still whole.
        """
        self._require_segmentation(node)
        self.unwatch()
        self._watch = Watch(self._slicer, node, edited, lambda: self._writing > 0, going)

    def unwatch(self) -> None:
        """Call nothing any more."""
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()

    # ---- views, curves

    def show_overlay(self, node: Any, visible: bool, opacity: float = 0.5) -> None:
        """Show a volume over the image in all slice views, clear where it is zero; or show again what was there."""
        self._require_volume(node)
        if visible:
            self._views.show_overlay(node, opacity)
        elif self._views.is_overlay(node):
            self._views.hide_overlay()

    def remove_overlay(self, node: Any) -> None:
        """Hide an overlay and take it out of the scene; nothing happens if it is gone."""
        if self._nodes.is_here(node):
            if self._views.is_overlay(node):
                self._views.hide_overlay()
            self._nodes.remove_one(node)

    def is_hidden(self, node: Any) -> bool:
        """Return whether an overlay is in the scene and in no slice view: the user, and Slicer itself, change views."""
        return self._nodes.is_here(node) and not self._views.is_seen(node)

    def views_back(self) -> None:
        """Show again what the views showed before the watched segmentation went: the segment editor has changed it."""
        self._views.give_back()

    def jump(self, ras: Sequence[float]) -> None:
        """Centre all slice views on a point, RAS in mm."""
        self._views.jump(ras)

    def show_curves(self, losses: Sequence[Sequence[float]], validations: Sequence[Sequence[float]]) -> Any:
        """Fill Slicer's plot with (iteration, loss) and (iteration, Dice) points; return the chart node."""
        return self._curves.show(losses, validations)

    def remove(self, node: Any) -> None:
        """Take one node that this module made out of the scene; nothing happens if it is gone."""
        if self._nodes.is_here(node):
            self._nodes.remove_one(node)

    def give_away(self, node: Any) -> None:
        """Leave a node that this module made to the user: it does not go with the sample any more."""
        self._nodes.give_away(node)

    def remove_sample(self, *keep: Any) -> None:
        """Take out of the scene what this module made for the sample; `keep` stays (the next sample's nodes)."""
        self.unwatch()
        self._views.hide_overlay()
        self._nodes.remove(*keep)

    # ---- parts

    def _require_volume(self, node: Any) -> None:
        self._nodes.require(node, "vtkMRMLScalarVolumeNode", "a volume")

    def _require_segmentation(self, node: Any) -> None:
        self._nodes.require(node, "vtkMRMLSegmentationNode", "a segmentation")

    def _volume_of(self, node: Any) -> Any:
        return node.GetNodeReference(_VOLUME_REFERENCE) or node.GetNodeReference(
            node.GetReferenceImageGeometryReferenceRole()
        )

    def _grid(self, node: Any) -> Grid:
        return grid_of(self._slicer, node, self._volume_of(node))

    def _new_segmentation(self, volume: Any, name: str) -> Any:
        node = self._scene.AddNewNodeByClass("vtkMRMLSegmentationNode", self._scene.GenerateUniqueName(name))
        node.CreateDefaultDisplayNodes()
        node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        node.SetNodeReferenceID(_VOLUME_REFERENCE, volume.GetID())
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        mark(node, SEGMENTATION, volume.GetAttribute("Rep3DLabel.Image") or "", self.server)
        self._nodes.add(node)
        return node

    def _prepare(self, node: Any, label: LoadedLabel, entries: Iterable[Label]) -> tuple[list[Label], Any, Grid]:
        """Check all that can go wrong before anything is changed, and put the label's voxels in their place."""
        self._require_segmentation(node)
        volume = self._volume_of(node)
        if volume is None:
            raise LocalProblem(
                f"The image of '{node.GetName()}' was removed from the scene. Nothing was changed; "
                "submit or leave this case, and open it again."
            )
        self._require_volume(volume)
        grid = grid_of(self._slicer, node, volume)
        check_fits(label.file, grid.shape, grid.matrix)
        if label.image is not None:
            set_geometry(label.image, grid.matrix)
        return list(entries), volume, grid

    def _may_write(self, node: Any, label: LoadedLabel, entries: list[Label]) -> bool:
        if self._undo is not None and self._undo(node):
            return True
        return not has_label_voxels(node.GetSegmentation(), label.file, entries)

    def _drawn(self, node: Any) -> Iterator[str]:
        segmentation = node.GetSegmentation()
        if source_representation(segmentation) != BINARY:  # surfaces: none of them is empty
            return iter(segmentation.GetSegmentIDs())
        return drawn(segmentation)

    def _write(self, node: Any, label: LoadedLabel, entries: list[Label]) -> None:
        segmentation, values = node.GetSegmentation(), label.file.values
        if segmentation.ContainsRepresentation(SURFACE):
            self._surfaces.append(node)
        with self._own_write(node):
            ensure_segments(self._slicer, segmentation, entries, values)
            write_label(self._slicer, segmentation, label.image, values, [entry.name for entry in entries])

    @contextmanager
    def _own_write(self, node: Any) -> Iterator[None]:
        """Change a segmentation, which is no edit; each kind of event comes once, since all views draw for each."""
        self._writing += 1
        modifying = node.StartModify()
        try:
            yield
        finally:
            node.EndModify(modifying)
            self._writing -= 1
            if self._watch is not None and not self._writing:
                self._watch.written()
