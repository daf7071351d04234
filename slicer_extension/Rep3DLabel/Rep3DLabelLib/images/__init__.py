"""Voxels in files, exactly: NIfTI on an image's own grid, `.seg.nrrd`, a label map out of segments. numpy only."""
