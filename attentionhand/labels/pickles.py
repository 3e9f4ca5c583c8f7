"""Pickles of arrays (MANO's model files, HO-3D's labels) without running any code that they name."""

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from core.runs.errors import UserError, reason_of

NUMPY_NAMES = {"_reconstruct", "scalar", "ndarray", "dtype", "_frombuffer"}
NUMPY_MODULES = re.compile(r"numpy(\.(core|_core)\.(multiarray|numeric))?")


class _Chumpy:
    """Stands in for chumpy's arrays, which hold a NumPy array `x`, or a choice `idxs` of another one `a`."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.state = state

    def array(self) -> np.ndarray:
        if "x" in self.state:
            return np.asarray(self.state["x"])
        chosen = plain(self.state["a"]).ravel()[self.state["idxs"]]
        return chosen.reshape(self.state.get("preferred_shape", chosen.shape))


class _Sparse:
    """Stands in for SciPy's sparse matrices, whose module has moved since; a compressed-column one."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        shape = state.get("_shape", state.get("shape"))
        self.matrix = sparse.csc_matrix((state["data"], state["indices"], state["indptr"]), shape=shape)


class _ArrayUnpickler(pickle.Unpickler):
    """Knows arrays and nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if NUMPY_MODULES.fullmatch(module) and name in NUMPY_NAMES:
            return super().find_class(module, name)
        if module in ("chumpy.ch", "chumpy.reordering") and name in ("Ch", "Select"):
            return _Chumpy
        if module.startswith("scipy.sparse") and name == "csc_matrix":
            return _Sparse
        if module in ("__builtin__", "builtins") and name in ("object", "set"):
            return {"object": object, "set": set}[name]
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return _reconstructed
        if (module, name) == ("_codecs", "encode"):  # bytes, as Python 3 writes them for Python 2
            return _latin_bytes
        raise pickle.UnpicklingError(f"names {module}.{name}, which is not an array")


def _reconstructed(kind: type, base: type, state: Any) -> Any:
    if kind not in (_Chumpy, _Sparse):
        raise pickle.UnpicklingError(f"rebuilds a {kind.__name__}")
    return kind()


def _latin_bytes(text: str, encoding: str) -> bytes:
    return text.encode("latin1")


def load_arrays(path: Path) -> dict[str, Any]:
    """The dictionary of arrays in a pickle; chumpy's and sparse ones as NumPy arrays.

    Raises:
        UserError: no pickle, one that names anything but arrays, or one that holds something else.
    """
    try:
        with open(path, "rb") as file:
            content = _ArrayUnpickler(file, encoding="latin1").load()
        if not isinstance(content, dict):
            raise ValueError(f"holds a {type(content).__name__}, not named arrays")
        return {name: plain(value) for name, value in content.items()}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # a pickle of something else can fail in any way
        raise UserError(f"{path}: not a pickle of arrays ({reason_of(error)}); nothing of it was run") from None


def plain(value: Any) -> Any:
    """NumPy's array for a stand-in; anything else as it is."""
    if isinstance(value, _Chumpy):
        return value.array()
    return value.matrix.toarray() if isinstance(value, _Sparse) else value
