"""Hands with known joints or vertices and a camera: readers of public label sets, and what is drawn from a label."""
