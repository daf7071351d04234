"""Models that come with Rep3D, so that Auto-segment is of use before anything was trained: where, of what, under which
licence."""
