"""Stable Diffusion in and out, encoding, the noise loss, and DDIM with guidance."""
