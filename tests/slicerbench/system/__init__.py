"""What stands between Slicer and the operating system: the launcher of its Python, and files as Windows has them.

Nothing here needs Qt, VTK or slicer-core.
"""
