"""Try both methods in a browser: Hand1000, AttentionHand and the metrics, on one page on this machine.

Starts with nothing else on the miniature Stable Diffusion of this repository, on a CPU, and offers what `make demo` and
`make demo-attentionhand` have made in results/, where they were run. Your own models, features and folders of pictures
are offered by the options below. A visitor of the page chooses among what is offered and can upload files; no path that
a visitor gives is opened. One job runs at a time, others wait in a queue.

Only this machine can open the page, unless --host or --share lets others in: then anybody who knows the address can
draw with your models and fill --output_dir, up to 2 GB.

Examples:
  pip install -r requirements-app.txt
  python app.py
  python app.py --run output/call --feature call.npy --weights output/attentionhand --folder call_test \\
      --pretrained_model_name_or_path CompVis/stable-diffusion-v1-4
  python app.py --host 0.0.0.0 --port 8080
"""

import argparse
import importlib.util
import os
import shutil
from pathlib import Path

from core.diffusion.model_path import check_model_path
from core.diffusion.options import add_model_options, add_precision_option
from core.metrics.options import add_extractor_options
from core.runs.command_line import argument_parser, command_line, pixels, positive_int, seed_int
from core.runs.errors import UserError
from core.runs.files import check_writable, hold_lock
from synthetic_hands.demo import MINI

# gradio, torch and diffusers are imported inside main: --help and a wrong path answer at once.

OWN_PARTS = ("gradio", "rendered", "temporary")  # of --output_dir, removed when the page starts and ends


def parse_args(argv=None) -> argparse.Namespace:
    parser = argument_parser(__doc__)
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0 lets the whole network in")
    add("--port", type=port, help="port to listen on (default: the first free one from 7860)")
    add("--share", action="store_true", help="also open the page to the internet, through Gradio's servers")
    add("--run", type=Path, nargs="+", default=[], help="run folders of train.py to offer")
    add(
        "--feature",
        type=Path,
        nargs="+",
        default=[],
        help="gesture features (.npy) to offer, beside those in the run folders",
    )
    add("--weights", type=Path, nargs="+", default=[], help="weights of attentionhand.train to offer")
    add("--folder", type=Path, nargs="+", default=[], help="folders of pictures that may be measured")
    add("--results", type=Path, default=Path("results"), help="where the two demonstrations have written theirs")
    add("--output_dir", type=Path, default=Path("results/app"), help="folder for all that the page writes")
    add_model_options(parser, str(MINI / "model"))
    add("--resolution", type=pixels, help="pixels per side that the base model draws (default: what it was made for)")
    add("--seed", type=seed_int, default=0, help="seed that the page begins with")
    add_precision_option(parser)
    add_extractor_options(parser)
    parser.set_defaults(feature_extractor=MINI / "features.pt")
    return parser.parse_args(argv)


def port(text: str) -> int:
    """argparse type: a TCP port."""
    value = positive_int(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"{text} is above 65535")
    return value


@command_line
def main(argv=None) -> None:
    args = parse_args(argv)
    if not importlib.util.find_spec("gradio"):
        raise UserError("the page needs gradio: pip install -r requirements-app.txt")
    check_model_path(args.pretrained_model_name_or_path, args.original_config, args.config)
    check_writable(args.output_dir)
    own_folder = args.output_dir.resolve()
    with hold_lock(
        own_folder / ".app.lock", f"{args.output_dir}: another page is using it; choose another --output_dir"
    ):
        clean(own_folder)
        keep_gradio_here(own_folder)
        if is_miniature(args):
            os.environ.setdefault(
                "OMP_NUM_THREADS", "1"
            )  # more only wait for each other, and the page needs a core too
        from studio.offers import (
            Offers,
            attentionhand_weights,
            gesture_features,
            hand1000_runs,
            picture_folders,
        )

        demo, other_demo = args.results / "demo", args.results / "demo-attentionhand"
        runs = hand1000_runs(args.run, demo)
        offers = Offers(
            base=args.pretrained_model_name_or_path,
            original_config=args.original_config,
            config=args.config,
            runs=runs,
            features=gesture_features(args.feature, runs.values(), demo),
            weights=attentionhand_weights(args.weights, other_demo),
            folders=picture_folders(args.folder, [demo, other_demo]),
            resolution=args.resolution,
            mixed_precision=args.mixed_precision,
            metrics={
                "protocol": args.protocol,
                "feature_extractor": None if args.inception_weights else args.feature_extractor,
                "inception_weights": args.inception_weights,
            },
            own_folder=own_folder,
        )
        from core.runs.processes import start_processes
        from studio.models import base_pipeline, shape_of
        from studio.page import build_page, serve

        start_processes()
        shape_of(base_pipeline(offers), args.resolution)
        page = build_page(offers, defaults_of(args))
        try:
            serve(page, offers, host=args.host, port=args.port, share=args.share)
        finally:
            clean(own_folder)


def is_miniature(args: argparse.Namespace) -> bool:
    return args.pretrained_model_name_or_path == str(MINI / "model")


def defaults_of(args: argparse.Namespace):
    """What the page begins with: the miniature wants other numbers and words than Stable Diffusion."""
    from studio.parts import Defaults

    if is_miniature(args):
        text = "a light hand with a red sleeve in front of a blue wall"
        return Defaults(True, args.seed, 0.7, 20, 3.0, 3.0, text, text)
    prompt, text = "a man in a red shirt in a park", "a woman on a beach waving her hand at the camera"
    return Defaults(False, args.seed, 0.7, 45, 3.0, 9.0, prompt, text)


def keep_gradio_here(own_folder: Path) -> None:
    """Tell Gradio, before it is imported, to write here only and to call nobody."""
    (own_folder / "gradio").mkdir(parents=True, exist_ok=True)
    os.environ["GRADIO_TEMP_DIR"] = str(own_folder / "gradio")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("MPLCONFIGDIR", str(own_folder / "gradio"))


def clean(own_folder: Path) -> None:
    """Remove what an earlier page left."""
    for part in OWN_PARTS:
        shutil.rmtree(own_folder / part, ignore_errors=True)


if __name__ == "__main__":
    main()
