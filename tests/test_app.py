"""The page in the browser: what it draws, what it refuses, how it is served, and driven in Chromium."""

import importlib.util
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from attentionhand_helpers import SIZE, inference_args
from conftest import ROOT, copy_model, error_of, pixels
from PIL import Image
from trainings import finish_run

import app
import image_generation
from attentionhand import inference
from attentionhand.visual_attention import new_stage
from core.hands.detection import Hand
from core.hands.fingers import extended_fingers, fingers_of_gesture
from core.runs.errors import UserError
from core.runs.processes import progress
from hand1000.trained import FEATURE_FILE
from studio import controlled, fine_tuned, measured, posed_hand, uploads
from studio.guard import MOST_REQUEST, refusal_of
from studio.jobs import Stopped, job, part, stop
from studio.offers import Offers, gesture_features, hand1000_runs, offered
from synthetic_hands.hand import POSES

SETTINGS = fine_tuned.Settings(seed=5, num_inference_steps=2, guidance_scale=3.0)
TEXT = "a dark hand"


@pytest.fixture(scope="module")
def stage_folder(attention_pipe, tmp_path_factory) -> Path:
    """Random weights of AttentionHand, which change the pictures. Never write to them."""
    import torch

    torch.manual_seed(0)
    stage = new_stage(attention_pipe.unet, attention_pipe.vae)
    with torch.no_grad():
        for block in [*stage.controlnet_down_blocks, stage.controlnet_mid_block]:
            block.weight.normal_(0, 0.3)
    folder = tmp_path_factory.mktemp("stage") / "run"
    stage.save_pretrained(folder)
    return folder


def offers_of(base: Path, own_folder: Path, **offered_here) -> Offers:
    """What a test offers."""
    own_folder.mkdir(exist_ok=True)
    nothing = {"runs": {}, "features": {}, "weights": {}, "folders": {}}
    metrics = {"protocol": "released", "feature_extractor": None, "inception_weights": None}
    return Offers(
        **{"base": str(base), "original_config": None, "config": None, "resolution": None, "mixed_precision": "no"}
        | {"metrics": metrics, "own_folder": own_folder.resolve()}
        | nothing
        | offered_here
    )


# The page draws what the scripts draw


def test_pictures_are_those_of_image_generation(tiny_model, data_root, tmp_path):
    run = finish_run(copy_model(tiny_model, tmp_path / "run"))
    offers = offers_of(
        tiny_model, tmp_path / "own", runs={"run": run}, features={"palm": data_root / "palm.npy"}, resolution=64
    )
    (drawn,) = fine_tuned.draw_tuned(offers, "run", "palm", TEXT, [0.25], SETTINGS)
    base = fine_tuned.draw_base(offers, TEXT, SETTINGS)
    common = ["--prompt", TEXT, "--seed", "5", "--num_inference_steps", "2", "--image_size", "0", "--resolution", "64"]
    feature = ["--feature_npy_path", str(data_root / "palm.npy"), "--mu", "0.25"]
    image_generation.main([*common, *feature, "--ckpt", str(run), "--img_save_path", str(tmp_path / "tuned")])
    image_generation.main([*common, "--mu", "1", "--ckpt", str(tiny_model), "--img_save_path", str(tmp_path / "base")])
    np.testing.assert_array_equal(np.asarray(drawn).astype(int), pixels(tmp_path / "tuned" / "prompt_000.png"))
    np.testing.assert_array_equal(np.asarray(base).astype(int), pixels(tmp_path / "base" / "prompt_000.png"))
    assert list((tmp_path / "own").iterdir()) == []
    assert fine_tuned.warnings_of(offers, "run", "palm", TEXT) == [
        "this is not the gesture feature that the run was trained with"
    ]


def test_pictures_are_those_of_inference(attention_model, attention_samples, stage_folder, tmp_path):
    offers = offers_of(attention_model, tmp_path / "own", weights={"stage": stage_folder})
    sample = json.loads((attention_samples / "modalities.json").read_text().splitlines()[0])
    scene = uploads.uploaded_mesh(attention_samples / sample["mesh"])
    text = (attention_samples / sample["text"]).read_text().strip()
    settings = fine_tuned.Settings(seed=42, num_inference_steps=3, guidance_scale=9.0)
    drawn = controlled.draw_samples(offers, "stage", scene, text, 2, settings)
    alone = controlled.draw_samples(offers, controlled.BY_TEXT_ALONE, scene, text, 2, settings)
    inference.main(inference_args(stage_folder, attention_samples, attention_model, tmp_path / "out"))
    for number, picture in enumerate(drawn):
        np.testing.assert_allclose(
            np.asarray(picture).astype(int), pixels(tmp_path / "out" / f"result_000_{number}.png"), atol=1
        )
    assert (np.asarray(drawn[0]) != np.asarray(alone[0])).mean() > 0.1


def test_the_sliders_pose_the_gesture():
    for gesture in POSES:
        for side in ("right", "left"):
            scene = posed_hand.scene_of(posed_hand.preset(gesture)._replace(side=side), 128)
            (label,) = scene.hands
            assert label.handedness == side.capitalize()
            assert extended_fingers(label.joints_3d) in fingers_of_gesture(gesture), gesture
            assert 0.01 < (scene.mesh > 127).mean() < 0.4
            places = label.joints_2d.round().astype(int)
            assert (scene.mesh[places[:, 1], places[:, 0]] > 0).all()  # every joint lies on the mesh
            as_found = np.column_stack([label.joints_2d / 128, np.zeros(21)])
            other = {"right": "Left", "left": "Right"}[side]  # as MediaPipe names it
            assert controlled.said_of([Hand(as_found, other, 1.0)], scene) == f"{side} hand: error 0% of its size"
            moved = as_found + [np.ptp(label.joints_2d, axis=0).max() / 128 / 4, 0, 0]
            assert controlled.said_of([Hand(moved, other, 1.0)], scene) == f"{side} hand: error 25% of its size"
    assert controlled.said_of([], scene) == "no hand found"


def test_two_hands_are_mirror_images():
    scene = posed_hand.scene_of(posed_hand.preset("palm")._replace(side="both"), 256)
    right, left = (hand.joints_2d for hand in scene.hands)
    assert right.min() > 0 and right[:, 0].max() < left[:, 0].min() and left.max() < 256
    np.testing.assert_allclose(right, left * (-1, 1) + (256, 0), atol=1e-6)
    found = [Hand(np.column_stack([left / 256, np.zeros(21)]), "Right", 1.0)]
    assert controlled.said_of(found, scene) == "right hand not found, left hand: error 0% of its size"


def test_an_uploaded_joints_file_keeps_its_label(attention_samples, tmp_path):
    own = tmp_path / "own"
    own.mkdir()
    scene = uploads.uploaded_joints(attention_samples / "joints.npz", 2, own)
    with np.load(attention_samples / "joints.npz") as file:
        wanted = file["joints_2d"][2]
    found = scene.hands[0].joints_2d
    np.testing.assert_allclose(  # the same hand, cut out and enlarged
        (found - found.mean(axis=0)) / np.ptp(found), (wanted - wanted.mean(axis=0)) / np.ptp(wanted), atol=0.02
    )
    assert scene.mesh[tuple(found[9].round().astype(int)[::-1])].mean() > 100  # the middle knuckle lies on the mesh
    assert list(own.iterdir()) == []


def test_a_run_brings_its_own_feature(tiny_model, data_root, tmp_path):
    run = finish_run(copy_model(tiny_model, tmp_path / "run"))
    assert gesture_features([], [run], tmp_path) == {}
    shutil.copy(data_root / "palm.npy", run / FEATURE_FILE)
    assert list(gesture_features([], [run], tmp_path / "none").values()) == [run / FEATURE_FILE]


# What visitors send


def png_of_size(width: int, height: int) -> bytes:
    """A few bytes that say they are a picture of so many pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture_bytes(colour: str | None = None, file_format: str = "PNG") -> bytes:
    """A picture of one colour, or a light square on black."""
    array = np.zeros((64, 64, 3), np.uint8)
    array[16:48, 16:48] = 220
    picture = Image.new("RGB", (64, 64), colour) if colour else Image.fromarray(array)
    picture.save(stream := io.BytesIO(), format=file_format)
    return stream.getvalue()


def npz_bytes(**arrays) -> bytes:
    np.savez(stream := io.BytesIO(), **arrays)
    return stream.getvalue()


def npz_of(entry: bytes) -> bytes:
    with zipfile.ZipFile(stream := io.BytesIO(), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("joints_3d.npy", entry)
    return stream.getvalue()


def header_of(shape: tuple[int, ...]) -> bytes:
    np.lib.format.write_array_header_1_0(
        stream := io.BytesIO(), {"descr": "<f8", "fortran_order": False, "shape": shape}
    )
    return stream.getvalue()


BAD_PICTURES = {
    "text.png": (b"not a picture", "not a PNG, JPEG or WebP picture"),
    "empty.png": (b"", "is empty"),
    "bomb.png": (png_of_size(60000, 60000), "more than 25 million pixels are not opened"),
    "large.png": (png_of_size(9000, 9000), "9000 x 9000 pixels; pictures of more than 25 million"),
    "cut.png": (picture_bytes()[:100], "not a readable image"),
    "gif.png": (picture_bytes(file_format="GIF"), "not a PNG, JPEG or WebP picture"),
    "script.svg": (b"<svg/>", "not a file of the kind that is wanted here (.jpg, .jpeg, .png, .webp)"),
    "heavy.png": (bytes(21 * 10**6), "21 MB; at most 20 MB are taken"),
    "black.png": (picture_bytes("black"), "shows no hand; a mesh image is a light hand on black"),
    "white.png": (picture_bytes("white"), "is light up to its edges; a mesh image is a light hand on black"),
}
PLACES = {"joints_2d": np.zeros((1, 21, 2))}
BAD_JOINTS = {
    "pickle.npz": (npz_bytes(joints_3d=np.array([{}]), **PLACES), "Object arrays cannot be loaded"),
    "bomb.npz": (npz_of(bytes(300 * 10**6)), "300 MB when unpacked; at most 100 MB are taken"),
    "liar.npz": (npz_of(header_of((10**11, 21, 3)) + b"x"), "joints_3d.npy is larger than what the file holds"),
    "noise.npz": (b"PK\x03\x04 and no more", "not an .npz file of plain arrays"),
    "shape.npz": (npz_bytes(joints_3d=np.zeros((1, 20, 3)), **PLACES), "joints_3d is (1, 20, 3), not (N, 21, 3)"),
    "nothing.npz": (npz_bytes(joints_3d=np.full((1, 21, 3), np.nan), **PLACES), "no valid hand"),
    "huge.npz": (npz_bytes(joints_3d=np.full((1, 21, 3), 1e30), **PLACES), "joints_3d has numbers above 1e+06"),
}


@pytest.mark.parametrize("name", BAD_PICTURES)
def test_bad_pictures_get_their_message(name, tmp_path):
    content, message = BAD_PICTURES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        uploads.uploaded_mesh(tmp_path / name)
    assert message in str(error.value) and str(tmp_path) not in str(error.value)


@pytest.mark.parametrize("name", BAD_JOINTS)
def test_bad_joints_get_their_message(name, tmp_path):
    content, message = BAD_JOINTS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        uploads.uploaded_joints(tmp_path / name, 0, tmp_path)
    assert message in str(error.value) and str(tmp_path) not in str(error.value)


def test_paths_in_a_joints_file_are_not_opened(attention_samples, tmp_path, monkeypatch):
    with np.load(attention_samples / "joints.npz") as file:
        arrays = dict(file)
    np.savez(tmp_path / "joints.npz", **arrays, rgb=np.array(["/etc/passwd"] * len(arrays["joints_2d"])))
    opened = []
    monkeypatch.setattr(Image, "open", lambda path, *a, _open=Image.open, **k: opened.append(str(path)) or _open(path))
    uploads.uploaded_joints(tmp_path / "joints.npz", 0, tmp_path)
    assert opened and not any("passwd" in path for path in opened)


def test_what_is_not_offered_is_refused(tiny_model, tmp_path):
    offers = offers_of(tiny_model, tmp_path / "own")
    for name in ("/etc", "../run", "", None, ["x"], {}):
        with pytest.raises(UserError, match="is not offered here"):
            offered({"run": tmp_path}, name, "the run")
    with pytest.raises(UserError, match="the folder '/etc' is not offered here"):
        measured.folder_of(offers, "/etc", [], tmp_path / "new")
    with pytest.raises(UserError, match="write a text first"):
        fine_tuned.draw_base(offers, "  ", SETTINGS)
    with pytest.raises(UserError, match="not a file that was uploaded here"):
        uploads.visitors_file("/etc/passwd", tmp_path)
    with pytest.raises(UserError, match="no such run|not a run folder"):
        hand1000_runs([tmp_path / "nowhere"], tmp_path)


@pytest.mark.parametrize(
    ("method", "path", "length", "status"),
    [
        ("GET", "/gradio_api/file=https://example.com/a.png", "", 403),
        ("GET", "/gradio_api/file=http%3A%2F%2F127.0.0.1/a.png", "", 403),
        ("GET", "/gradio_api/proxy=https://example.hf.space/", "", 404),
        ("POST", "/gradio_api/component_server", "10", 404),
        ("POST", "/gradio_api/upload", "", 411),
        ("POST", "/gradio_api/upload", str(MOST_REQUEST + 1), 413),
        ("POST", "/gradio_api/upload", "1000", None),
        ("GET", "/gradio_api/file=/somewhere/results/app/gradio/1/image.png", "", None),
        ("GET", "/", "", None),
    ],
)
def test_the_guard(method, path, length, status, tmp_path):
    headers = [(b"content-length", length.encode())] if length else []
    refusal = refusal_of({"method": method, "path": path, "headers": headers}, tmp_path)
    assert (refusal and refusal[0]) == status


def test_a_job_tells_of_its_progress_and_is_stopped():
    told = []

    def tell(share, what):
        told.append((share, what))
        if len(told) == 4:
            stop("me")

    with pytest.raises(Stopped), job("me", tell), part("Drawing"):
        for _ in progress(range(10), desc="inner", mininterval=0, miniters=1):
            pass
    assert told[0] == (None, "Drawing") and told[1:4] == [(0.1, "Drawing"), (0.2, "Drawing"), (0.3, "Drawing")]
    with job("me", lambda *_: None):  # the next job is not stopped
        list(progress(range(3)))


def test_it_needs_gradio_and_says_how_to_get_it(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert error_of(app.main, ["--output_dir", tmp_path], capsys) == (
        "the page needs gradio: pip install -r requirements-app.txt"
    )
    with pytest.raises(SystemExit):
        app.main(["--port", "70000"])
    assert "70000 is above 65535" in capsys.readouterr().err


# The server, where gradio is installed


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start_page(*arguments) -> tuple[subprocess.Popen, str]:
    """The page in a process of its own, and its address."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "app.py", "--port", str(port), *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.DEVNULL,
    )
    for _ in range(2400):
        assert process.poll() is None, "the page has ended"
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}"
        time.sleep(0.1)
    process.kill()
    raise AssertionError("the page does not answer")


@pytest.fixture(scope="module")
def server(attention_model, stage_folder, hand_folders, extractor, tmp_path_factory):
    """The page on tiny models, with two folders to measure."""
    pytest.importorskip("gradio", reason="needs requirements-app.txt")
    root = tmp_path_factory.mktemp("served")
    np.save(root / "palm.npy", np.random.default_rng(0).normal(0.5, 0.2, 63))
    run = finish_run(copy_model(attention_model, root / "run"))
    process, url = start_page(
        *("--pretrained_model_name_or_path", attention_model, "--results", root / "none", "--output_dir", root / "own"),
        *("--run", run, "--feature", root / "palm.npy", "--weights", stage_folder, "--folder", *hand_folders),
        *("--feature_extractor", extractor),
    )
    yield url, root
    process.terminate()
    process.wait(120)
    assert not (root / "own" / "gradio").exists()  # uploads and pictures go with the page


def client_of(url: str, folder: Path):
    """A visitor whose pictures are downloaded to a folder."""
    return pytest.importorskip("gradio_client").Client(url, verbose=False, download_files=str(folder))


HAND = ("sliders", "palm", 0, 0, 0, 0, 0, "out", 0, 0, 0, "right", None, None, 0)


def test_each_tab(server, stage_folder, hand_folders, tmp_path):
    url, root = server
    client = client_of(url, tmp_path)
    run, feature = (root / "run").as_posix(), (root / "palm.npy").as_posix()
    base, tuned, note = client.predict(TEXT, run, feature, 0.4, 0, 2, 3, api_name="/hand1000")
    assert pixels(Path(base)).shape == pixels(Path(tuned)).shape == (SIZE, SIZE, 3)
    assert "not the gesture feature" in note
    strip, _ = client.predict(TEXT, run, feature, 0, 2, 3, api_name="/mu_sweep")
    assert pixels(Path(strip)).shape[1] == 500
    shown = pixels(Path(client.predict(*HAND, api_name="/mesh")))
    assert shown.shape == (256, 256, 3) and 0.05 < (shown > 127).mean() < 0.5
    drawing = (stage_folder.as_posix(), TEXT, 2, 0, 2, 3, 1, False, True)
    pictures, note = client.predict(*HAND, *drawing, api_name="/attentionhand")
    assert len(pictures) == 2 and note.startswith("Picture 1: ")
    real, fake = (folder.as_posix() for folder in hand_folders)
    table = client.predict(real, [], fake, [], "palm", 100, api_name="/measure")
    assert all(f"| {metric}" in table for metric in ("FID", "KID", "FID-H", "HAND-CONF", "gesture accuracy"))
    assert "5 real pictures, 5 generated ones" in table


def refusals(client, gradio_client, folder: Path) -> dict[str, str]:
    """What the page says to each bad upload."""
    said = {}
    for name, (content, _) in (BAD_PICTURES | BAD_JOINTS).items():
        (folder / name).write_bytes(content)
        file = gradio_client.handle_file(folder / name)
        is_joints = name.endswith(".npz")
        kind = (
            ("a joints file", *HAND[1:12], None, file, 0) if is_joints else ("a mesh image", *HAND[1:12], file, None, 0)
        )
        with pytest.raises(Exception) as error:
            client.predict(*kind, api_name="/mesh")
        said[name] = str(error.value)
    return said


def test_bad_uploads_and_foreign_paths(server, tmp_path):
    url, root = server
    gradio_client = pytest.importorskip("gradio_client")
    said = refusals(client_of(url, tmp_path), gradio_client, tmp_path)
    assert "maximum file size" in said.pop("heavy.png") and "Invalid file type" in said.pop("script.svg")
    for name, text in said.items():
        assert (BAD_PICTURES | BAD_JOINTS)[name][1] in text

    secret = tmp_path / "secret.png"
    secret.write_bytes(picture_bytes())  # a good mesh image, but not uploaded
    for path in (
        str(secret),
        "/etc/passwd",
        f"{url}/config",
        "https://example.com/a.png",
        f"{root}/own/../../{secret}",
    ):
        for file in ({"path": path, "meta": {"_type": "gradio.FileData"}}, {"path": path}, path):
            assert '"path"' not in raw_call(url, "mesh", ["a mesh image", *HAND[1:12], file, None, 0])
    for name, data in {
        "hand1000": [TEXT, "/etc", (root / "palm.npy").as_posix(), 0.4, 0, 2, 3],
        "attentionhand": [*HAND, "/etc", TEXT, 1, 0, 2, 3, 1, False, False],
        "measure": ["/etc", [], "rendered hands: call", [], "no gesture", 100],
    }.items():
        assert "not in the list of choices" in raw_call(url, name, data)
    for path in ("/etc/passwd", str(secret), "README.md", "https://example.com/", f"{root}/own/.app.lock"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(f"{url}/gradio_api/file={path}", timeout=30)
        assert error.value.code in (403, 404)


def raw_call(url: str, name: str, data: list) -> str:
    """What the server answers to a call that no page would make."""
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"data": data}).encode()
    request = urllib.request.Request(f"{url}/gradio_api/call/{name}", body, headers)
    event = json.load(urllib.request.urlopen(request, timeout=60))["event_id"]
    return urllib.request.urlopen(f"{url}/gradio_api/call/{name}/{event}", timeout=60).read().decode()


def test_two_visitors_wait_for_each_other(server, tmp_path):
    url, root = server
    call = (TEXT, (root / "run").as_posix(), (root / "palm.npy").as_posix(), 0.4, 0, 20, 3)
    first = client_of(url, tmp_path).predict(*call, api_name="/hand1000")
    results = {}

    def visit(visitor: int) -> None:
        results[visitor] = client_of(url, tmp_path).predict(*call, api_name="/hand1000")

    visitors = [threading.Thread(target=visit, args=[visitor]) for visitor in range(2)]
    for visitor in visitors:
        visitor.start()
    for visitor in visitors:
        visitor.join(240)
    for visitor in range(2):
        np.testing.assert_array_equal(pixels(Path(results[visitor][1])), pixels(Path(first[1])))


def test_only_this_machine_can_connect(server):
    url, _ = server
    port = int(url.rpartition(":")[2])
    listening = [line.split()[1] for line in Path("/proc/net/tcp").read_text().splitlines() if line.split()[3] == "0A"]
    assert [one for one in listening if one.endswith(f":{port:04X}")] == [f"0100007F:{port:04X}"]


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 400])
def test_every_tab_in_chromium(width, tmp_path):
    """On the miniature, as `make app` starts it; SCREENSHOTS=folder keeps what was seen, CHROMIUM is the browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    pytest.importorskip("gradio", reason="needs requirements-app.txt")
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not chromium:
        pytest.skip("needs chromium")
    shots = Path(os.environ.get("SCREENSHOTS", tmp_path))
    process, url = start_page(
        "--output_dir", tmp_path / "own", "--results", os.environ.get("RESULTS", tmp_path / "none")
    )
    foreign, errors = [], []
    try:
        with playwright.sync_playwright() as api:
            browser = api.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport={"width": width, "height": 900})
            page.set_default_timeout(180_000)
            page.on(
                "request",
                lambda request: request.url.startswith((url, "data:", "blob:")) or foreign.append(request.url),
            )
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.goto(url)

            def click(name: str) -> None:
                page.get_by_role("button", name=name, exact=True).first.click()

            def seen(name: str) -> None:
                page.screenshot(path=shots / f"{name}_{width}.png", full_page=True)
                assert page.evaluate("document.documentElement.scrollWidth") <= width

            click("Draw")
            page.locator(".picture img").first.wait_for()
            if page.get_by_role("button", name="Sweep").is_visible():
                click("Sweep")
                page.locator(".strip img").wait_for()
            seen("hand1000")
            page.get_by_role("tab", name="AttentionHand").click()
            page.locator(".mesh img").wait_for()
            before = page.locator(".mesh img").get_attribute("src")
            page.get_by_label("Index, bent by %").first.fill("100")
            page.keyboard.press("Enter")
            page.wait_for_function("src => document.querySelector('.mesh img').src !== src", arg=before)
            click("Draw")
            page.locator(".samples img").first.wait_for()
            page.get_by_label("MediaPipe's landmarks").check()
            page.get_by_text("Picture 4: ").wait_for()
            seen("attentionhand")
            page.get_by_role("tab", name="Measure").click()
            click("Measure")
            page.locator(".scores table").wait_for()
            seen("measure")
            browser.close()
    finally:
        process.terminate()
        process.wait(120)
    assert foreign == [] and errors == []
