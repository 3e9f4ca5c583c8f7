"""The README's first command, with few photos."""

from conftest import files_under, pixels

from synthetic_hands import demo


def test_demo_runs_every_stage_and_can_be_run_again(tmp_path, capsys):
    demo.main(["--output_dir", str(tmp_path), "--num_photos", "2"])
    output = capsys.readouterr().out
    scripts = "captioning/enrich cal_mean_feature train image_generation cal_fid cal_kid hand_confidence"
    for script in (f"{name}.py" for name in scripts.split()):
        assert f"$ python {script} " in output
    assert "The pictures mean nothing" in output and "\nFID: " in output and "\nHAND-CONF: " in output
    made = files_under(tmp_path)
    assert {"data/palm.npy", "run/losses.csv", "run/model_index.json", "generated/grid.png"} <= made
    assert pixels(tmp_path / "generated" / "mu_0.5" / "palm_001.png").shape == (128, 128, 3)

    demo.main(["--output_dir", str(tmp_path), "--num_photos", "2"])
    assert "already finished" in capsys.readouterr().out and files_under(tmp_path) == made
