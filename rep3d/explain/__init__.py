"""One page that shows masks, kernels and receptive fields."""
