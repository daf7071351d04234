"""Training in a child process, and its versions."""
