"""Every label set: a fixture in its format, drawn and compared with its own truth; MANO; what is refused and why."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from conftest import error_of, files_under
from label_fixtures import (
    CAMERA,
    FROM_OPENGL,
    HEIGHT,
    INTERHAND_ORDER,
    MANO_ORDER,
    PALM,
    WIDTH,
    TrueHand,
    fake_chumpy,
    mano_hand,
    overlap,
    rodrigues,
    silhouette,
    true_hand,
    world_camera,
    write_coco,
    write_dexycb,
    write_freihand,
    write_hic,
    write_ho3d,
    write_interhand,
    write_json,
    write_mano,
    write_photo,
    write_ply,
    write_reinterhand,
)

from attentionhand import prepare
from attentionhand.labels import json_stream
from attentionhand.labels.mano import model_arrays
from attentionhand.labels.mesh_files import load_mesh
from core.hands.rasterizer import Camera, Mesh
from core.runs.errors import UserError
from core.runs.photos import load_photo

HIC_CAMERA = Camera((525.0, 525.0), (319.5, 239.5))
TURNS = ((25, -20, 15), (-30, 10, -40))


def run(name: str, root: Path, output: Path, *more) -> None:
    prepare.main(["--labels", name, "--root", str(root), "--output_dir", str(output), "--num_workers", "1", *more])


def drawn(output: Path) -> list[dict]:
    """The samples of a data set, with their arrays and mesh images."""
    lines = [json.loads(line) for line in (output / "modalities.json").read_text().splitlines()]
    arrays = np.load(output / "joints.npz")
    samples = []
    for row, line in enumerate(lines):
        sample = {name: arrays[name][row] for name in arrays.files if arrays[name].ndim}
        samples.append({**sample, "mesh": np.asarray(load_photo(output / line["mesh"])), "line": line})
    return samples


def check(sample: dict, hands: list[TrueHand], drawn_from: str, camera: Camera = CAMERA, joints: bool = True) -> None:
    """The sample against the truth: silhouette, joints within half a pixel, sides, box, which hand is in front."""
    height, width = sample["mesh"].shape[:2]
    mask = sample["mesh"][..., 1] > 70
    assert overlap(mask, silhouette(hands, camera, (width, height))) >= 0.98
    sides = [side for side in sample["handedness"].tolist() if side]
    assert sorted(sides) == sorted(hand.side for hand in hands)
    for hand in hands:
        place = sides.index(hand.side)
        assert sample["drawn_from"][place] == drawn_from
        if joints:
            flat = camera.project(hand.joints)
            assert np.abs(sample["joints_2d"][place] - flat).max() < 0.5
            np.testing.assert_allclose(sample["joints_3d"][place], hand.joints, atol=1e-3)
    left, top, right, bottom = sample["bbox"]
    assert mask[top:bottom, left:right].sum() == mask.sum()
    rows, columns = mask.nonzero()
    assert abs(columns.min() - left) <= 1 and abs(rows.max() + 1 - bottom) <= 1


def two_hands() -> list[TrueHand]:
    """A left hand in front of a part of a right one."""
    back = true_hand("palm", "Right", (-0.02, 0.05, 0.42), TURNS[0])
    return [back, true_hand("call", "Left", (0.04, 0.04, 0.34), TURNS[1])]


@pytest.fixture(scope="module")
def mano(tmp_path_factory):
    """The folder of a made-up MANO and its models by side."""
    folder = tmp_path_factory.mktemp("mano") / "models"
    return folder, write_mano(folder)


def mended(model: dict) -> dict:
    """A left hand's model without the published fault."""
    return {**model, "shapedirs": model["shapedirs"] * np.array([-1, 1, 1])[:, None]}


def parameters(seed: int, place) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    pose = np.concatenate([rng.normal(0, 0.5, 3), rng.normal(0, 0.15, 45)])
    pose[:3] += (np.pi, 0, 0)  # MANO's hand has its fingers up, the camera's y is down
    return pose, rng.normal(0, 0.7, 10), np.array(place, dtype=float)


# Each set without MANO's files


def test_freihand_joints(tmp_path):
    hands = [true_hand(gesture, "Right", (0, 0.03, 0.4), TURNS[0]) for gesture in ("palm", "ok", "fist")]
    write_freihand(tmp_path / "set", hands, [np.zeros((778, 3)) for _ in hands], backgrounds=2)
    run("freihand", tmp_path / "set", tmp_path / "out")
    samples = drawn(tmp_path / "out")
    assert [str(sample["source"]) for sample in samples] == [f"training_{number:08}" for number in range(6)]
    for sample, hand in zip(samples, hands * 2):
        check(sample, [hand], "joints")
        assert sample["mesh"].shape == (224, 224, 3)


def test_interhand_joints(tmp_path, capsys):
    both = two_hands()
    write_interhand(tmp_path / "set", [both, [both[1]]])
    run("interhand", tmp_path / "set", tmp_path / "out")
    first, second = drawn(tmp_path / "out")
    check(first, both, "joints")
    check(second, [both[1]], "joints")
    assert second["handedness"].tolist() == ["Left", ""] and np.isnan(second["joints_2d"][1]).all()
    run("interhand", tmp_path / "set", tmp_path / "both", "--two_hands")
    assert len(drawn(tmp_path / "both")) == 1
    assert "left out: 1 for not two hands" in capsys.readouterr().out


def test_reinterhand_meshes(tmp_path):
    write_reinterhand(tmp_path / "set", two_hands())
    run("reinterhand", tmp_path / "set", tmp_path / "out")
    (sample,) = drawn(tmp_path / "out")
    check(sample, two_hands(), "vertices")


def test_the_nearer_hand_is_drawn_in_front(tmp_path):
    """Where the two hands overlap, the picture shows the left one, which is nearer, as it is alone."""
    both = two_hands()
    for name, hands in (("both", both), ("alone", both[1:])):
        write_reinterhand(tmp_path / name, hands)
        run("reinterhand", tmp_path / name, tmp_path / f"{name}_out")
    together, alone = (drawn(tmp_path / f"{name}_out")[0]["mesh"] for name in ("both", "alone"))
    inner = alone[..., 1] > 200
    shared = inner & silhouette(both[:1])
    assert shared.sum() > 300
    assert (np.abs(together[shared].astype(int) - alone[shared]).max(axis=1) > 2).mean() < 0.02


def test_hic_meshes(tmp_path):
    hands = two_hands()
    write_hic(tmp_path / "set", hands, HIC_CAMERA)
    run("hic", tmp_path / "set", tmp_path / "out")
    (sample,) = drawn(tmp_path / "out")
    check(sample, hands, "vertices", HIC_CAMERA, joints=False)  # HIC has no joints
    assert np.isnan(sample["joints_3d"]).all()
    write_hic(tmp_path / "one", hands[1:], HIC_CAMERA)
    run("hic", tmp_path / "one", tmp_path / "left")
    check(drawn(tmp_path / "left")[0], hands[1:], "vertices", HIC_CAMERA, joints=False)


def test_ho3d_joints(tmp_path, capsys):
    hand = true_hand("stop", "Right", (0, 0.05, 0.45), TURNS[1])
    write_ho3d(tmp_path / "set", hand)
    run("ho3d", tmp_path / "set", tmp_path / "out")
    (sample,) = drawn(tmp_path / "out")
    check(sample, [hand], "joints")
    assert "left out: 1 for no valid hand" in capsys.readouterr().out


def test_dexycb_joints(tmp_path, capsys):
    hand = true_hand("three", "Left", (0, 0.05, 0.45), TURNS[1])
    write_dexycb(tmp_path / "set", hand)
    run("dexycb", tmp_path / "set", tmp_path / "out")
    (sample,) = drawn(tmp_path / "out")
    check(sample, [hand], "joints")
    assert "left out: 1 for no valid hand" in capsys.readouterr().out


# Each set with MANO's files


def test_smplx_is_linear_blend_skinning_of_a_guarded_file(mano, tmp_path):
    pytest.importorskip("smplx")
    from attentionhand.labels.label import Mano
    from attentionhand.labels.mano import mano_joints, mano_vertices

    folder, models = mano
    for side, kind in (("Right", "flat"), ("Left", "mean"), ("Right", "pca")):
        model = dict(models[side])
        if side == "Left":
            model = mended(model)
        pose, shape, place = parameters(5, (0.1, 0, 0.5))
        full = pose.copy()
        if kind == "pca":
            full[3:] = full[3:] @ model["hands_components"]
        if kind != "flat":
            full[3:] += model["hands_mean"]
        truth = mano_hand(model, side, full, shape, place)
        vertices = mano_vertices(folder, side, Mano(pose, shape, place, kind))
        np.testing.assert_allclose(vertices, truth.mesh.vertices, atol=2e-6)
        np.testing.assert_allclose(mano_joints(folder, side, vertices), truth.joints, atol=2e-6)


def test_the_left_hands_published_fault_is_mended(mano):
    folder, models = mano
    np.testing.assert_array_equal(models["Left"]["shapedirs"][:, 0], models["Right"]["shapedirs"][:, 0])
    left, right = model_arrays(folder, "Left")["shapedirs"], model_arrays(folder, "Right")["shapedirs"]
    np.testing.assert_array_equal(left[:, 0], -right[:, 0])
    np.testing.assert_array_equal(left[:, 1:], right[:, 1:])


def right_model(mano) -> dict:
    return mano[1]["Right"]


def test_freihand_vertices(mano, tmp_path):
    hands = [mano_hand(right_model(mano), "Right", *parameters(seed, (0, 0.03, 0.4))) for seed in (1, 2)]
    write_freihand(tmp_path / "set", hands, [hand.mesh.vertices for hand in hands])
    run("freihand", tmp_path / "set", tmp_path / "out", "--mano", str(mano[0]))
    for sample, hand in zip(drawn(tmp_path / "out"), hands):
        check(sample, [hand], "vertices")


def test_interhand_mano(mano, tmp_path):
    """NeuralAnnot's parameters are in the world's frame, metres, with MANO's mean pose added."""
    pytest.importorskip("smplx")
    turn, position = world_camera()
    shift = -turn @ position / 1000
    hands, fits = [], {}
    for side, seed, place in (("Right", 1, (-0.06, 0.04, 0.42)), ("Left", 2, (0.05, 0.03, 0.38))):
        model = dict(mano[1][side])
        if side == "Left":
            model = mended(model)
        pose, shape, _ = parameters(seed, place)
        pose[:3] = rotation_vector(turn.T @ rodrigues(pose[:3]))
        full = pose.copy()
        full[3:] += model["hands_mean"]
        world_place = turn.T @ (np.array(place) - shift)
        hands.append(mano_hand(model, side, full, shape, world_place, turn, shift))
        fits[side.lower()] = {"pose": pose.tolist(), "shape": shape.tolist(), "trans": world_place.tolist()}
    write_interhand(tmp_path / "set", [hands], [fits])
    run("interhand", tmp_path / "set", tmp_path / "out", "--mano", str(mano[0]))
    (sample,) = drawn(tmp_path / "out")
    check(sample, hands, "mano")


def rotation_vector(turn: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(turn).as_rotvec()


def test_coco_draws_all_people_of_a_picture(mano, tmp_path):
    """Two people, each with a camera of his own: every hand lies where its own camera sees it."""
    pytest.importorskip("smplx")
    cameras = (CAMERA, Camera((520.0, 520.0), (90.0, 90.0)))
    people, hands = [], []
    for seed, side, place, camera in (
        (1, "Right", (-0.09, 0.04, 0.40), cameras[0]),
        (2, "Left", (0.05, 0.03, 0.42), cameras[0]),
        (3, "Right", (0.12, 0.07, 1.20), cameras[1]),
    ):
        model = dict(mano[1][side])
        if side == "Left":
            model = mended(model)
        pose, shape, place = parameters(seed, place)
        full = pose.copy()
        full[3:] += model["hands_mean"]
        hand = mano_hand(model, side, full, shape, place)
        numbers = {"pose": pose.tolist(), "shape": shape.tolist(), "trans": place.tolist()}
        people.append(({side.lower(): (hand, numbers)}, camera))
        hands.append((hand, camera))
    merged = [{**people[0][0], **people[1][0]}, people[2][0]]
    write_coco(tmp_path / "set", merged)
    fits = tmp_path / "set" / "annotations" / "MSCOCO_train_MANO_NeuralAnnot.json"
    content = json.loads(fits.read_text())
    content["501"]["right"]["cam_param"] = {"focal": list(cameras[1].focal), "princpt": list(cameras[1].center)}
    write_json(fits, content)
    whole = tmp_path / "set" / "annotations" / "coco_wholebody_train_v1.0.json"
    content = json.loads(whole.read_text())
    flat = cameras[1].project(hands[2][0].joints)
    content["annotations"][1]["righthand_kpts"] = np.c_[flat, np.full(21, 2)].ravel().tolist()
    write_json(whole, content)
    run("coco", tmp_path / "set", tmp_path / "out", "--mano", str(mano[0]), "--min_hand", "10")
    (sample,) = drawn(tmp_path / "out")
    truth = np.zeros((HEIGHT, WIDTH), bool)
    for hand, camera in hands:
        truth |= silhouette([hand], camera)
    assert overlap(sample["mesh"][..., 1] > 70, truth) >= 0.98
    assert sorted(sample["handedness"].tolist()) == ["Left", "Right", "Right"]
    for hand, camera in hands:
        errors = [np.abs(found - camera.project(hand.joints)).max() for found in sample["joints_2d"]]
        assert min(errors) < 0.5


def test_ho3d_and_dexycb_mano(mano, tmp_path):
    """HO-3D's pose is MANO's own in OpenGL's axes, DexYCB's are coefficients of the principal components."""
    pytest.importorskip("smplx")
    model = right_model(mano)
    pose, shape, place = parameters(3, (0.01, -0.04, -0.42))
    pose[:3] -= (np.pi, 0, 0)
    hand = mano_hand(model, "Right", pose, shape, place, FROM_OPENGL)
    write_ho3d(tmp_path / "ho3d", hand, {"pose": pose, "shape": shape, "trans": place})
    run("ho3d", tmp_path / "ho3d", tmp_path / "ho3d_out", "--mano", str(mano[0]))
    check(drawn(tmp_path / "ho3d_out")[0], [hand], "mano")

    pose, shape, place = parameters(4, (0.01, 0.04, 0.42))
    full = np.concatenate([pose[:3], pose[3:] @ model["hands_components"] + model["hands_mean"]])
    hand = mano_hand(model, "Right", full, shape, place)
    write_dexycb(tmp_path / "dexycb", hand, np.concatenate([pose, place]), shape)
    run("dexycb", tmp_path / "dexycb", tmp_path / "dexycb_out", "--mano", str(mano[0]))
    check(drawn(tmp_path / "dexycb_out")[0], [hand], "mano")


# Own files


def write_joints(path: Path, **arrays) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)
    return path


def test_own_joints_with_a_camera(tmp_path):
    hands = two_hands()
    write_photo(tmp_path / "photo.png")
    arrays = {"joints_3d": np.stack([hand.joints for hand in hands])[None], "handedness": [["Right", "Left"]]}
    arrays |= {"focal": CAMERA.focal, "princpt": CAMERA.center, "rgb": ["photo.png"], "axes": "opencv"}
    run("joints", write_joints(tmp_path / "joints.npz", **arrays), tmp_path / "out")
    (sample,) = drawn(tmp_path / "out")
    check(sample, hands, "joints")
    run("joints", tmp_path / "out", tmp_path / "again")  # its own joints.npz, photo and all
    assert np.abs(drawn(tmp_path / "again")[0]["mesh"].astype(int) - sample["mesh"]).mean() < 0.1
    assert len(files_under(tmp_path / "again/rgb")) == 1


def test_own_joints_without_a_camera_lie_where_their_2d_joints_say(tmp_path):
    """Seen by an unknown camera, in OpenGL's axes and palm lengths: the joints fit exactly, the silhouette closely."""
    far = Camera((2600.0, 2600.0), (100.0, 80.0))
    hands = [
        true_hand("peace", "Right", (-0.1, 0.05, 4), TURNS[0]),
        true_hand("ok", "Left", (0.05, 0.05, 4.1), TURNS[1]),
    ]
    joints = np.stack([hand.joints - (0, 0, 4) for hand in hands])[None] @ FROM_OPENGL / PALM
    flat = np.stack([far.project(hand.joints) for hand in hands])[None]
    arrays = {"joints_3d": joints, "joints_2d": flat, "handedness": [["Right", "Left"]], "size": (WIDTH, HEIGHT)}
    run("joints", write_joints(tmp_path / "joints.npz", **arrays), tmp_path / "out")
    (sample,) = drawn(tmp_path / "out")
    assert np.abs(sample["joints_2d"] - flat[0]).max() < 0.5
    assert overlap(sample["mesh"][..., 1] > 70, silhouette(hands, far)) > 0.95


def test_own_joints_of_unknown_place_are_left_out(tmp_path, capsys):
    """Without a camera, and with 2D joints that are missing or all the same."""
    hand = true_hand("palm", "Right", (0, 0.03, 0.4))
    joints, flat = np.stack([hand.joints] * 4), np.stack([CAMERA.project(hand.joints)] * 4)
    flat[1], flat[2] = np.nan, 50
    arrays = {"joints_3d": joints, "joints_2d": flat, "size": (WIDTH, HEIGHT), "axes": "opencv"}
    run("joints", write_joints(tmp_path / "joints.npz", **arrays), tmp_path / "out")
    assert "left out: 2 for joints that are not finite" in capsys.readouterr().out
    assert drawn(tmp_path / "out")[1]["source"] == "00000003"


def test_own_joints_without_anything_fill_the_picture(tmp_path):
    joints = np.stack([true_hand("palm", "Right", (0, 0, 0)).joints @ FROM_OPENGL] * 2)
    np.save(tmp_path / "joints.npy", joints)
    run("joints", tmp_path / "joints.npy", tmp_path / "out", "--image_size", "96")
    sample = drawn(tmp_path / "out")[0]
    left, top, right, bottom = sample["bbox"]
    assert sample["mesh"].shape == (96, 96, 3) and max(right - left, bottom - top) > 60
    assert min(left, top, 96 - right, 96 - bottom) > 3


@pytest.mark.parametrize("suffix", [".ply", ".obj"])
def test_own_meshes(tmp_path, suffix):
    hands = two_hands()
    for name, hand in (("view_right", hands[0]), ("view_left", hands[1]), ("x_left", hands[1])):
        path = tmp_path / "set" / f"{name}{suffix}"
        if suffix == ".ply":
            write_ply(path, hand.mesh, binary=True)
        else:
            path.parent.mkdir(exist_ok=True)
            lines = [f"v {x} {y} {z}" for x, y, z in hand.mesh.vertices]
            path.write_text("\n".join(lines + [f"f {a}//1 {b}//1 {c}//1" for a, b, c in hand.mesh.faces + 1]) + "\n")
    camera = {"focal": CAMERA.focal, "princpt": CAMERA.center, "size": [WIDTH, HEIGHT], "axes": "opencv"}
    write_json(tmp_path / "set" / "cameras.json", camera)
    run("meshes", tmp_path / "set", tmp_path / "out")
    both, left = drawn(tmp_path / "out")
    check(both, hands, "vertices", joints=False)
    check(left, hands[1:], "vertices", joints=False)


def test_an_open_wrist_that_faces_the_camera_is_no_hole(tmp_path):
    """As MANO's is: without its rim's cap the light inside of the hand would be seen, or a hole."""
    hand = true_hand("fist", "Right", (0, 0, 0.4), (0, -100, 0))  # the forearm towards the camera
    camera = {"focal": CAMERA.focal, "princpt": CAMERA.center, "size": [WIDTH, HEIGHT], "axes": "opencv"}
    below = (hand.mesh.vertices - hand.joints[0]) @ (hand.joints[9] - hand.joints[0]) < 0
    faces = hand.mesh.faces[~below[hand.mesh.faces].any(axis=1)]
    for name, triangles in (("whole", hand.mesh.faces), ("open", faces)):
        write_ply(tmp_path / name / "a.ply", Mesh(hand.mesh.vertices, triangles), binary=True)
        write_json(tmp_path / name / "cameras.json", camera)
        run("meshes", tmp_path / name, tmp_path / f"{name}_out")
    whole, opened = (drawn(tmp_path / f"{name}_out")[0]["mesh"].astype(int) for name in ("whole", "open"))
    (x, y), *_ = CAMERA.project(hand.joints).round().astype(int)
    assert np.abs(whole - opened)[y - 5 : y + 5, x - 5 : x + 5].mean() < 10


def test_joints_of_another_frame_are_left_out(tmp_path, capsys):
    """Right bones and a right camera, but not this mesh's."""
    write_reinterhand(tmp_path / "set", two_hands()[:1])
    (keypoints,) = (tmp_path / "set").glob("*/orig_fits/right/Keypoints/*.json")
    write_json(keypoints, (np.array(json.loads(keypoints.read_text())) + (80, 0, 0)).tolist())
    arguments = ["--labels", "reinterhand", "--root", tmp_path / "set", "--output_dir", tmp_path / "out"]
    message = error_of(prepare.main, [*arguments, "--num_workers", "1"], capsys)
    assert "no sample is left: 1 for joints that do not lie in the mesh" in message


def test_a_mesh_without_a_camera_fills_the_picture(tmp_path):
    hand = true_hand("palm", "Right", (0, 0, 0))
    write_ply(tmp_path / "set" / "a.ply", Mesh(hand.mesh.vertices @ FROM_OPENGL * 40, hand.mesh.faces), binary=False)
    run("meshes", tmp_path / "set", tmp_path / "out", "--image_size", "64")
    (sample,) = drawn(tmp_path / "out")
    assert 500 < (sample["mesh"][..., 1] > 70).sum() < 2500


# Wrong formats do not pass


CHANGES = {
    "OpenGL's": lambda joints: joints @ FROM_OPENGL,
    "millimetre": lambda joints: joints * 1000,
    "InterHand2.6M's order": lambda joints: joints[INTERHAND_ORDER],
    "MANO's order": lambda joints: joints[MANO_ORDER],
    "mirrored": lambda joints: joints * (-1, 1, 1),
}


@pytest.mark.parametrize("cause", CHANGES)
def test_wrong_axes_units_and_orders_are_named(tmp_path, capsys, cause):
    hands = [true_hand("palm", "Right", (0.04, 0.03, 0.4), TURNS[0]), true_hand("call", "Right", (0.04, 0.03, 0.4))]
    joints = np.stack([CHANGES[cause](hand.joints) for hand in hands])
    flat = np.stack([CAMERA.project(hand.joints) for hand in hands])
    flat = flat if "order" not in cause else np.stack([CHANGES[cause](one) for one in flat])
    arrays = {"joints_3d": joints, "joints_2d": flat, "size": (WIDTH, HEIGHT), "axes": "opencv"}
    arrays |= {"focal": CAMERA.focal, "princpt": CAMERA.center}
    path = write_joints(tmp_path / "joints.npz", **arrays)
    message = error_of(prepare.main, ["--labels", "joints", "--root", path, "--output_dir", tmp_path / "out"], capsys)
    assert cause in message and "the likely cause" in message
    assert not (tmp_path / "out").exists()


def test_wrong_axes_without_a_camera_are_named(tmp_path, capsys):
    """The case that once drew tiny mirrored hands with exit status 0: OpenCV's joints taken as OpenGL's."""
    hand = true_hand("palm", "Right", (0, 0, 2))
    arrays = {"joints_3d": hand.joints[None], "joints_2d": CAMERA.project(hand.joints)[None], "size": (WIDTH, HEIGHT)}
    path = write_joints(tmp_path / "joints.npz", **arrays)
    arguments = ["--labels", "joints", "--root", path, "--output_dir", tmp_path / "out", "--min_hand", "4"]
    assert "its axes" in error_of(prepare.main, arguments, capsys)
    run("joints", path, tmp_path / "out", "--min_hand", "4", "--axes", "opencv")


def test_2d_joints_of_another_size_or_picture_are_named(tmp_path, capsys):
    hand = true_hand("palm", "Right", (0, 0.03, 0.4), TURNS[0])
    flat = CAMERA.project(hand.joints)
    for places, cause in ((flat / 2, "another size"), (flat[:, ::-1], "exchanged"), (flat + 90, "another picture")):
        arrays = {"joints_3d": hand.joints[None], "joints_2d": places[None], "size": (WIDTH, HEIGHT)}
        arrays |= {"axes": "opencv", "focal": CAMERA.focal, "princpt": CAMERA.center}
        path = write_joints(tmp_path / "joints.npz", **arrays)
        arguments = ["--labels", "joints", "--root", path, "--output_dir", tmp_path / "out"]
        assert cause in error_of(prepare.main, arguments, capsys)


def test_single_bad_hands_are_counted(tmp_path, capsys):
    """NaN in one, a missing one, a blob, a hand far away, one outside the picture: each left out for its reason."""
    good = true_hand("palm", "Right", (0, 0.03, 0.4)).joints
    holed = good.copy()
    holed[3, 0] = np.nan
    blob = np.random.default_rng(0).normal(0, 0.05, (21, 3)) + (0, 0, 0.4)
    rows = [good, holed, np.full((21, 3), np.nan), blob, good + (0, 0, 4), good + (0.5, 0, 0), good]
    arrays = {"joints_3d": np.stack(rows), "size": (WIDTH, HEIGHT), "axes": "opencv"}
    arrays |= {"focal": CAMERA.focal, "princpt": CAMERA.center}
    run("joints", write_joints(tmp_path / "joints.npz", **arrays), tmp_path / "out")
    said = capsys.readouterr().out
    for reason in (
        "joints that are not finite",
        "no valid hand",
        "bones that are",
        "smaller than",
        "outside the picture",
    ):
        assert f"1 for {reason}" in said or f"1 for a hand {reason}" in said, reason
    assert len(drawn(tmp_path / "out")) == 2
    record = json.loads((tmp_path / "out" / "prepare.json").read_text())
    assert record["status"] == "finished" and sum(record["left_out"].values()) == 5


def test_a_camera_of_the_wrong_shape(tmp_path, capsys):
    hand = true_hand("palm", "Right", (0, 0.03, 0.4)).joints[None]
    for camera, words in (
        ({"K": np.eye(4)}, "the camera matrix"),
        ({"focal": [100.0], "princpt": [1.0, 2.0]}, "focal lengths"),
        ({"focal": [-100.0, 100.0], "princpt": [1.0, 2.0]}, "not positive"),
        ({"K": np.full((3, 3), np.nan)}, "not finite"),
    ):
        path = write_joints(tmp_path / "joints.npz", joints_3d=hand, **camera)
        arguments = ["--labels", "joints", "--root", path, "--output_dir", tmp_path / "out"]
        assert words in error_of(prepare.main, arguments, capsys)
    assert not (tmp_path / "out").exists()


def test_arrays_of_wrong_shapes(tmp_path, capsys):
    """Named before anything is written."""
    hand = true_hand("palm", "Right", (0, 0.03, 0.4))

    def message(name: str, root: Path, *more) -> str:
        found = error_of(
            prepare.main, ["--labels", name, "--root", root, "--output_dir", tmp_path / "out", *more], capsys
        )
        assert not (tmp_path / "out").exists()
        return found

    write_freihand(tmp_path / "set", [hand], [np.zeros((778, 3))])
    assert "has its own axes" in message("freihand", tmp_path / "set", "--axes", "opengl")
    write_json(tmp_path / "set" / "training_xyz.json", [hand.joints[:20].tolist()])
    assert "format of freihand (ValueError: training_00000000: 3D joints (20, 3)" in message(
        "freihand", tmp_path / "set"
    )
    write_interhand(tmp_path / "hands", [[hand]], [{"right": {"pose": [0] * 45, "shape": [0] * 10, "trans": [0] * 3}}])
    assert "MANO's pose (45,), not (48,)" in message("interhand", tmp_path / "hands")
    joints = np.stack([hand.joints] * 2)
    for arrays, words in (
        ({"joints_3d": np.full((2, 21, 3), "a")}, "no usable joints_3d"),
        ({"joints_3d": joints, "focal": (100.0, 100.0)}, "has focal, but no princpt"),
        ({"joints_3d": joints, "size": (0, 9)}, "not positive"),
        ({"joints_3d": joints, "source": ["a b", "a/b"]}, "the same name"),
    ):
        assert words in message("joints", write_joints(tmp_path / "joints.npz", **arrays))


def test_bad_roots(tmp_path, capsys, mano):
    write_hic(tmp_path / "hic", two_hands(), HIC_CAMERA)
    write_freihand(tmp_path / "freihand", [true_hand("palm", "Right", (0, 0, 0.4))], [np.zeros((778, 3))])

    def message(name: str, root: Path, *more) -> str:
        arguments = ["--labels", name, "--root", root, "--output_dir", tmp_path / "out", *more]
        return error_of(prepare.main, arguments, capsys)

    assert "try --labels hic" in message("freihand", tmp_path / "hic")
    (tmp_path / "freihand" / "training_xyz.json").unlink()
    missing = message("freihand", tmp_path / "freihand")
    assert "training_xyz.json" in missing and "lmb.informatik.uni-freiburg.de" in missing
    assert "no such folder" in message("ho3d", tmp_path / "nowhere")
    assert "no split 'x'" in message("hic", tmp_path / "hic", "--split", "x")
    assert "holds no meshes" in message("meshes", tmp_path)
    write_coco(tmp_path / "coco", [])
    assert "without them work: freihand" in message("coco", tmp_path / "coco")
    assert "MANO_RIGHT.pkl" in message("coco", tmp_path / "coco", "--mano", tmp_path)
    (tmp_path / "hic" / "HIC.json").write_text('{"images": [{"id": 3}], "annotations": [{"id": 1, "image_id": 9}]}')
    assert "not in the format of hic" in message("hic", tmp_path / "hic")
    (tmp_path / "hic" / "HIC.json").write_text('{"images": [{"id": 3}], "annotations": [{"id": 1')
    assert "damaged" in message("hic", tmp_path / "hic")
    assert not (tmp_path / "out").exists()


class _Evil:
    def __reduce__(self):
        return print, ("evil",)


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_are_read_without_running_them(tmp_path, capsys, protocol):
    models = write_mano(tmp_path / "mano", protocol=protocol)
    read = model_arrays(tmp_path / "mano", "Right")
    for name in ("v_template", "shapedirs", "J_regressor", "f", "hands_mean"):
        np.testing.assert_array_equal(read[name], models["Right"][name])
    for content, words in (
        ({"v_template": _Evil()}, "builtin.*print"),
        ([1, 2], "not named arrays"),
        ({}, "no v_temp"),
    ):
        folder = tmp_path / f"bad{len(words)}"
        folder.mkdir()
        (folder / "MANO_RIGHT.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
        with pytest.raises(UserError, match=words):
            model_arrays(folder, "Right")
    assert "evil" not in capsys.readouterr().out


def test_chosen_parts_of_chumpy_arrays_are_read(tmp_path):
    from attentionhand.labels.pickles import load_arrays

    with fake_chumpy() as chumpy:
        content = {"plain": chumpy(np.arange(6.0)), "number": np.float64(2), "text": "lbs"}
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, protocol=2))
    arrays = load_arrays(tmp_path / "a.pkl")
    np.testing.assert_array_equal(arrays["plain"], np.arange(6.0))
    assert arrays["number"] == 2 and arrays["text"] == "lbs"


# Files


def test_json_is_read_item_by_item(tmp_path, monkeypatch):
    """With chunks of a few characters, whatever lies on their borders."""
    items = [{"a": [1.5, -2e-3], "b": 'x],{"\\u00e9'}, [], 12345678, None, "ü", {"deep": [[1], [2]]}]
    content = {"info": {"year": 2017}, "skipped": [1, 22, 333], "wanted": items, "after": 1}
    (tmp_path / "a.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
    (tmp_path / "list.json").write_text(json.dumps(items))
    for size in (1, 2, 7, 1000):
        monkeypatch.setattr(json_stream, "CHUNK", size)
        assert list(json_stream.stream_list(tmp_path / "a.json", "wanted")) == items
        assert list(json_stream.stream_list(tmp_path / "list.json")) == items
        assert dict(json_stream.stream_object(tmp_path / "a.json")) == content
    with pytest.raises(UserError, match="has no 'other'"):
        list(json_stream.stream_list(tmp_path / "a.json", "other"))
    (tmp_path / "cut.json").write_text(json.dumps(content)[:60])
    with pytest.raises(UserError, match="damaged"):
        list(json_stream.stream_list(tmp_path / "cut.json", "wanted"))


def test_mesh_files(tmp_path):
    mesh = true_hand("fist", "Right", (0, 0, 0.4), cell=0.2).mesh
    for binary in (True, False):
        write_ply(tmp_path / "a.ply", mesh, binary=binary)
        found = load_mesh(tmp_path / "a.ply")
        np.testing.assert_allclose(found.vertices, mesh.vertices, atol=1e-6)
        np.testing.assert_array_equal(found.faces, mesh.faces)
        content = (tmp_path / "a.ply").read_bytes()
        (tmp_path / "cut.ply").write_bytes(content[: len(content) * 2 // 3])
        with pytest.raises(UserError, match="not a readable mesh"):
            load_mesh(tmp_path / "cut.ply")
    (tmp_path / "q.obj").write_text("v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nf 1 2 3 4\nf -4 -3 -2\n")
    assert load_mesh(tmp_path / "q.obj").faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2]]
