"""Command-line options of metrics."""

import argparse


def resamples(text: str) -> int:
    """argparse type: enough resamples for a 95 % interval."""
    value = int(text)
    if value < 100:
        raise argparse.ArgumentTypeError(f"{text} is too few for a 95 % interval: 100 at least")
    return value
