"""Which strategy needs the fewest labels? Played on labelled data."""
