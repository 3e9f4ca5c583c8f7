"""FID between two folders of pictures; with --hands FID-H, on hand crops.

The smaller, the closer the generated pictures are to the real ones. FID depends on the number of pictures and on the
protocol: compare only figures with the same of both.

Examples:
  python cal_fid.py --real_images call_test --fake_images generated/call
  python cal_fid.py --real_images call_test --fake_images generated/call --hands --bootstrap 1000 --json fid-h.json
"""

from core.metrics.distances import fid, fid_interval
from core.runs.command_line import command_line
from core.runs.processes import is_main_process, say
from hand1000.evaluation import features_for, metric_name, metric_parser, write_result

UNBIASED_FROM = 2048  # pictures


@command_line
def main(argv=None) -> None:
    args = metric_parser(__doc__).parse_args(argv)
    real, fake = features_for(args)
    if not is_main_process():
        return
    fewest = min(len(real.features), len(fake.features))
    if fewest < UNBIASED_FROM:
        say(f"Warning: FID is biased upwards with fewer than {UNBIASED_FROM} pictures (here {fewest})")
    value, name = fid(real.features, fake.features), metric_name("FID", args)
    say(f"{name}: {value:.6g}")
    interval = None
    if args.bootstrap:
        interval = fid_interval(real.features, fake.features, resamples=args.bootstrap, seed=args.seed)
        say(f"95 % interval: {interval[0]:.6g} to {interval[1]:.6g}")
    write_result(args, real, fake, metric=name, value=value, interval_95=interval)


if __name__ == "__main__":
    main()
