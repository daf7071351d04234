"""The parts of the Rep3D Label module for 3D Slicer, one idea per file.

`client` talks to the server and needs neither Slicer nor Qt, so the demo and the tests use it too. Nothing is imported
here: a part that needs Slicer must not stop a part that does not.
"""
