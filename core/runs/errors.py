"""Stands in until the new layout's own module comes: the only import of `UserError` from the old layout."""

from hand1000.cli import UserError

__all__ = ["UserError"]
