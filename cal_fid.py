"""FID between two folders of pictures; with --hands FID-H, on hand crops.

The smaller, the closer the generated pictures are to the real ones. FID depends on the number of pictures and on the
protocol: compare only figures with the same of both. Prints what was compared, the value, and with --bootstrap its
95 % interval, for which each side needs 10 pictures or hand crops: with fewer, the value is printed and written alone.

Examples:
  python cal_fid.py --real_images call_test --fake_images generated/call
  python cal_fid.py --real_images call_test --fake_images generated/call --hands --bootstrap 1000 --json fid-h.json
"""

from typing import Any

from core.metrics.comparison import features_to_compare, write_comparison
from core.metrics.equations import frechet_distance, gaussian
from core.metrics.intervals import fid_interval
from core.metrics.options import add_comparison_options
from core.runs.command_line import argument_parser, command_line
from core.runs.errors import UserError
from core.runs.processes import is_main_process, say

UNBIASED_FROM = 2048  # pictures


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add_comparison_options(parser)
    args = parser.parse_args(argv)
    real, fake = features_to_compare(
        args.real_images,
        args.fake_images,
        protocol=args.protocol,
        hands=args.hands,
        hand_crop=args.hand_crop,
        feature_extractor=args.feature_extractor,
        inception_weights=args.inception_weights,
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        save_features=args.save_features,
        json=args.json,
    )
    if not is_main_process():
        return
    fewest = min(len(real.features), len(fake.features))
    if fewest < UNBIASED_FROM:
        say(f"Warning: FID is biased upwards with fewer than {UNBIASED_FROM} pictures (here {fewest})")
    name = "FID-H" if args.hands else "FID"
    value = frechet_distance(gaussian(real.features), gaussian(fake.features))
    say(f"{name}: {value:.6g}")
    result: dict[str, Any] = {"metric": name, "value": value, "interval_95": None}
    if args.bootstrap:
        try:
            low, high = fid_interval(real.features, fake.features, value, resamples=args.bootstrap, seed=args.seed)
            say(f"95 % interval: {low:.6g} to {high:.6g}")
            result["interval_95"] = low, high
        except UserError as error:
            say(f"No 95 % interval: {error}")
            result["no_interval"] = str(error)
    if args.json:
        write_comparison(args.json, result, real, fake, seed=args.seed, bootstrap=args.bootstrap)


if __name__ == "__main__":
    main()
