"""Networks: Rep3D, its spatial prior, others by name, and folding for deployment. Knows nothing above it."""
