"""Cases: image file and label file; folders of them, and images that are generated."""
