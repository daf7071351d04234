"""What is kept in the studies folder."""
