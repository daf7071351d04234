"""Which image next? Scores from the background."""
