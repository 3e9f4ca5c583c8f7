"""Triangle meshes from files: PLY and OBJ here, other kinds by trimesh where it is installed."""

from pathlib import Path

import numpy as np

from core.hands.rasterizer import Mesh
from core.runs.errors import UserError, reason_of

SUFFIXES = (".ply", ".obj", ".glb", ".stl", ".off")
PLY_TYPES = {"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4", "float": "f4"}
PLY_TYPES |= {"double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4"}
PLY_TYPES |= {"uint32": "u4", "float32": "f4", "float64": "f8"}


def load_mesh(path: Path) -> Mesh:
    """A mesh; `faces` is (0, 3) where the file has none.

    Raises:
        UserError: missing, unreadable, or a kind that needs trimesh, which is not installed.
    """
    try:
        if path.suffix.lower() == ".ply":
            mesh = read_ply(path.read_bytes())
        elif path.suffix.lower() == ".obj":
            mesh = read_obj(path.read_text())
        else:
            mesh = read_by_trimesh(path)
        if not len(mesh.vertices) or not np.isfinite(mesh.vertices).all():
            raise ValueError("no vertices, or vertices that are not finite")
        if len(mesh.faces) and not 0 <= mesh.faces.min() <= mesh.faces.max() < len(mesh.vertices):
            raise ValueError("triangles of vertices that are not there")
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # a damaged file can fail in any way
        raise UserError(f"{path}: not a readable mesh ({reason_of(error)})") from None
    return mesh


def read_ply(content: bytes) -> Mesh:
    """A PLY file, as text or binary; polygons become triangles.

    Raises:
        ValueError, KeyError, IndexError: damaged.
    """
    header, mark, body = content.partition(b"end_header\n")
    if not mark:
        header, mark, body = content.partition(b"end_header\r\n")
    lines = [line.split() for line in header.decode("ascii").splitlines()]
    if not mark or lines[0] != ["ply"]:
        raise ValueError("no PLY header")
    kind = next(line[1] for line in lines if line[0] == "format")
    order = ">" if kind == "binary_big_endian" else "<"
    if kind == "ascii":
        numbers = np.array(body.split(), dtype=float)
    elements: list[tuple[str, int, list[list[str]]]] = []
    for line in lines:
        if line[0] == "element":
            elements.append((line[1], int(line[2]), []))
        elif line[0] == "property":
            elements[-1][2].append(line[1:])
    place, vertices, faces = 0, np.zeros((0, 3)), []
    for name, count, properties in elements:
        has_lists = any(one[0] == "list" for one in properties)
        if not has_lists:
            names = [one[1] for one in properties]
            if kind == "ascii":
                table = numbers[place : place + count * len(names)].reshape(count, len(names))
                columns = dict(zip(names, table.T))
                place += table.size
            else:
                dtype = np.dtype([(one[1], order + PLY_TYPES[one[0]]) for one in properties])
                rows = np.frombuffer(body, dtype, count, place)
                columns = {column: rows[column] for column in names}
                place += rows.nbytes
            if name == "vertex":
                vertices = np.stack([columns[axis] for axis in "xyz"], axis=1).astype(float)
            continue
        for _ in range(count):
            for one in properties:
                length = 1
                if one[0] == "list":
                    head, place = _read_ply_numbers(numbers if kind == "ascii" else body, place, 1, order, one[1])
                    length = int(head[0])
                values, place = _read_ply_numbers(numbers if kind == "ascii" else body, place, length, order, one[-2])
                if name == "face" and one[0] == "list" and one[-1] in ("vertex_indices", "vertex_index"):
                    faces += _fan(values.astype(int).tolist())
    return Mesh(vertices, np.array(faces, dtype=int).reshape(-1, 3))


def _read_ply_numbers(source, place: int, count: int, order: str, kind: str) -> tuple[np.ndarray, int]:
    """`count` numbers from a text's array or a binary body, and the place after them."""
    if isinstance(source, np.ndarray):
        if place + count > len(source):
            raise ValueError("it ends too early")
        return source[place : place + count], place + count
    values = np.frombuffer(source, order + PLY_TYPES[kind], count, place)
    return values, place + values.nbytes


def read_obj(text: str) -> Mesh:
    """A Wavefront OBJ file's vertices and faces; polygons become triangles."""
    vertices, faces = [], []
    for line in text.splitlines():
        key, *rest = line.split() or [""]
        if key == "v":
            vertices.append([float(number) for number in rest[:3]])
        elif key == "f":
            corners = [int(corner.partition("/")[0]) for corner in rest]
            faces += _fan([corner - 1 if corner > 0 else len(vertices) + corner for corner in corners])
    return Mesh(np.array(vertices).reshape(-1, 3), np.array(faces, dtype=int).reshape(-1, 3))


def _fan(polygon: list[int]) -> list[list[int]]:
    return [[polygon[0], a, b] for a, b in zip(polygon[1:], polygon[2:])]


def read_by_trimesh(path: Path) -> Mesh:
    try:
        import trimesh
    except ImportError:
        raise UserError(f"{path}: {path.suffix} files need trimesh: pip install trimesh; PLY and OBJ do not") from None
    mesh = trimesh.load(path, force="mesh", process=False)
    return Mesh(np.asarray(mesh.vertices, dtype=float), np.asarray(mesh.faces, dtype=int))
