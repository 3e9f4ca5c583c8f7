"""FID, KID and hand confidence with their intervals, and what they are computed on."""
