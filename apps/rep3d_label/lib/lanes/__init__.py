"""Who waits for what: inference in a lane of its own, and connections that keep moving."""
