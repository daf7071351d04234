"""Predicting many images with one model or several: what comes in, what is written, and the record of both."""
