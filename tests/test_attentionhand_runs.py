"""AttentionHand's trainings and pictures may be killed, resumed, extended, refused or finished."""


def test_training_and_inference(attention_samples, attention_model, tmp_path, capsys):
    run = tmp_path / "run"
    train.main(
        train_args(
            attention_samples,
            attention_model,
            run,
            "--validation_steps",
            4,
            "--save_single_file",
            tmp_path / "all.ckpt",
        )
    )
    rows = list(csv.DictReader((run / "losses.csv").open()))
    assert [row["step"] for row in rows] == list("0123") and all(float(row["local_loss"]) > 0 for row in rows)
    assert pixels(run / "validation" / "step_000004.png").shape == (4 * SIZE, 3 * SIZE, 3)
    assert "begun already" in error_of(train.main, train_args(attention_samples, attention_model, run), capsys)
    message = error_of(train.main, train_args(attention_samples, attention_model, run, "--seed", 1), capsys)
    assert "other settings (seed was 0, is now 1)" in message

    pictures = tmp_path / "pictures"
    options = ["--pretrained_model_name_or_path", attention_model, "--resolution", SIZE, "--num_inference_steps", 3]
    options += ["--sample_path", attention_samples / "modalities.json", "--num_samples", 2, "--tas", "--tas_steps", 1]
    arguments = [str(one) for one in ("--weights", run, "--output_dir", pictures, *options)]
    inference.main(arguments)
    expected = {f"result_{pair:03d}_{number}.png" for pair in range(6) for number in range(2)}
    assert files_under(pictures) == expected | {"sheet.png", "inference.json"}
    first = pixels(pictures / "result_003_1.png")
    (pictures / "result_003_1.png").unlink()
    inference.main(arguments)
    assert "1 pairs drawn now" in capsys.readouterr().out
    assert (pixels(pictures / "result_003_1.png") == first).all()
    assert "scale was 9.0" in error_of(inference.main, [*arguments, "--guidance_scale", "5"], capsys)
    inference.main([str(one) for one in ("--weights", tmp_path / "all.ckpt", "--output_dir", tmp_path / "b", *options)])
    assert (pixels(tmp_path / "b" / "result_003_1.png") == first).all()


def test_killed_and_on_two_processes(attention_samples, attention_model, tmp_path):
    arguments = ("--checkpointing_steps", 1, "--max_train_steps", 6)
    script = ("-m", "attentionhand.train")
    whole, killed, two = (tmp_path / name for name in ("whole", "killed", "two"))
    done = run_script(*script, *train_args(attention_samples, attention_model, whole, *arguments))
    assert done.returncode == 0, done.stderr
    process = start_script(*script, *train_args(attention_samples, attention_model, killed, *arguments))
    while not list((killed / "checkpoints").glob("*.pt")) and process.poll() is None:
        pass
    process.kill()
    process.wait()
    resumed = train_args(attention_samples, attention_model, killed, *arguments, "--resume_from_checkpoint", "latest")
    done = run_script(*script, *resumed)
    assert done.returncode == 0 and "going on from" in done.stdout, done.stderr
    expected = weights(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(killed).items())
    assert (killed / "losses.csv").read_text() == (whole / "losses.csv").read_text()

    done = run_script(
        "-m",
        "attentionhand.train",
        *train_args(attention_samples, attention_model, two, *arguments, "--train_batch_size", 1),
        launcher=TWO_PROCESSES,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    both, start = (
        weights(two),
        weights_of_new(attention_model),
    )  # Adam blows rounding up where a gradient is nearly zero
    difference = sum((both[name] - expected[name]).abs().sum().item() for name in expected)
    assert difference < 0.02 * sum((expected[name] - start[name]).abs().sum().item() for name in expected)


def test_training_mistakes(attention_samples, attention_model, tiny_model, tmp_path, capsys, fresh_accelerate):
    def message(*more) -> str:
        fresh_accelerate()
        return error_of(train.main, train_args(attention_samples, attention_model, tmp_path / "run", *more), capsys)

    assert "no such file" in message("--resume_path", tmp_path / "none.ckpt")
    assert f"{tiny_model}: has no cross-attention at a quarter of the latents' side" in message(
        "--tas_model", tiny_model
    )
    if not torch.cuda.is_available():
        assert "needs a GPU" in message("--mixed_precision", "fp16")
    assert "not a tracker that accelerate knows" in message("--report_to", "tensorbord")
    assert "name a .ckpt or a .safetensors" in message("--save_single_file", tmp_path / "all.bin")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "config.json").write_text("{}")
    assert "holds config.json and no run of this script" in message("--output_dir", tmp_path / "mine")
    assert "modalities.json" in message("--data_dir", tmp_path)
    assert "is not a multiple of" in message("--resolution", 60)
    assert not (tmp_path / "run" / "config.json").exists()
