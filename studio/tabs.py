"""The page's three tabs: Hand1000, AttentionHand, Measure. Needs gradio."""

import html
from typing import Any

import gradio as gr

from core.hands.fingers import GESTURE_FINGERS
from studio import controlled, fine_tuned, measured
from studio.jobs import job
from studio.offers import Offers
from studio.parts import (
    JOB,
    Defaults,
    drawing_numbers,
    drawing_settings,
    in_page,
    number,
    stops,
    telling,
    upload,
    visitor_of,
)
from studio.posed_hand import POSES, SIDES, THUMBS, Posed, Scene, preset, scene_of
from studio.uploads import MOST_FILES, MOST_ROWS, uploaded_joints, uploaded_mesh, visitors_file

MOST_SAMPLES = 8
SLIDERS, MESH_IMAGE, JOINTS_FILE = "sliders", "a mesh image", "a joints file"
FIRST_GESTURE = "palm"  # all fingers straight
RESAMPLES = 300
PICTURE_TYPES = [".png", ".jpg", ".jpeg", ".webp"]
PROGRESS = gr.Progress()  # as a default it makes Gradio hand each call its own bar
PICTURE = {"interactive": False, "format": "png", "buttons": ["download"]}


def notes(lines: list[str]) -> str:
    """Lines below the pictures, as Markdown that holds no HTML."""
    return "  \n".join(html.escape(line) for line in lines)


# Hand1000


def hand1000_tab(offers: Offers, defaults: Defaults) -> None:
    """Base and fine-tuned pictures side by side, and the sweep over mu."""
    runs, features = list(offers.runs), list(offers.features)
    prompt_text, own = defaults.prompt, None
    if runs:
        prompt_text = fine_tuned.with_phrase(prompt_text, fine_tuned.phrase_of(offers, runs[0]))
        own = fine_tuned.feature_of(offers, runs[0])
    with gr.Row():
        with gr.Column(scale=2):
            prompt = gr.Textbox(prompt_text, label="Prompt", lines=2, max_length=fine_tuned.LONGEST_TEXT)
            with gr.Column(visible=bool(runs), min_width=0):
                run = gr.Dropdown(runs, value=next(iter(runs), None), label="Fine-tuned run")
                feature = gr.Dropdown(features, value=own or next(iter(features), None), label="Gesture feature")
                mu = gr.Slider(
                    0, 1, defaults.mu, step=0.05, label="mu", info="1: the text alone; 0: fused with the gesture"
                )
            if not runs:
                gr.Markdown(
                    "**No fine-tuned run is here: this tab draws with the base model alone.** `make demo` makes one "
                    "(7 minutes on 2 cores). Or pass your own: `--run FOLDER --feature FILE`. Then start the page anew."
                )
            numbers = drawing_numbers(defaults, defaults.tuned_guidance)
            with gr.Row():
                draw = gr.Button("Draw", variant="primary", min_width=80)
                sweep = gr.Button("Sweep", visible=bool(runs), min_width=80)
                end = gr.Button("Stop", variant="stop", min_width=80)
        with gr.Column(scale=3):
            with gr.Row():
                base = gr.Image(label="Base model", height=300, min_width=140, elem_classes="picture", **PICTURE)
                tuned = gr.Image(
                    label="Hand1000", height=300, min_width=140, elem_classes="picture", visible=bool(runs), **PICTURE
                )
            note = gr.Markdown(elem_classes="note")
            strip = gr.Image(
                show_label=False,
                height=170,
                elem_classes="strip",
                visible=bool(runs),
                placeholder="the sweep: the same start noise at five values of mu",
                **PICTURE | {"buttons": []},
            )

    def draw_both(prompt, run, feature, mu, seed, steps, guidance, request: gr.Request, progress=PROGRESS):
        settings = drawing_settings(seed, steps, guidance)
        mu = number(mu, 0, 1, "mu")
        with job(visitor_of(request), telling(progress)):
            picture = fine_tuned.draw_base(offers, prompt, settings)
            if not offers.runs:
                return picture, None, ""
            (other,) = fine_tuned.draw_tuned(offers, run, feature, prompt, [mu], settings)
        return picture, other, notes(fine_tuned.warnings_of(offers, run, feature, prompt))

    def draw_sweep(prompt, run, feature, seed, steps, guidance, request: gr.Request, progress=PROGRESS):
        settings = drawing_settings(seed, steps, guidance)
        with job(visitor_of(request), telling(progress)):
            pictures = fine_tuned.draw_tuned(offers, run, feature, prompt, fine_tuned.MUS, settings)
        strip = fine_tuned.sweep_strip(pictures, fine_tuned.MUS)
        return strip, notes(fine_tuned.warnings_of(offers, run, feature, prompt))

    def choose_run(run, prompt):
        own = fine_tuned.feature_of(offers, run)
        return fine_tuned.with_phrase(prompt, fine_tuned.phrase_of(offers, run)), own or next(
            iter(offers.features), None
        )

    drawing = draw.click(
        in_page(draw_both), [prompt, run, feature, mu, *numbers], [base, tuned, note], api_name="hand1000", **JOB
    )
    sweeping = sweep.click(
        in_page(draw_sweep), [prompt, run, feature, *numbers], [strip, note], api_name="mu_sweep", **JOB
    )
    run.input(in_page(choose_run), [run, prompt], [prompt, feature], api_visibility="private", show_progress="hidden")
    stops(end, [drawing, sweeping])


# AttentionHand


def attentionhand_tab(page: gr.Blocks, offers: Offers, defaults: Defaults) -> None:
    """A hand that is posed or uploaded, and the pictures that follow it."""
    first, weights_names = preset(FIRST_GESTURE), [*offers.weights, controlled.BY_TEXT_ALONE]
    with gr.Row():
        with gr.Column(scale=1):
            source = gr.Radio([SLIDERS, MESH_IMAGE, JOINTS_FILE], value=SLIDERS, label="The hand comes from")
            mesh = gr.Image(label="Mesh image", height=240, elem_classes="mesh", **PICTURE)
            with gr.Column(min_width=0) as with_sliders:
                with gr.Row():
                    gesture = gr.Dropdown(list(POSES), value=first.gesture, label="Gesture", min_width=120)
                    side = gr.Dropdown(list(SIDES), value=first.side, label="Hand", min_width=120)
                bend = []
                for pair in (("Index", "Middle"), ("Ring", "Little")):
                    with gr.Row():
                        bend += [gr.Slider(0, 100, 0, step=1, label=f"{one}, bent by %", min_width=130) for one in pair]
                with gr.Row():
                    spread = gr.Slider(-100, 100, first.spread, step=5, label="Spread", min_width=130)
                    thumb = gr.Dropdown(list(THUMBS), value=first.thumb, label="Thumb", min_width=130)
                with gr.Accordion("Turn the hand", open=False):
                    turn = [
                        gr.Slider(-180, 180, value, step=5, label=label)
                        for label, value in (
                            ("In the picture, degrees", first.roll),
                            ("Fingertips to the camera, degrees", first.pitch),
                            ("About the forearm, degrees (180: the back)", first.yaw),
                        )
                    ]
            with gr.Column(min_width=0, visible=False) as with_image:
                mesh_file = upload(label="A light hand on black (PNG, JPEG, WebP)", file_types=PICTURE_TYPES)
            with gr.Column(min_width=0, visible=False) as with_joints:
                joints_file = upload(label="joints.npz with joints_3d (N, 21, 3)", file_types=[".npz"])
                row = gr.Number(0, label="Row of the file", precision=0, minimum=0, maximum=MOST_ROWS)
        with gr.Column(scale=1):
            text = gr.Textbox(defaults.text, label="Text", lines=2, max_length=fine_tuned.LONGEST_TEXT)
            weights = gr.Dropdown(weights_names, value=weights_names[0], label="Weights")
            if not offers.weights:
                gr.Markdown(
                    "**No weights of AttentionHand are here: pictures follow the text alone, not the mesh.** `make "
                    "demo-attentionhand` makes some (20 minutes on 2 cores). Or pass your own: `--weights FOLDER`. "
                    "Then start the page anew."
                )
            count = gr.Slider(1, MOST_SAMPLES, 4, step=1, label="Samples")
            numbers = drawing_numbers(defaults, defaults.controlled_guidance)
            with gr.Accordion("Control", open=False):
                strength = gr.Slider(0, 2, 1, step=0.1, label="Strength of the mesh's control")
                tas = gr.Checkbox(False, label="Text attention stage before each step (slower)")
            with gr.Row():
                draw = gr.Button("Draw", variant="primary", min_width=80)
                end = gr.Button("Stop", variant="stop", min_width=80)
            gallery = gr.Gallery(
                label="Pictures",
                columns=2,
                object_fit="contain",
                height="auto",
                format="png",
                elem_classes="samples",
                buttons=["download", "fullscreen"],
            )
            landmarks = gr.Checkbox(
                False,
                label="MediaPipe's landmarks over the pictures",
                info="yellow: what it finds; blue: where the label has the joints",
            )
            note = gr.Markdown(elem_classes="note")
    drawn = gr.State(None, time_to_live=3600)

    hand = [source, gesture, *bend, spread, thumb, *turn, side, mesh_file, joints_file, row]

    def scene(source, gesture, index, middle, ring, little, spread, thumb, roll, pitch, yaw, side, image, joints, row):
        if source == MESH_IMAGE:
            return uploaded_mesh(visitors_file(image, offers.own_folder)) if image else None
        if source == JOINTS_FILE:
            row = int(number(row, 0, MOST_ROWS, "the row"))
            return uploaded_joints(visitors_file(joints, offers.own_folder), row, offers.own_folder) if joints else None
        bends = tuple(number(one, 0, 100, "how far a finger is bent, in %,") for one in (index, middle, ring, little))
        turns = [number(one, -180, 180, "a turn, in degrees,") for one in (roll, pitch, yaw)]
        spread = number(spread, -100, 100, "the spread")
        return scene_of(Posed(gesture, bends, spread, thumb, *turns, side))  # type: ignore[arg-type]

    def draw_mesh(*values):
        shown = scene(*values)
        return shown.mesh if shown else None

    def draw_pictures(
        source, gesture, index, middle, ring, little, spread, thumb, roll, pitch, yaw, side, image, joints, row,
        weights, text, count, seed, steps, guidance, strength, tas, landmarks,
        request: gr.Request, progress=PROGRESS,
    ):  # fmt: skip
        settings = drawing_settings(seed, steps, guidance)
        count = int(number(count, 1, MOST_SAMPLES, "the number of samples"))
        strength = number(strength, 0, 2, "the strength")
        shown = scene(
            source, gesture, index, middle, ring, little, spread, thumb, roll, pitch, yaw, side, image, joints, row
        )  # fmt: skip
        if shown is None:
            raise gr.Error("upload the file first", title="No hand yet", print_exception=False)
        with job(visitor_of(request), telling(progress)):
            pictures = controlled.draw_samples(
                offers, weights, shown, text, count, settings, strength=strength, with_tas=bool(tas)
            )
            return (*with_notes(pictures, shown, landmarks), (pictures, shown))

    def with_notes(pictures: list[Any], shown: Scene, landmarks: bool) -> tuple[list[Any], str]:
        if not landmarks:
            return pictures, ""
        over = [controlled.with_landmarks(picture, shown) for picture in pictures]
        lines = [f"Picture {place}: {said}." for place, (_, said) in enumerate(over, start=1)]
        return [picture for picture, _ in over], notes(lines)

    def show_landmarks(landmarks, drawn, request: gr.Request, progress=PROGRESS):
        if not drawn:
            return gr.skip(), gr.skip()
        with job(visitor_of(request), telling(progress)):
            pictures, shown = drawn
            return with_notes(pictures, shown, landmarks)

    def choose_gesture(gesture):
        chosen = preset(gesture)
        return (*chosen.bend, chosen.spread, chosen.thumb, chosen.roll, chosen.pitch, chosen.yaw)

    def choose_source(source):
        return [gr.update(visible=source == one) for one in (SLIDERS, MESH_IMAGE, JOINTS_FILE)]

    source.input(
        choose_source, source, [with_sliders, with_image, with_joints], api_visibility="private", show_progress="hidden"
    )
    gesture.input(
        in_page(choose_gesture),
        gesture,
        [*bend, spread, thumb, *turn],
        api_visibility="private",
        show_progress="hidden",
    )
    gr.on(
        [page.load, *(field.change for field in hand)],
        in_page(draw_mesh),
        hand,
        mesh,
        api_name="mesh",
        show_progress="hidden",
        trigger_mode="always_last",
        concurrency_id="mesh",
        concurrency_limit=1,
    )
    drawing = draw.click(
        in_page(draw_pictures),
        [*hand, weights, text, count, *numbers, strength, tas, landmarks],
        [gallery, note, drawn],
        api_name="attentionhand",
        **JOB,
    )
    showing = landmarks.input(
        in_page(show_landmarks), [landmarks, drawn], [gallery, note], api_visibility="private", **JOB
    )
    stops(end, [drawing, showing])


# Measure


def measure_tab(offers: Offers, defaults: Defaults) -> None:
    """Two sets of pictures, and every metric of them."""
    names = measured.choices(offers)
    kind = {"file_count": "multiple", "file_types": PICTURE_TYPES, "height": 140}
    gr.Markdown(
        "How far are generated pictures from real ones? FID and KID compare two sets, FID-H and KID-H the hands in "
        "them; HAND-CONF looks at the generated ones alone."
    )
    with gr.Row():
        with gr.Column():
            real = gr.Dropdown(names, value=names[0], label="Real pictures")
            real_files = upload(label=f"Your real pictures, up to {MOST_FILES}", visible=False, **kind)
        with gr.Column():
            fake = gr.Dropdown(names, value=names[1], label="Generated pictures")
            fake_files = upload(label=f"Your generated pictures, up to {MOST_FILES}", visible=False, **kind)
    with gr.Accordion("Gesture accuracy and intervals", open=False):
        gesture = gr.Dropdown(
            [measured.NO_GESTURE, *GESTURE_FINGERS], value=measured.NO_GESTURE, label="Gesture that they should show"
        )
        resamples = gr.Slider(100, 1000, RESAMPLES, step=100, label="Resamples of the 95 % intervals")
    with gr.Row():
        start = gr.Button("Measure", variant="primary", min_width=80)
        end = gr.Button("Stop", variant="stop", min_width=80)
    table = gr.Markdown(elem_classes="scores", min_height=120, container=True)

    def measure(real, real_files, fake, fake_files, gesture, resamples, request: gr.Request, progress=PROGRESS):
        resamples = int(number(resamples, 100, 1000, "the number of resamples"))
        photos, drawn = (
            (name, [visitors_file(file, offers.own_folder) for file in files or []])
            for name, files in ((real, real_files), (fake, fake_files))
        )
        with job(visitor_of(request), telling(progress)):
            return measured.measure(offers, photos, drawn, gesture, resamples=resamples, seed=defaults.seed)

    def choose(name):
        return gr.update(visible=name == measured.UPLOADED)

    for chosen, files in ((real, real_files), (fake, fake_files)):
        chosen.input(choose, chosen, files, api_visibility="private", show_progress="hidden")
    measuring = start.click(
        in_page(measure),
        [real, real_files, fake, fake_files, gesture, resamples],
        table,
        api_name="measure",
        **JOB,
    )
    stops(end, [measuring])
