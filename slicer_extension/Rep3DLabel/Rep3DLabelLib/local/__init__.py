"""A Rep3D Label server on this computer, for people without an engineer: `server` starts, watches and stops it."""
