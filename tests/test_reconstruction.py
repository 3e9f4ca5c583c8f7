"""Training and evaluating the reconstruction network: learning, resuming to the same bits, metrics, refusals."""

import json

import numpy as np
import pytest
import torch
from conftest import TWO_PROCESSES, error_of, run_script
from PIL import Image
from reconstruction_helpers import make_hands, two_hands, write_set
from safetensors.torch import load_file

from attentionhand.reconstruction import evaluate, train, training
from attentionhand.reconstruction.data import Target, read_hands
from attentionhand.reconstruction.network import HandNetwork, Hands
from core.runs.run import Run


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    return write_set(
        tmp_path_factory.mktemp("data") / "single", {**make_hands(10), "gesture": np.array(["a", "b"] * 5)}
    )


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("data") / "pairs", two_hands(7))


def arguments(data, output, *more) -> list[str]:
    small = ["--backbone", "resnet10", "--image_size", "32", "--train_batch_size", "4", "--num_workers", "0"]
    return [
        "--data",
        *map(str, (data,)),
        "--output_dir",
        str(output),
        *small,
        "--max_train_steps",
        "4",
        *map(str, more),
    ]


@pytest.fixture(scope="module")
def trained(single, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "run"
    train.main(arguments(single, run, "--checkpointing_steps", "2"))
    return run


def scores(run, data, output, *more) -> dict:
    evaluate.main(["--weights", str(run), "--data", str(data), "--json", str(output), "--num_workers", "0", *more])
    return json.loads(output.read_text())


# Learning


def test_it_learns_ten_hands_by_heart(single, tmp_path):
    run = tmp_path / "run"
    train.main(arguments(single, run, "--max_train_steps", "60", "--learning_rate", "2e-3", "--train_batch_size", "8"))
    with open(run / "losses.csv") as file:
        losses = [float(line.split(",")[1]) for line in file.readlines()[1:]]
    assert len(losses) == 60
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])


def test_the_loss_of_a_batch_is_the_mean_of_its_parts():
    generator = torch.Generator().manual_seed(0)
    known = (torch.rand(6, 2, 21, generator=generator) > 0.3).float()
    target = Target(
        torch.zeros(6, 3, 8, 8),
        torch.randn(6, 2, 21, 3, generator=generator),
        known,
        torch.randn(6, 3, generator=generator),
        torch.tensor([1.0, 0, 1, 0, 0, 1]),
        known.amax(dim=2),
    )
    shapes = (6, 2, 21, 3), (6, 3), (6, 2)
    hands = Hands(*(torch.randn(shape, generator=generator) for shape in shapes))
    whole = training.reconstruction_loss(hands, target)
    parts = [
        training.reconstruction_loss(Hands(*(t[i : i + 2] for t in hands)), Target(*(t[i : i + 2] for t in target)))
        for i in (0, 2, 4)
    ]
    assert whole.total.item() == pytest.approx(np.mean([part.total.item() for part in parts]), rel=1e-5)
    unknown = (1 - target.joint_known)[..., None] * 100  # what is not known has no influence
    again = training.reconstruction_loss(hands._replace(joints=hands.joints + unknown), target)
    assert torch.equal(again.joints, whole.joints)


def test_the_networks_outputs():
    hands = HandNetwork("resnet10")(torch.rand(2, 3, 32, 32))
    assert [tuple(tensor.shape) for tensor in hands] == [(2, 2, 21, 3), (2, 3), (2, 2)]
    norms = [module for module in HandNetwork("resnet18", "frozen_batch").modules() if "Norm" in type(module).__name__]
    assert {type(norm).__name__ for norm in norms} == {"FrozenBatchNorm2d"}


# Run folder


def test_a_killed_run_resumes_to_the_same_bits(single, trained, tmp_path, monkeypatch):
    run, whole_loss = tmp_path / "run", training.reconstruction_loss
    calls = []

    def dies_in_step_3(hands, target):
        calls.append(None)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return whole_loss(hands, target)

    monkeypatch.setattr(training, "reconstruction_loss", dies_in_step_3)
    with pytest.raises(SystemExit):
        train.main(arguments(single, run, "--checkpointing_steps", "2"))
    monkeypatch.undo()
    assert not (run / "model.safetensors").exists()
    train.main(arguments(single, run, "--checkpointing_steps", "2", "--resume_from_checkpoint", "latest"))
    for name in ("model.safetensors", "losses.csv"):
        assert (run / name).read_bytes() == (trained / name).read_bytes()


def test_two_processes_train_and_measure_as_one(single, trained, tmp_path):
    script = "-m", "attentionhand.reconstruction.train"
    # 2 processes of 2 pictures make the batch of 4.
    two = run_script(*script, *arguments(single, tmp_path / "run", "--train_batch_size", "2"), launcher=TWO_PROCESSES)
    assert two.returncode == 0, two.stderr
    one, other = (load_file(run / "model.safetensors") for run in (trained, tmp_path / "run"))
    for name, tensor in one.items():
        assert tensor.numpy() == pytest.approx(other[name].numpy(), abs=2e-4), name
    given = ["--weights", trained, "--data", single, "--json", tmp_path / "two.json", "--num_workers", "0"]
    two = run_script("-m", "attentionhand.reconstruction.evaluate", *given, launcher=TWO_PROCESSES)
    assert two.returncode == 0, two.stderr
    assert_alike(json.loads((tmp_path / "two.json").read_text()), scores(trained, single, tmp_path / "one.json"))


def test_a_full_disk_costs_a_checkpoint(single, tmp_path, monkeypatch, capsys):
    def full(path, tensors):
        raise OSError(28, "No space left on device")

    save = training.torch.save
    monkeypatch.setattr(training.torch, "save", full)
    train.main(arguments(single, tmp_path / "run", "--checkpointing_steps", "2"))
    monkeypatch.setattr(training.torch, "save", save)
    assert "disk too full" in capsys.readouterr().out
    assert (tmp_path / "run" / "model.safetensors").is_file()


def test_a_finished_run_is_left_alone_and_others_are_refused(single, trained, capsys):
    before = (trained / "model.safetensors").stat().st_mtime_ns
    train.main(arguments(single, trained))
    assert "already finished" in capsys.readouterr().out
    assert (trained / "model.safetensors").stat().st_mtime_ns == before
    message = error_of(train.main, arguments(single, trained, "--learning_rate", "1e-5"), capsys)
    assert "holds a finished training of other settings (learning_rate was 0.0003, is now 1e-05)" in message


def test_bad_arguments(single, pairs, trained, tmp_path, capsys):
    both = arguments(single, tmp_path / "new", "--data", pairs)
    assert f"{pairs}: labels in mm, but those of {single} are in palm lengths" in error_of(train.main, both, capsys)
    message = error_of(train.main, arguments(single, tmp_path / "new", "--shares", "1", "2"), capsys)
    assert message.startswith("--shares: 2 numbers for 1 --data folder; give one")
    message = error_of(train.main, arguments(single, tmp_path / "new", "--imagenet"), capsys)
    assert "no such weights of resnet10" in message
    assert not (tmp_path / "new").exists()
    message = error_of(evaluate.main, ["--weights", trained, "--data", pairs], capsys)
    assert f"{pairs}: labels in mm, but {trained} was trained on labels in palm lengths" in message
    assert "holds no reconstruction.json" in error_of(evaluate.main, ["--weights", single, "--data", single], capsys)
    message = error_of(evaluate.main, ["--weights", trained, "--data", tmp_path], capsys)
    assert "modalities.json: no such file" in message


def test_unfinished_and_damaged_weights_are_refused(single, trained, tmp_path, capsys):
    Run(tmp_path / "begun" / "reconstruction.json", {}, what="training").begin()
    given = ["--weights", tmp_path / "begun", "--data", single]
    assert "holds an unfinished training" in error_of(evaluate.main, given, capsys)
    settings = json.loads((trained / "reconstruction.json").read_text())["settings"]
    Run(tmp_path / "bad" / "reconstruction.json", {**settings, "unit": "feet"}, what="training").finish()
    (tmp_path / "bad" / "model.safetensors").write_bytes((trained / "model.safetensors").read_bytes())
    given = ["--weights", tmp_path / "bad", "--data", single]
    assert "damaged (its unit is 'feet'" in error_of(evaluate.main, given, capsys)


# Measuring


def assert_alike(one: dict, other: dict) -> None:
    for group, metrics in one["scores"].items():
        for metric, score in metrics.items():
            expected = other["scores"][group][metric]
            assert (None in score) == (None in expected)
            if None not in score:
                assert score == pytest.approx(expected, abs=1e-5), (group, metric)


def test_the_batch_size_does_not_matter(single, trained, tmp_path):
    one = scores(trained, single, tmp_path / "one.json", "--batch_size", "1")
    assert_alike(one, scores(trained, single, tmp_path / "all.json", "--batch_size", "64"))
    assert_alike(one, scores(trained, single, tmp_path / "three.json", "--batch_size", "3"))
    assert list(one["scores"]) == ["all", "a", "b"]
    assert one["unit"] == "palm lengths" and one["scores"]["all"]["MRRPE"] == [None, None, None]
    value, low, high = one["scores"]["all"]["MPJPE"]
    assert low < value < high


def test_two_hands_are_measured_in_millimetres(pairs, tmp_path):
    train.main(arguments(pairs, tmp_path / "run"))
    found = scores(tmp_path / "run", pairs, tmp_path / "pairs.json", "--sheet", str(tmp_path / "sheet.png"))
    assert found["unit"] == "mm"
    assert 10 < found["scores"]["all"]["MRRPE"][0] < 300
    assert set(found["scores"]) == {"all", "one", "two"}
    assert Image.open(tmp_path / "sheet.png").width == 6 * 240


def test_perfect_predictions_have_no_error(pairs):
    hands = read_hands(pairs)
    joints = hands.joints_3d - hands.joints_3d[:, :, :1]
    found = evaluate.values_of(hands, evaluate.Predictions(joints, hands.left_wrist, np.ones((7, 2))))
    for metric in ("MPJPE", "PA-MPJPE", "MRRPE"):
        assert np.abs(found[metric]).max() == pytest.approx(0, abs=1e-3)
    assert found["AUC"].min() == pytest.approx(1) and found["handedness"].mean() == 1


def test_the_interval_draws_whole_labels():
    values = np.array([0.0, 0, 0, 1, 1, 1])
    alone = evaluate.score_of(values, np.arange(6), bootstrap=500, seed=0)
    together = evaluate.score_of(values, np.array([0, 0, 0, 1, 1, 1]), bootstrap=500, seed=0)
    assert (together.low, together.high) == (0, 1)
    assert alone.low > 0 and alone.high < 1
