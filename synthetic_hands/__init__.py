"""A world that needs no download: drawn hands and a tiny Stable Diffusion with random weights."""
