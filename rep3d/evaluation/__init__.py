"""What is measured, on which cases, and what it decides."""
