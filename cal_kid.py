"""KID between two folders of pictures; with --hands KID-H, on hand crops.

The smaller, the closer the generated pictures are to the real ones. Prints what was compared, the mean and the standard
deviation over 100 random subsets of at most 1,000 pictures, and with --bootstrap a 95 % interval, for which each side
needs 10 pictures or hand crops: with fewer, the value is printed and written alone. Protocol "released" takes the
biased estimate, as the released code does, "standard" the unbiased one, which can be negative. The published KID-H was
computed from corrupted pictures and can't be matched.

Examples:
  python cal_kid.py --real_images call_test --fake_images generated/call
  python cal_kid.py --real_images call_test --fake_images generated/call --hands --bootstrap 1000 --json kid-h.json
"""

from typing import Any

from core.metrics.comparison import features_to_compare, write_comparison
from core.metrics.equations import kernel_inception_distance
from core.metrics.intervals import kid_interval
from core.metrics.options import add_comparison_options
from core.runs.command_line import argument_parser, command_line
from core.runs.errors import UserError
from core.runs.processes import is_main_process, say


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
    name, unbiased = "KID-H" if args.hands else "KID", args.protocol == "standard"
    mean, std = kernel_inception_distance(real.features, fake.features, unbiased=unbiased, seed=args.seed)
    say(f"{name} mean: {mean:.6g}, {name} std: {std:.6g}")
    result: dict[str, Any] = {"metric": name, "value": mean, "std": std, "interval_95": None}
    if args.bootstrap:
        try:
            low, high = kid_interval(
                real.features, fake.features, mean, unbiased=unbiased, resamples=args.bootstrap, seed=args.seed
            )
            say(f"95 % interval: {low:.6g} to {high:.6g}")
            result["interval_95"] = low, high
        except UserError as error:
            say(f"No 95 % interval: {error}")
            result["no_interval"] = str(error)
    if args.json:
        write_comparison(args.json, result, real, fake, seed=args.seed, bootstrap=args.bootstrap)


if __name__ == "__main__":
    main()
