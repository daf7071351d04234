"""From a file to what the network sees, and back onto the image's own voxels."""
