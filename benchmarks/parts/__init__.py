"""What several benchmarks generate and serve."""
