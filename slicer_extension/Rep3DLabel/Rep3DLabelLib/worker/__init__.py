"""A child process does what would make Slicer wait: `jobs` is Slicer's side, `main` the process, `ops*` its work."""
