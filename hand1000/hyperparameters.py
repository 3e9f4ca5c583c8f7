"""The numbers of Hand1000's training, with the released values as defaults."""

from pathlib import Path
from typing import NamedTuple

STAGED, INTERLEAVED = "staged", "interleaved"
CONSTANT = "constant"
LR_SCHEDULERS = (CONSTANT, "linear", "cosine")  # of diffusers
LORA_LR = 1e-4  # Stage III learning rate of a LoRA: the default of diffusers' text-to-image LoRA example
LOSS_COLUMNS = ("image", "stage", "step", "loss")  # of losses.csv


class Hyperparameters(NamedTuple):
    """Named as the options of train.py, which explains them."""

    Lambda: float = 0.7  # λ, the share of the text in the double-fused embedding
    embedding_steps: int = 10  # Stage II steps per photo
    embedding_lr: float = 1e-3
    finetune_steps: int = 20  # Stage III steps per photo
    finetune_lr: float = 1e-6
    lr_scheduler: str | None = None  # how Stage III's rate falls to 0, of LR_SCHEDULERS; None: it is constant
    lora_rank: int | None = None  # train a LoRA of this rank in Stage III instead of the whole UNet
    noise_offset: float | None = None  # how much the mean of the noise varies beyond that of normal noise
    schedule: str = INTERLEAVED  # the released order; STAGED is the paper's
    global_batch_size: int = 1  # photos per step on all processes together; the interleaved schedule takes one
    resolution: int = 512  # pixels per side
    seed: int = 0
    fusion_seed: int = 0
    fusion_checkpoint: Path | None = None  # file with fusion weights instead of the seed
    mixed_precision: str = "no"
    use_8bit_adam: bool = False
    compile: str | None = None  # mode of torch.compile
    channels_last: bool = False
