"""The large depthwise convolution: exact, as small matrix products."""
