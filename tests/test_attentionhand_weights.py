"""AttentionHand's weights in and out: run folders and the released single file."""

import pytest
import torch
from attentionhand_helpers import train_args, trained_stage
from conftest import error_of, files_under
from diffusers import UNet2DConditionModel

from attentionhand import inference, train
from attentionhand.weights import load_decoder, load_stage, save_single_file
from core.diffusion.stable_diffusion import load_stable_diffusion
from core.runs.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def test_released_file_round_trip(attention_pipe, tmp_path):
    stage = trained_stage(attention_pipe)
    for name in ("attentionhand.ckpt", "attentionhand.safetensors"):
        save_single_file(attention_pipe, stage, tmp_path / name)
        again = load_stage(tmp_path / name, attention_pipe)
        assert all(torch.equal(tensor, again.state_dict()[key]) for key, tensor in stage.state_dict().items())
    names = torch.load(tmp_path / "attentionhand.ckpt", weights_only=True)["state_dict"]
    for key in ("VAS.zero_convs.0.0.weight", "VAS.middle_block_out.0.bias", "VAS.input_hint_block.14.weight"):
        assert key in names
    parts = {name.split(".")[0] for name in names}
    assert parts == {"VAS", "model", "first_stage_model", "cond_stage_model"}

    only_base = {key: value for key, value in names.items() if not key.startswith("VAS")}
    torch.save({"state_dict": only_base}, tmp_path / "sd.ckpt")
    with pytest.raises(UserError, match="holds no tensors of a visual attention stage"):
        load_stage(tmp_path / "sd.ckpt", attention_pipe)
    names["VAS.input_hint_block.0.weight"] = torch.zeros(16, 4, 3, 3)
    torch.save(names, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match="another size, the first is controlnet_cond_embedding.conv_in.weight"):
        load_stage(tmp_path / "other.ckpt", attention_pipe)


def test_unlocked_middle_only_and_one_view(attention_samples, attention_model, tmp_path, capsys):
    """A trained UNet comes back with the weights, from the folder and from the file."""
    run, one_file = tmp_path / "run", tmp_path / "all.ckpt"
    more = ["--sd_unlocked", "--only_mid_control", "--local_view", "none", "--gradient_checkpointing"]
    more += ["--max_train_steps", 2, "--save_single_file", one_file, "--report_to", "tensorboard"]
    train.main(train_args(attention_samples, attention_model, run, *more))
    assert any("tfevents" in name for name in files_under(run / "logs"))
    trained = UNet2DConditionModel.from_pretrained(run / "unet").state_dict()
    base = UNet2DConditionModel.from_pretrained(attention_model / "unet").state_dict()
    changed = {name.split(".")[0] for name in base if not torch.equal(base[name], trained[name])}
    assert changed == {"up_blocks", "conv_norm_out", "conv_out"}
    for path in (run, one_file):
        again = load_stable_diffusion(str(attention_model))
        load_decoder(path, again)
        assert all(torch.equal(tensor, trained[name]) for name, tensor in again.unet.state_dict().items())
    checkpoint = run / "checkpoints" / "checkpoint-2"
    again = load_stable_diffusion(str(attention_model))
    load_decoder(checkpoint, again)
    assert all(torch.equal(tensor, trained[name]) for name, tensor in again.unet.state_dict().items())
    options = ["--pretrained_model_name_or_path", attention_model, "--weights", run, "--output_dir", tmp_path / "x"]
    assert "pass that flag" in error_of(inference.main, options, capsys)
    finer = tmp_path / "finer"
    locked = ["--resume_path", one_file, "--max_train_steps", 1, "--only_mid_control"]
    train.main(train_args(attention_samples, attention_model, finer, *locked))
    kept = UNet2DConditionModel.from_pretrained(finer / "unet").state_dict()  # no longer trained, but not the base's
    assert all(torch.equal(tensor, trained[name]) for name, tensor in kept.items())
    resumed = [*more, "--max_train_steps", 3, "--resume_from_checkpoint", "latest"]
    train.main(train_args(attention_samples, attention_model, run, *resumed))
    later = UNet2DConditionModel.from_pretrained(run / "unet").state_dict()
    assert not torch.equal(later["conv_out.weight"], trained["conv_out.weight"])
