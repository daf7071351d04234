"""DICOM series to NIfTI files: which files are slices, which of them make a volume, where it lies, what its values are.

A scanner writes a volume as one file per slice. What may go wrong when they are put together (slices missing, several
series in one, one position twice) shows in no picture until a volume in ml is wrong; so all of it is checked first, and
refused in words.
"""

from rep3d.imaging.dicom.convert import as_nifti, convert_series
from rep3d.imaging.dicom.series import DicomSeries, Found, LeftOut, find_series, only_series

__all__ = ["DicomSeries", "Found", "LeftOut", "as_nifti", "convert_series", "find_series", "only_series"]
