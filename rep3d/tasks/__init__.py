"""What a task is: labels, spacing, intensity, orientation; and the tasks known by name."""
