"""The papers' metrics. In Python, on two folders, two `.npz` files of saved features, or two (N, D) arrays:

from core.metrics import fid, kid

fid("call_test", "generated/call")
kid("call_test", "generated/call", hands=True, protocol="standard")
"""

from typing import Any

__all__ = ["fid", "kid"]


def __getattr__(name: str) -> Any:
    """Import the metrics where they are used only: worker processes import this package too, and start quickly."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    from core.metrics import fid_kid

    return getattr(fid_kid, name)
