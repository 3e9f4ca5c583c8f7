"""Mesh images: where triangles lie in the picture, which one is in front, how bright it is, and the joints' surface."""

import numpy as np
import pytest
from label_fixtures import CAMERA, HEIGHT, WIDTH, TrueHand, overlap, silhouette, true_hand
from scipy import ndimage

from core.hands.joint_mesh import joint_mesh
from core.hands.rasterizer import Camera, Mesh, closed, mesh_image, nearest_triangles, shades
from core.hands.surface import capsules_of, distance, hand_frame, support_points

SQUARE = Mesh(np.array([[-1.0, -1, 0], [1, -1, 0], [1, 1, 0], [-1, 1, 0]]), np.array([[0, 1, 2], [0, 2, 3]]))


@pytest.mark.parametrize("gesture, side, turn", [("palm", "Right", (10, 20, 30)), ("call", "Left", (-40, 0, 160))])
def test_silhouettes_are_an_independent_projections(gesture, side, turn):
    hand = true_hand(gesture, side, (0.01, 0.04, 0.3), turn)
    picture = mesh_image([hand.mesh], CAMERA, (WIDTH, HEIGHT))
    assert overlap(picture[..., 1] > 70, silhouette([hand])) > 0.99


def test_every_pixel_has_one_triangle_and_the_right_depth():
    """Two triangles that share an edge leave no gap; 1 / z is the plane's own at every pixel's middle."""
    vertices = SQUARE.vertices @ np.array([[1, 0, 0.5], [0, 1, -0.3], [0, 0, 1]]) + (0, 0, 3)
    camera = Camera((40.0, 50.0), (16.0, 16.0))
    triangles = vertices[SQUARE.faces]
    corners = np.concatenate([camera.project(triangles), 1 / triangles[..., 2:]], axis=-1)
    front, nearness = nearest_triangles(corners, 32, 32)
    rows, columns = (front >= 0).nonzero()
    assert len(rows) > 500
    ray = np.stack([(columns + 0.5 - 16) / 40, (rows + 0.5 - 16) / 50, np.ones(len(rows))], 1)
    normal = np.cross(vertices[1] - vertices[0], vertices[2] - vertices[0])
    z = (normal @ vertices[0]) / (ray @ normal)
    np.testing.assert_allclose(1 / nearness[rows, columns], z)
    inside = (front >= 0)[rows.min() : rows.max() + 1]
    assert all(np.ptp(row.nonzero()[0]) + 1 == row.sum() for row in inside)  # without holes


def test_the_nearer_hand_is_in_front_whatever_the_order():
    back = true_hand("palm", "Right", (0, 0.03, 0.40), (0, 0, 0))
    front = true_hand("fist", "Left", (0.01, 0.02, 0.32), (0, 0, 0))
    both = mesh_image([back.mesh, front.mesh], CAMERA, (WIDTH, HEIGHT))
    np.testing.assert_array_equal(both, mesh_image([front.mesh, back.mesh], CAMERA, (WIDTH, HEIGHT)))
    alone = mesh_image([front.mesh], CAMERA, (WIDTH, HEIGHT))
    inner = ndimage.binary_erosion(silhouette([front]), iterations=2) & silhouette([back])
    assert inner.sum() > 500
    np.testing.assert_array_equal(both[inner], alone[inner])


def test_hands_that_pass_through_each_other_are_cut_along_the_right_line():
    near, far = SQUARE.vertices + (0, 0, 4), SQUARE.vertices * (1, 1, 0) + (0, 0, 4)
    near[:, 2] -= near[:, 0]  # its right half is nearer than the other square, its left half farther
    camera = Camera((100.0, 100.0), (32.0, 32.0))
    corners = np.concatenate([near[SQUARE.faces], far[SQUARE.faces]])
    front, _ = nearest_triangles(np.concatenate([camera.project(corners), 1 / corners[..., 2:]], -1), 64, 64)
    assert set(front[32, 34:55].tolist()) <= {0, 1} and set(front[32, 10:30].tolist()) <= {2, 3}


def test_shades_are_those_of_the_released_pictures():
    """Facing the camera 247 or 248, 255, 255, as the released mesh images have it; edge-on the ambient light alone."""
    facing, edge = SQUARE.vertices[SQUARE.faces], (SQUARE.vertices[:, [0, 2, 1]])[SQUARE.faces]
    np.testing.assert_array_equal((255 * shades(facing)).round(), np.broadcast_to([248, 255, 255], (2, 3)))
    np.testing.assert_allclose(shades(edge), np.broadcast_to(np.array([0.27, 0.3, 0.3]) ** (1 / 2.2), (2, 3)))
    assert (255 * shades(edge)[0, 1]).round() > 127  # a hand, for attentionhand.data


def test_outside_and_behind_the_camera_nothing_is_drawn():
    hand = true_hand("palm", "Right", (0, 0, 0.4))
    for shift in ((2, 0, 0), (0, 0, -1)):
        moved = Mesh(hand.mesh.vertices + shift, hand.mesh.faces)
        assert not mesh_image([moved], CAMERA, (WIDTH, HEIGHT)).any()
    half = Mesh(hand.mesh.vertices - (0.16, 0, 0), hand.mesh.faces)  # over the left edge
    picture = mesh_image([half], CAMERA, (WIDTH, HEIGHT))
    assert picture[:, 0].any() and not picture[:, 100:].any()


def test_a_wrist_that_faces_the_camera_is_no_hole():
    hand = true_hand("fist", "Right", (0, 0, 0.4), (0, -100, 0))  # the forearm towards the camera
    alone = mesh_image([hand.mesh], CAMERA, (WIDTH, HEIGHT))
    assert closed(hand.mesh) is hand.mesh
    below = (hand.mesh.vertices - hand.joints[0]) @ (hand.joints[9] - hand.joints[0]) < 0
    opened = Mesh(hand.mesh.vertices, hand.mesh.faces[~below[hand.mesh.faces].any(axis=1)])
    filled = closed(opened)
    assert len(filled.vertices) == len(opened.vertices) + 1
    assert closed(filled) is filled
    assert overlap(mesh_image([filled], CAMERA, (WIDTH, HEIGHT)).any(axis=2), alone.any(axis=2)) > 0.9
    assert overlap(alone.any(axis=2), silhouette([hand])) > 0.95


def test_the_surface_is_closed_however_the_hand_is_turned():
    """On a coarse grid, and where a joint is far off: the surface never leaves the grid."""
    for number in range(40):
        turn = np.random.default_rng(number).uniform(-180, 180, 3)
        joints = true_hand("palm", "Right", (0, 0, 0.4), turn, cell=0.3).joints.copy()
        joints[8] += (0.04 * (number % 3), 0, 0)
        _, faces = joint_mesh(joints, ("Right", "Left")[number % 2], cell=0.13)
        edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
        assert len(faces) and (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()


@pytest.mark.parametrize("side", ["Right", "Left"])
def test_the_surface_around_joints_is_the_signed_distances(side):
    """Closed, facing outwards, its vertices within a fiftieth of a palm of the surface, mirrored for a left hand."""
    hand = true_hand("ok", side, (0.1, 0.2, 0.5), (30, 10, -20))
    vertices, faces = joint_mesh(hand.joints, side)
    edges = np.sort(faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] % 2 == 0).all()
    volume = np.linalg.det(vertices[faces] - vertices.mean(axis=0)).sum() / 6
    assert 300e-6 < volume < 700e-6  # cubic metres: 0.3 to 0.7 litres
    deep = np.abs(depth_in(hand, vertices))
    assert deep.max() < 0.02 and deep.mean() < 0.002


def test_a_left_hand_is_the_right_ones_mirror_image():
    right, left = (true_hand("call", side, (0, 0, 0.4)) for side in ("Right", "Left"))
    size, camera = (128, 128), Camera((150.0, 150.0), (64.0, 64.0))
    mirrored = mesh_image([left.mesh], camera, size)[:, ::-1]
    assert overlap(mirrored.any(axis=2), mesh_image([right.mesh], camera, size).any(axis=2)) > 0.98
    assert np.abs(depth_in(right, left.mesh.vertices * (-1, 1, 1))).mean() < 0.002  # also where the outline hides it


def depth_in(hand: TrueHand, vertices: np.ndarray) -> np.ndarray:
    """Signed distances of points from the surface around a hand's joints, palm lengths."""
    import torch

    palm = np.linalg.norm(hand.joints[9] - hand.joints[0])
    own = (hand.joints - hand.joints[0]) / palm
    frame = hand_frame(own) * ((1, 1, 1) if hand.side == "Right" else (1, 1, -1))
    points = torch.tensor(support_points(own, frame), dtype=torch.float32)
    where = torch.tensor((vertices - hand.joints[0]) / palm, dtype=torch.float32)
    arm = points[23] / points[23].norm()
    return np.maximum(distance(where, capsules_of(points)), where @ arm - 0.1).numpy()
