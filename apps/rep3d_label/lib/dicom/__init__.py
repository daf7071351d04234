"""DICOM series to images."""
