"""What a step of a training is made of, and what is written down of it."""
