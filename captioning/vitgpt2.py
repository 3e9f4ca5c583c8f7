"""Captions of a gesture's photos by ViT-GPT2, in {gesture}_VitGpt2.txt and {gesture}_VitGpt2_file_name.txt.

The smallest of the three captioners: 1 GB, fast enough on a CPU. A killed run can be started again: it continues with
the next photos.

Examples:
  python captioning/vitgpt2.py --gesture call
  python captioning/vitgpt2.py --data_dir data
  accelerate launch --num_processes 2 captioning/vitgpt2.py --gesture call --batch_size 32
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python captioning/vitgpt2.py`

from captioning.photos import Captioner, captioner_script
from core.diffusion.pretrained import load_pretrained
from core.runs.command_line import command_line

NAME, MODEL = "VitGpt2", "nlpconnect/vit-gpt2-image-captioning"
MAX_LENGTH, NUM_BEAMS = 16, 4


def load(model_path: str, device) -> Captioner:
    """ViT-GPT2 as released: at most 16 tokens, 4 beams."""
    import torch
    from transformers import AutoTokenizer, VisionEncoderDecoderModel, ViTImageProcessor

    image_processor = load_pretrained(ViTImageProcessor, model_path)
    tokenizer = load_pretrained(AutoTokenizer, model_path)
    model = load_pretrained(VisionEncoderDecoderModel, model_path, dtype=torch.float32).to(device).eval()

    @torch.inference_mode()
    def caption(photos) -> list[str]:
        pixel_values = image_processor(images=photos, return_tensors="pt").pixel_values.to(device)
        tokens = model.generate(pixel_values, max_length=MAX_LENGTH, num_beams=NUM_BEAMS, do_sample=False)
        return tokenizer.batch_decode(tokens, skip_special_tokens=True)

    return caption


@command_line
def main(argv=None) -> None:
    captioner_script(__doc__, NAME, MODEL, load, argv)


if __name__ == "__main__":
    main()
