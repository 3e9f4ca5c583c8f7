"""KID between two folders of pictures; with --hands KID-H, on hand crops.

The mean and the standard deviation over 100 random subsets of at most 1,000 pictures. Protocol "released" takes the
biased estimate, as the released code does, "standard" the unbiased one, which can be negative. The published KID-H
comes from corrupted pictures and can't be matched.

Examples:
  python cal_kid.py --real_images call_test --fake_images generated/call
  python cal_kid.py --real_images call_test --fake_images generated/call --hands --bootstrap 1000 --json kid-h.json
"""

from core.metrics.distances import kid, kid_interval
from core.runs.command_line import command_line
from core.runs.processes import is_main_process, say
from hand1000.evaluation import features_for, metric_name, metric_parser, write_result


@command_line
def main(argv=None) -> None:
    args = metric_parser(__doc__).parse_args(argv)
    real, fake = features_for(args)
    if not is_main_process():
        return
    options = {"protocol": args.protocol, "seed": args.seed}
    (mean, std), name = kid(real.features, fake.features, **options), metric_name("KID", args)
    say(f"{name} mean: {mean:.6g}, {name} std: {std:.6g}")
    interval = None
    if args.bootstrap:
        interval = kid_interval(real.features, fake.features, mean, resamples=args.bootstrap, **options)
        say(f"95 % interval: {interval[0]:.6g} to {interval[1]:.6g}")
    write_result(args, real, fake, metric=name, value=mean, std=std, interval_95=interval)


if __name__ == "__main__":
    main()
