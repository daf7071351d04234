"""From the command line's settings to a server that may start."""
