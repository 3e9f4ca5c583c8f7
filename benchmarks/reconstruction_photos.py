"""On real photographs: do pictures by a generator that has seen photos help a network that was trained on drawn hands?

Labels of the photos are MediaPipe's landmarks, whose own error is part of every figure here. The generator learns from
photos of half of the signs and draws the labels of drawn hands; the network is tested on photos of the other signs and,
with --more_photos, on others. Runs attentionhand.reconstruction.reproduce with the miniature Stable Diffusion, whose
UNet's decoder is trained too: the miniature has never seen a photo. A killed run resumes when started again.

Example:
  python -m benchmarks.reconstruction_photos --photos sign-language-digits --output_dir results/reconstruction_photos
"""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.photo_labels import OF_THE_PERSON, landmarks_in_pixels
from benchmarks.reconstruction_mini import RECONSTRUCTION_ARGS, REPRODUCE, TRAIN_ARGS
from core.hands.detection import find_hands
from core.runs.command_line import argument_parser, command_line, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import atomic_folder
from core.runs.photos import list_photos, map_photos
from core.runs.processes import cpu_count, say, worker_pool
from core.runs.steps import run_script
from synthetic_hands import make_dataset
from synthetic_hands.demo import MINI

WRIST, MIDDLE_KNUCKLE = 0, 9
FAR = 100  # distance of the camera in longer sides of the picture: no perspective
DRAW_ARGS = "--guidance_scale 1 --num_inference_steps 10 --batch_size 16"  # no guidance: all photos have the same text
TEXT = "a light hand in front of a white wall"  # of every photo, in words that the miniature knows


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--photos", type=Path, required=True, help="folder with a folder of photos for each sign")
    add("--more_photos", type=Path, help="a further folder of photos to test on")
    add("--output_dir", type=Path, required=True, help="folder for data, models, pictures, tables")
    add("--num", type=positive_int, default=20, help="drawn hands of each of the 18 gestures to train on")
    add("--num_photos", type=positive_int, default=80, help="photos of each sign, at most")
    add(
        "--num_samples", type=positive_int, default=1, help="pictures that a generator draws of each drawn hand's label"
    )
    add("--generator_steps", type=positive_int, default=300, help="training steps of a generator, 8 samples each")
    add("--steps", type=positive_int, default=300, help="training steps of a reconstruction network, 32 pictures each")
    add("--seeds", nargs="+", type=seed_int, default=[0, 1, 2], help="of the reconstruction networks")
    args = parser.parse_args(argv)
    signs = sorted(path for path in args.photos.iterdir() if path.is_dir())
    if len(signs) < 2:
        raise UserError(f"{args.photos}: holds {len(signs)} folders of photos, not two signs at least")

    data = args.output_dir / "data"
    layout = ["--layout", "attentionhand", "--size", "64", "--num", str(args.num)]
    make_dataset.main(["--output_dir", str(data / "drawn"), *layout])
    redraw_meshes(data / "drawn", data / "lab")
    seen, held_out = (
        [photo for sign in part for photo in list_photos(sign)[: args.num_photos]] for part in (signs[::2], signs[1::2])
    )
    label_photos(seen, data / "photos_seen")
    label_photos(held_out, data / "photos_held_out")
    tests = {"photos": data / "photos_held_out"}
    if args.more_photos:
        label_photos(list_photos(args.more_photos), data / "photos_more", name_is_group=True)
        tests["more_photos"] = data / "photos_more"
    arguments = [
        *("--lab", str(data / "lab"), "--wild", str(data / "photos_seen")),
        *(text for name, folder in tests.items() for text in ("--test", f"{name}={folder}")),
        *("--output_dir", str(args.output_dir / "results"), "--pretrained_model_name_or_path", str(MINI / "model")),
        *("--resolution", "64", "--num_samples", str(args.num_samples), "--seeds", *map(str, args.seeds)),
        *("--generators", "base", "without_tas", "--draw_args", DRAW_ARGS),
        *("--train_args", f"{TRAIN_ARGS} --sd_unlocked --max_train_steps {args.generator_steps}"),
        *("--reconstruction_args", f"{RECONSTRUCTION_ARGS} --num_workers 0", "--steps", str(args.steps)),
    ]
    say(f"$ python {REPRODUCE.name} {shlex.join(arguments)}")
    run_script(REPRODUCE, arguments)


def label_photos(photos: list[Path], target: Path, *, name_is_group: bool = False) -> None:
    """An AttentionHand folder of the photos in which MediaPipe finds a hand, its landmarks as labels.

    Args:
        name_is_group: the file's name is its group, instead of its folder's.
    """
    if target.exists():
        return
    found = [hands[0] if hands else None for hands in map_photos(find_hands, photos, desc="Finding hands")]
    kept = [(photo, hand) for photo, hand in zip(photos, found) if hand]
    joints = [landmarks_in_pixels(hand, Image.open(photo).size) for photo, hand in kept]
    sides = [OF_THE_PERSON[hand.handedness] for _, hand in kept]
    groups = [photo.stem if name_is_group else photo.parent.name for photo, _ in kept]
    write_folder(target, [photo for photo, _ in kept], joints, sides, groups, [TEXT] * len(kept))
    say(f"{target}: MediaPipe finds a hand in {len(kept)} of {len(photos)} photos")


def redraw_meshes(source: Path, target: Path) -> None:
    """The drawn hands with mesh images as those of the photos, so that the generator is asked as it was trained."""
    if target.exists():
        return
    lines = [json.loads(line) for line in (source / "modalities.json").read_text(encoding="utf-8").splitlines()]
    with np.load(source / "joints.npz") as labels:
        pixels, joints = labels["joints_2d"].astype(float), labels["joints_3d"] * [1.0, -1, -1]
        sides, groups = labels["handedness"].tolist(), labels["gesture"].tolist()
    scale = np.linalg.norm(np.ptp(pixels, axis=1), axis=1) / np.linalg.norm(np.ptp(joints[..., :2], axis=1), axis=1)
    depth = scale[:, None] * (joints[..., 2] - joints[:, :1, 2])
    points = list(np.concatenate([pixels, depth[..., None]], axis=-1))
    texts = [(source / line["text"]).read_text(encoding="utf-8").strip() for line in lines]
    write_folder(target, [source / line["rgb"] for line in lines], points, sides, groups, texts)


def write_folder(
    target: Path,
    photos: list[Path],
    joints: list[np.ndarray],
    sides: list[str],
    groups: list[str],
    texts: list[str],
) -> None:
    """Photos, mesh images around their joints, texts and labels, in which the palm has length 1.

    Args:
        joints: (21, 3) each in pixels, z away from the camera.
    """
    with atomic_folder(target) as folder:
        for name in ("rgb", "mesh", "text"):
            (folder / name).mkdir()
        meshes = [folder / "mesh" / f"{number:08}.png" for number in range(len(photos))]
        sizes = [Image.open(photo).size for photo in photos]
        with worker_pool(cpu_count(), use_one_thread) as pool:
            list(pool.map(draw_mesh, joints, sides, sizes, meshes, chunksize=4))
        lines = []
        for number, (photo, text) in enumerate(zip(photos, texts)):
            rgb, text_file = f"rgb/{number:08}{photo.suffix}", f"text/{number:08}.txt"
            lines.append(json.dumps({"rgb": rgb, "mesh": f"mesh/{number:08}.png", "text": text_file}) + "\n")
            shutil.copyfile(photo, folder / rgb)
            (folder / text_file).write_text(text + "\n", encoding="utf-8")
        (folder / "modalities.json").write_text("".join(lines), encoding="utf-8")
        np.savez(
            folder / "joints.npz",
            joints_2d=np.array([points[:, :2] for points in joints], np.float32),
            joints_3d=np.array([points / palm_length(points) for points in joints], np.float32),
            handedness=np.array(sides),
            gesture=np.array(groups),
        )


def palm_length(points: np.ndarray) -> float:
    return float(np.linalg.norm(points[MIDDLE_KNUCKLE] - points[WRIST]))


def draw_mesh(points: np.ndarray, side: str, size: tuple[int, int], path: Path) -> None:
    """Write the mesh image around a hand's joints (21, 3) in pixels, seen from far away."""
    from core.hands.joint_mesh import joint_mesh
    from core.hands.rasterizer import Camera, mesh_image

    distance, middle = FAR * max(size), np.array([size[0] / 2, size[1] / 2, 0])
    mesh = joint_mesh(points - middle + [0, 0, distance - points[WRIST, 2]], side)
    camera = Camera((distance, distance), (size[0] / 2, size[1] / 2))
    Image.fromarray(mesh_image([mesh], camera, size)).save(path)


def use_one_thread() -> None:
    """A process a core already."""
    import torch

    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
