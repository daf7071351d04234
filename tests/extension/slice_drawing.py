"""Draws what Slicer's views would show of the scene on the bench, which renders nothing: three slices and a surface.

What is drawn are the scene's own voxels: the volume, and the segments on its grid, cut along the patient's axes through
the middle of the segments. A picture of a panel can be put to the left.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import vtk
from matplotlib import image as images
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from mpl_toolkits.mplot3d.art3d import Poly3DCollection
from scipy.ndimage import gaussian_filter, map_coordinates
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from tests.extension.clinician import Clinician

__all__ = ["draw_beside"]

_DPI = 100
_STEP_MM = 0.25
_FIELD_MM = 26.0  # from the middle of the image to each border
_GROUND, _INK = "#16181c", "#c8ccd4"
# View, its colour in Slicer, the patient's axes to the right and upwards (radiological), the letters at left and right.
_VIEWS = (
    ("Axial", "#f34a33", (0, -1), (1, 1), "RL"),
    ("Coronal", "#6eb04b", (0, -1), (2, 1), "RL"),
    ("Sagittal", "#edd54c", (1, -1), (2, 1), "AP"),
)


def draw_beside(panel: Path, person: Clinician, output: Path) -> Path:
    """Write a picture (PNG) of a panel with the views of its scene to the right.

    Args:
        panel: The panel's picture.
        person: Whose scene is drawn.
        output: The file to write.
    """
    left = images.imread(panel)
    high, wide = left.shape[:2]
    figure = Figure(figsize=((wide + high) / _DPI, high / _DPI), dpi=_DPI, facecolor=_GROUND)
    figure.figimage(left, 0, 0)
    segmentation = person.segmentation.GetSegmentation()
    found = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    colours = {segment.GetName(): segment.GetColor() for segment in found}
    segments = {name: person.voxels(name) > 0 for name in colours}
    matrix = vtk.vtkMatrix4x4()
    person.volume.GetIJKToRASMatrix(matrix)
    grid = person.slicer.util.arrayFromVTKMatrix(matrix)
    voxels = person.slicer.util.arrayFromVolume(person.volume)
    drawn = _place(np.argwhere(np.logical_or.reduce(list(segments.values()))).mean(axis=0), grid)
    centre = _place((np.array(voxels.shape) - 1) / 2, grid)
    start, side, gap = wide / (wide + high), high / (wide + high) / 2, 3 / high
    for place, view in zip(((0, 1), (0, 0), (1, 0)), _VIEWS, strict=True):
        corner = (start + place[0] * side, place[1] / 2, side - gap / 2, 0.5 - gap)
        _slice(figure.add_axes(corner), view, voxels, segments, colours, grid, drawn, centre)
    corner = (start + side, 0.5, side - gap / 2, 0.5 - gap)
    _surface(figure.add_axes(corner, projection="3d"), segments, colours, grid, drawn)  # type: ignore[call-overload]
    figure.savefig(output, dpi=_DPI, facecolor=_GROUND)
    return output


def _place(index: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return where an index (K, J, I) lies, in mm (RAS)."""
    return np.asarray((grid @ [*index[::-1], 1.0])[:3])


def _sampled(voxels: np.ndarray, points: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return voxels (K, J, I) at points (3, ...) in mm, by linear interpolation; 0 outside."""
    flat = np.concatenate([points.reshape(3, -1), np.ones((1, points[0].size))])
    index = (np.linalg.inv(grid) @ flat)[2::-1]
    return map_coordinates(voxels.astype(np.float32), index, order=1).reshape(points.shape[1:])


def _slice(
    axes: Axes,
    view: tuple[str, str, tuple[int, int], tuple[int, int], str],
    voxels: np.ndarray,
    segments: dict[str, np.ndarray],
    colours: dict[str, tuple[float, float, float]],
    grid: np.ndarray,
    drawn: np.ndarray,
    centre: np.ndarray,
) -> None:
    """Draw a slice through the point `drawn`, around the point `centre`."""
    name, bar, (right, right_sign), (up, up_sign), letters = view
    offsets = np.arange(-_FIELD_MM, _FIELD_MM + _STEP_MM / 2, _STEP_MM)
    corner = np.array([centre[axis] if axis in (right, up) else drawn[axis] for axis in range(3)])
    points = np.broadcast_to(corner[:, None, None], (3, offsets.size, offsets.size)).copy()
    points[right] += right_sign * offsets[None, :]
    points[up] += up_sign * offsets[:, None]
    grey = _sampled(voxels, points, grid)
    low, high = np.percentile(voxels, (1, 99.7))
    extent = (offsets[0], offsets[-1], offsets[0], offsets[-1])
    axes.imshow(grey, cmap="gray", origin="lower", extent=extent, vmin=low, vmax=high, interpolation="bilinear")
    for segment, mask in segments.items():
        inside = _sampled(mask, points, grid)
        layer = np.zeros((*inside.shape, 4))
        layer[..., :3], layer[..., 3] = colours[segment], 0.42 * (inside >= 0.5)
        axes.imshow(layer, origin="lower", extent=extent, interpolation="bilinear")
        if (inside >= 0.5).any():
            axes.contour(offsets, offsets, inside, levels=[0.5], colors=[colours[segment]], linewidths=1.8)
    axes.set_axis_off()
    axes.plot([0, 1], [0.995, 0.995], color=bar, linewidth=6, transform=axes.transAxes, solid_capstyle="butt")
    edge = [withStroke(linewidth=2.5, foreground=_GROUND)]
    words: dict[str, Any] = {"color": _INK, "transform": axes.transAxes, "fontsize": 9.5, "path_effects": edge}
    axes.text(0.03, 0.95, name, va="top", **words)
    axes.text(0.02, 0.5, letters[0], va="center", **words)
    axes.text(0.98, 0.5, letters[1], va="center", ha="right", **words)


def _surface(
    axes: Any,
    segments: dict[str, np.ndarray],
    colours: dict[str, tuple[float, float, float]],
    grid: np.ndarray,
    middle: np.ndarray,
) -> None:
    """Draw the segments' surfaces, lit from the front."""
    light = np.array([-0.35, 0.8, 0.5]) / np.linalg.norm([-0.35, 0.8, 0.5])
    reach = 0.0
    for name, mask in segments.items():
        corners = _triangles(mask, grid) - middle
        if not len(corners):
            continue
        reach = max(reach, float(np.abs(corners).max()))
        normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        shade = 0.45 + 0.55 * np.abs(normals @ light)
        faces = np.clip(shade[:, None] * np.array(colours[name])[None, :], 0, 1)
        axes.add_collection3d(Poly3DCollection(corners, facecolors=faces, edgecolors=faces, linewidths=0.3))
    axes.set(xlim=(-reach, reach), ylim=(-reach, reach), zlim=(-reach, reach))
    axes.set_box_aspect((1, 1, 1), zoom=1.35)
    axes.view_init(elev=18, azim=65)
    axes.set_axis_off()
    axes.set_facecolor(_GROUND)
    axes.text2D(0.03, 0.95, "Surface", va="top", color=_INK, fontsize=9, transform=axes.transAxes)


def _triangles(mask: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Return the surface of a mask (K, J, I) as triangles (N, 3, 3) in mm, a little smoothed."""
    padded = np.pad(mask.astype(np.float32), 2)
    smooth = np.ascontiguousarray(gaussian_filter(padded, 1.0))
    image = vtk.vtkImageData()
    image.SetDimensions(*smooth.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(smooth.ravel(), deep=True))
    finder = vtk.vtkFlyingEdges3D()
    finder.SetInputData(image)
    finder.SetValue(0, 0.5)
    finder.Update()
    found = finder.GetOutput()
    if not found.GetNumberOfPolys():
        return np.empty((0, 3, 3))
    points = vtk_to_numpy(found.GetPoints().GetData()) - 2.0
    world = points @ grid[:3, :3].T + grid[:3, 3]
    return world[vtk_to_numpy(found.GetPolys().GetConnectivityArray()).reshape(-1, 3)]
