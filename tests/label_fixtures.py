"""Label sets written exactly in their formats, from hands whose true projection is known; and a made-up MANO."""

import json
import pickle
import sys
import types
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw
from scipy import sparse

from core.hands.joint_mesh import joint_mesh
from core.hands.rasterizer import Camera, Mesh
from synthetic_hands.hand import POSES, joints_of, rotation

PALM = 0.09  # metres
WIDTH, HEIGHT = 200, 160
CAMERA = Camera((260.0, 255.0), (103.0, 78.0))
MANO_PARENTS = [-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 0, 10, 11, 0, 13, 14]
FROM_OPENGL = np.diag([1.0, -1, -1])
# The sets' orders of joints, by name and apart from the code's index maps: InterHand's skeleton.txt, MANO's joints and
# then the five tips. In a set's order, the joints are `joints[ORDER]`.
FINGERS = ("thumb", "index", "middle", "ring", "pinky")
MEDIAPIPE = ["wrist", *(f"{finger}{number}" for finger in FINGERS for number in (1, 2, 3, 4))]
INTERHAND = [*(f"{finger}{number}" for finger in FINGERS for number in (4, 3, 2, 1)), "wrist"]
MANO = [
    "wrist",
    *(f"{finger}{number}" for finger in ("index", "middle", "pinky", "ring", "thumb") for number in (1, 2, 3)),
]
MANO += [f"{finger}4" for finger in FINGERS]
INTERHAND_ORDER = [MEDIAPIPE.index(name) for name in INTERHAND]
MANO_ORDER = [MEDIAPIPE.index(name) for name in MANO]
MANO_TIPS = (744, 320, 443, 554, 671)  # vertices at the tips of thumb, index, ...


class TrueHand(NamedTuple):
    """What a fixture was made of: metres, in the camera's frame (OpenCV)."""

    side: str
    joints: np.ndarray  # (21, 3)
    mesh: Mesh


def true_hand(gesture: str, side: str, place, turn=(0, 0, 0), cell: float = 0.04) -> TrueHand:
    """A drawn hand, its wrist at `place`, turned by roll, pitch and yaw in degrees."""
    joints = joints_of(POSES[gesture]) * ((1 if side == "Right" else -1), 1, 1) * PALM
    joints = joints @ rotation(*turn).T @ FROM_OPENGL + place
    return TrueHand(side, joints, joint_mesh(joints, side, cell=cell))


def silhouette(hands, camera: Camera = CAMERA, size=(WIDTH, HEIGHT)) -> np.ndarray:
    """(H, W) bool: the union of the triangles' projections, each drawn by Pillow eight times larger."""
    large = 8
    picture = Image.new("L", (size[0] * large, size[1] * large))
    pen = ImageDraw.Draw(picture)
    for hand in hands:
        x, y, z = hand.mesh.vertices.T
        flat = np.stack([camera.focal[0] * x / z + camera.center[0], camera.focal[1] * y / z + camera.center[1]], 1)
        for triangle in flat[hand.mesh.faces] * large - 0.5:
            pen.polygon([tuple(corner) for corner in triangle], fill=255)
    pixels = np.asarray(picture).reshape(size[1], large, size[0], large).mean(axis=(1, 3))
    return pixels > 127


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / (a | b).sum())


def write_photo(path: Path, size=(WIDTH, HEIGHT)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (size[1] // 4, size[0] // 4, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path)


def write_json(path: Path, content) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def write_ply(path: Path, mesh: Mesh, *, binary: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = "binary_little_endian" if binary else "ascii"
    header = f"ply\nformat {kind} 1.0\ncomment made up\nelement vertex {len(mesh.vertices)}\n"
    header += "property float x\nproperty float y\nproperty float z\n"
    header += f"element face {len(mesh.faces)}\nproperty list uchar int vertex_indices\nend_header\n"
    if binary:
        rows = np.empty(len(mesh.faces), [("count", "u1"), ("corners", "<i4", 3)])
        rows["count"], rows["corners"] = 3, mesh.faces
        body = mesh.vertices.astype("<f4").tobytes() + rows.tobytes()
    else:
        lines = [" ".join(f"{number:.7g}" for number in row) for row in mesh.vertices]
        body = "\n".join(lines + [f"3 {a} {b} {c}" for a, b, c in mesh.faces.tolist()] + [""]).encode()
    path.write_bytes(header.encode() + body)


# The sets


def write_freihand(root: Path, hands, vertices, backgrounds: int = 1) -> None:
    """`vertices` are MANO's of each hand; FreiHAND's pictures are 224 pixels per side."""
    matrix = [[CAMERA.focal[0], 0, CAMERA.center[0]], [0, CAMERA.focal[1], CAMERA.center[1]], [0, 0, 1]]
    write_json(root / "training_K.json", [matrix] * len(hands))
    write_json(root / "training_xyz.json", [hand.joints.tolist() for hand in hands])
    write_json(root / "training_verts.json", [points.tolist() for points in vertices])
    write_json(root / "training_mano.json", [[[0.0] * 61]] * len(hands))
    for number in range(len(hands) * backgrounds):
        write_photo(root / "training" / "rgb" / f"{number:08}.jpg", (224, 224))


def world_camera() -> tuple[np.ndarray, np.ndarray]:
    """A rotation from the world to the camera and the camera's position in mm."""
    return rotation(20, -35, 50), np.array([300.0, -120.0, 80.0])


def to_world(points: np.ndarray) -> np.ndarray:
    """World mm of camera metres."""
    turn, position = world_camera()
    return points * 1000 @ turn + position


def write_interhand(root: Path, pictures, parameters=None) -> None:
    """`pictures`: a list of lists of hands; `parameters`: MANO's for each, in the world's frame."""
    turn, position = world_camera()
    folder = root / "annotations" / "train"
    images, annotations, joints = [], [], {}
    for number, hands in enumerate(pictures):
        world, valid = np.zeros((42, 3)), np.zeros(42)
        for hand in hands:
            first = 0 if hand.side == "Right" else 21
            world[first : first + 21], valid[first : first + 21] = to_world(hand.joints[INTERHAND_ORDER]), 1
        joints[str(number)] = {"world_coord": world.tolist(), "joint_valid": valid[:, None].tolist(), "hand_type": "x"}
        name = f"Capture0/0001_pose/cam400262/image{number}.jpg"
        write_photo(root / "images" / "train" / name)
        images.append(
            {"id": 10 + number, "file_name": name, "width": WIDTH, "height": HEIGHT, "capture": 0}
            | {"subject": 0, "seq_name": "0001_pose", "camera": "400262", "frame_idx": number}
        )
        kind = "interacting" if len(hands) == 2 else hands[0].side.lower()
        annotations.append(
            {"id": 100 + number, "image_id": 10 + number, "bbox": [1, 1, 9, 9], "joint_valid": valid.tolist()}
            | {"hand_type": kind, "hand_type_valid": 1}
        )
    write_json(folder / "InterHand2.6M_train_data.json", {"images": images, "annotations": annotations})
    camera = {"campos": {"400262": position.tolist()}, "camrot": {"400262": turn.tolist()}}
    camera |= {"focal": {"400262": list(CAMERA.focal)}, "princpt": {"400262": list(CAMERA.center)}}
    write_json(folder / "InterHand2.6M_train_camera.json", {"0": camera})
    write_json(folder / "InterHand2.6M_train_joint_3d.json", {"0": joints})
    fits = {
        str(number): fit for number, fit in enumerate(parameters or [{"right": None, "left": None}] * len(pictures))
    }
    write_json(folder / "InterHand2.6M_train_MANO_NeuralAnnot.json", {"0": fits})


def write_reinterhand(root: Path, hands) -> None:
    turn, position = world_camera()
    capture = root / "m--20210701--1058--0000000--pilot--two-hands"
    camera = {"R": turn.tolist(), "t": (-turn @ position).tolist()}
    camera |= {"focal": list(CAMERA.focal), "princpt": list(CAMERA.center)}
    write_json(capture / "Mugsy_cameras" / "cam_params.json", {"cam401538": camera})
    write_photo(capture / "Mugsy_cameras" / "envmap_per_frame" / "images" / "cam401538" / "000042.png")
    for hand in hands:
        own = np.zeros((24, 3))
        own[[0, *range(2, 18), *range(19, 23)]] = to_world(hand.joints)
        side = hand.side.lower()
        write_json(capture / "orig_fits" / side / "Keypoints" / "keypoint-000042.json", own.tolist())
        mesh = Mesh(to_world(hand.mesh.vertices), hand.mesh.faces)
        write_ply(capture / "mano_fits" / "meshes" / f"42_{side}.ply", mesh, binary=True)


def write_hic(root: Path, hands, camera: Camera) -> None:
    assert camera == Camera((525.0, 525.0), (319.5, 239.5))
    annotation = {"id": 7, "image_id": 3, "hand_type": "interacting", "right_mano_path": None, "left_mano_path": None}
    for hand in hands:
        name = f"01/MANO/{hand.side.lower()}.ply"
        annotation[f"{hand.side.lower()}_mano_path"] = name
        write_ply(root / name, hand.mesh, binary=False)
    write_photo(root / "01" / "rgb" / "00000.png", (640, 480))
    picture = {"id": 3, "file_name": "01/rgb/00000.png", "width": 640, "height": 480}
    write_json(root / "HIC.json", {"images": [picture], "annotations": [annotation]})


def write_coco(root: Path, people, camera: Camera = CAMERA) -> None:
    """`people`: for each person of one picture a dict from "left" and "right" to (hand, MANO's parameters)."""
    annotations, fits = [], {}
    for number, person in enumerate(people):
        annotation = {"id": 500 + number, "image_id": 36, "iscrowd": 0, "num_keypoints": 17, "bbox": [0, 0, 99, 99]}
        fit = {"right": None, "left": None}
        for side in ("left", "right"):
            annotation |= {f"{side}hand_valid": side in person, f"{side}hand_box": [0.0] * 4}
            annotation[f"{side}hand_kpts"] = [0.0] * 63
            if side in person:
                hand, parameters = person[side]
                flat = camera.project(hand.joints)
                low, high = flat.min(axis=0), flat.max(axis=0)
                annotation[f"{side}hand_kpts"] = np.c_[flat, np.full(21, 2)].ravel().tolist()
                annotation[f"{side}hand_box"] = [*low.tolist(), *(high - low).tolist()]
                cam_param = {"focal": list(camera.focal), "princpt": list(camera.center)}
                fit[side] = {"mano_param": parameters, "cam_param": cam_param}
        annotations.append(annotation)
        fits[str(annotation["id"])] = fit
    write_photo(root / "images" / "train2017" / "000000000036.jpg")
    picture = {"id": 36, "file_name": "000000000036.jpg", "width": WIDTH, "height": HEIGHT, "license": 1}
    content = {"info": {"year": 2017}, "licenses": [], "images": [picture], "annotations": annotations}
    write_json(root / "annotations" / "coco_wholebody_train_v1.0.json", content)
    write_json(root / "annotations" / "MSCOCO_train_MANO_NeuralAnnot.json", fits)


def write_ho3d(root: Path, hand: TrueHand, parameters: dict | None = None) -> None:
    joints = hand.joints[MANO_ORDER]
    matrix = [[CAMERA.focal[0], 0, CAMERA.center[0]], [0, CAMERA.focal[1], CAMERA.center[1]], [0, 0, 1]]
    numbers = parameters or {"pose": np.zeros(48), "shape": np.zeros(10), "trans": np.zeros(3)}
    label = {"handJoints3D": joints @ FROM_OPENGL, "camMat": np.array(matrix), "objName": "021_bleach_cleanser"}
    label |= {"handPose": numbers["pose"], "handBeta": numbers["shape"], "handTrans": numbers["trans"]}
    folder = root / "train" / "ABF10"
    (folder / "meta").mkdir(parents=True)
    (folder / "meta" / "0000.pkl").write_bytes(pickle.dumps(label, protocol=2))
    empty = dict.fromkeys(label)
    (folder / "meta" / "0001.pkl").write_bytes(pickle.dumps(empty, protocol=2))
    for name in ("0000", "0001"):
        write_photo(folder / "rgb" / f"{name}.png", (640, 480))


def write_dexycb(root: Path, hand: TrueHand, pose=None, shape=None) -> None:
    sequence = root / "20200709-subject-01" / "20200709_141754"
    folder = sequence / "836212060125"
    folder.mkdir(parents=True)
    side = hand.side.lower()
    (sequence / "meta.yml").write_text(
        f"serials:\n- '836212060125'\nnum_frames: 2\nycb_ids:\n- 1\nmano_sides:\n- {side}\nmano_calib:\n- 20200709-x\n"
    )
    calibration = root / "calibration"
    (calibration / "intrinsics").mkdir(parents=True)
    (fx, fy), (cx, cy) = CAMERA
    (calibration / "intrinsics" / "836212060125_640x480.yml").write_text(
        f"color:\n  fx: {fx}\n  fy: {fy}\n  ppx: {cx}\n  ppy: {cy}\ndepth:\n  fx: 1.0\n"
    )
    (calibration / "mano_20200709-x").mkdir()
    betas = "\n".join(f"- {number}" for number in (np.zeros(10) if shape is None else shape))
    (calibration / "mano_20200709-x" / "mano.yml").write_text(f"betas:\n{betas}\n")
    pose = np.zeros(51) if pose is None else pose
    seen = {"joint_3d": hand.joints[None], "joint_2d": CAMERA.project(hand.joints)[None], "pose_m": pose[None]}
    unseen = {"joint_3d": np.full((1, 21, 3), -1.0), "joint_2d": np.full((1, 21, 2), -1.0), "pose_m": np.zeros((1, 51))}
    for number, arrays in enumerate((seen, unseen)):
        plain = {name: array.astype(np.float32) for name, array in arrays.items()}
        np.savez(folder / f"labels_{number:06}.npz", seg=np.zeros((480, 640), np.uint8), **plain)
        write_photo(folder / f"color_{number:06}.jpg", (640, 480))


# A made-up MANO: the drawn hand's surface, bones and weights under the names of the published files


def write_mano(folder: Path, *, protocol: int = 2) -> dict[str, dict]:
    """MANO_RIGHT.pkl and MANO_LEFT.pkl with chumpy's and SciPy's classes; their arrays by side."""
    folder.mkdir(parents=True, exist_ok=True)
    models = {side: made_up_mano(side) for side in ("Right", "Left")}
    for side, model in models.items():
        content = {**model, "bs_style": "lbs", "bs_type": "lrotmin"}
        content["J_regressor"] = sparse.csc_matrix(model["J_regressor"])
        with fake_chumpy() as chumpy:
            content["shapedirs"] = chumpy(model["shapedirs"])
            (folder / f"MANO_{side.upper()}.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    return models


class fake_chumpy:
    """Inside the block: chumpy's array class, as it would be pickled where chumpy is installed."""

    def __enter__(self):
        module = types.ModuleType("chumpy.ch")

        class Ch:
            def __init__(self, x):
                self.x, self._dirty_vars, self._itr = x, set(), None

        Ch.__module__, Ch.__qualname__ = "chumpy.ch", "Ch"
        module.Ch = Ch
        sys.modules["chumpy"], sys.modules["chumpy.ch"] = types.ModuleType("chumpy"), module
        return Ch

    def __exit__(self, *_):
        del sys.modules["chumpy"], sys.modules["chumpy.ch"]


def made_up_mano(side: str) -> dict:
    rng = np.random.default_rng(1)
    hand = true_hand("palm", "Right", (0, 0, 0), cell=0.115)
    hand = TrueHand(side, hand.joints @ FROM_OPENGL, Mesh(hand.mesh.vertices @ FROM_OPENGL, hand.mesh.faces))
    surface, faces = hand.mesh.vertices, hand.mesh.faces
    assert 600 < len(surface) <= 778 and len(faces) <= 1538
    vertices = np.concatenate([surface, np.repeat(surface[:1], 778 - len(surface), axis=0)])
    order = np.arange(778)
    for tip, joint in zip(MANO_TIPS, (4, 8, 12, 16, 20)):
        nearest = np.linalg.norm(vertices[order] - hand.joints[joint], axis=1).argmin()
        order[[tip, nearest]] = order[[nearest, tip]]
    vertices = vertices[order]
    faces = np.argsort(order)[faces]
    faces = np.concatenate([faces, np.repeat(faces[:1, :1], 1538 - len(faces), axis=0).repeat(3, axis=1)])
    joints = hand.joints[MANO_ORDER][:16]
    ones = np.ones((778, 1))
    regressor = np.c_[joints, np.ones(16)] @ np.linalg.pinv(np.c_[vertices, ones])
    distances = np.linalg.norm(vertices[:, None] - joints[None], axis=-1)
    weights = np.exp(-distances / 0.01)
    shapes = np.concatenate(
        [vertices[..., None] * (0.05, 0, 0)[:1], 1e-3 * rng.normal(size=(778, 3, 9)).cumsum(0) / 30], 2
    )
    model = {
        "v_template": vertices,
        "shapedirs": shapes,
        "posedirs": 1e-4 * rng.normal(size=(778, 3, 135)),
        "J_regressor": regressor,
        "weights": weights / weights.sum(axis=1, keepdims=True),
        "kintree_table": np.array([[2**32 - 1, *MANO_PARENTS[1:]], range(16)]),
        "f": faces.astype(np.uint32),
        "hands_mean": 0.1 * rng.normal(size=45),
        "hands_components": np.linalg.qr(rng.normal(size=(45, 45)))[0],
    }
    if side == "Left":  # mirrored, but for the shape directions: the published fault
        model["v_template"] = vertices * (-1, 1, 1)
        model["f"] = model["f"][:, ::-1].copy()
    return model


def rodrigues(angles: np.ndarray) -> np.ndarray:
    """(3, 3) of an axis angle."""
    angle = np.linalg.norm(angles) + 1e-12
    x, y, z = angles / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def skinned(model: dict, pose: np.ndarray, shape: np.ndarray, place: np.ndarray) -> np.ndarray:
    """Linear blend skinning written out: vertices (778, 3) for the full pose (48,), to which no mean is added."""
    shaped = model["v_template"] + model["shapedirs"] @ shape
    joints = model["J_regressor"] @ shaped
    turns = [rodrigues(angles) for angles in pose.reshape(16, 3)]
    posed = shaped + model["posedirs"] @ np.concatenate([(turn - np.eye(3)).ravel() for turn in turns[1:]])
    world: list[np.ndarray] = []
    for joint, parent in enumerate(MANO_PARENTS):
        local = np.eye(4)
        local[:3, :3] = turns[joint]
        local[:3, 3] = joints[joint] - (joints[parent] if joint else 0)
        world.append(world[parent] @ local if joint else local)
    result = np.zeros_like(posed)
    for joint in range(16):
        turn, shift = world[joint][:3, :3], world[joint][:3, 3]
        result += model["weights"][:, joint, None] * ((posed - joints[joint]) @ turn.T + shift)
    return result + place


def mano_hand(model: dict, side: str, pose, shape, place, turn=None, shift=None) -> TrueHand:
    """The true hand of parameters; `turn` and `shift` lead from MANO's frame to the camera's."""
    vertices = skinned(model, pose, shape, place)
    vertices = vertices @ (np.eye(3) if turn is None else turn).T + (0 if shift is None else shift)
    joints = np.concatenate([model["J_regressor"] @ vertices, vertices[list(MANO_TIPS)]])
    return TrueHand(side, joints[np.argsort(MANO_ORDER)], Mesh(vertices, model["f"].astype(int)))
