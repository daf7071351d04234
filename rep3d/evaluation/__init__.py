"""What is measured, on which cases, and what it decides."""

__all__ = ["TOLERANCE_MM"]

TOLERANCE_MM = 2.0
"""Distance up to which surfaces count as agreeing, where nothing else is asked for."""
