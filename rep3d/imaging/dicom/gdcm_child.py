"""A process of its own that decompresses DICOM files: what damages it costs no more than the series that did.

Run as a script by :mod:`rep3d.imaging.dicom.decompress`. It reads paths, one a line; for each it answers with the
pixels as numpy writes them, after their length in eight bytes; the length is 0 where they cannot be read.
"""

import io
import os
import sys

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

_MOST_BYTES = 2 << 30  # of memory: a few bytes may announce a slice of any size

if __name__ == "__main__":
    sys.path.pop(0)  # the folder of this file, whose modules have everyday names
    import numpy as np
    import SimpleITK as itk

    if resource is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (_MOST_BYTES, _MOST_BYTES))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the libraries print is no answer
    for line in sys.stdin.buffer:
        pixels = io.BytesIO()
        try:
            image = itk.ReadImage(os.fsdecode(line[:-1]), imageIO="GDCMImageIO")
            np.save(pixels, itk.GetArrayViewFromImage(image)[0])
        except RuntimeError:
            pass  # nothing is the answer
        answers.write(len(pixels.getbuffer()).to_bytes(8, "big") + pixels.getbuffer())
        answers.flush()
