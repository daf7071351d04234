"""The parts of the Rep3D Label app; ``main.py`` puts them together."""
