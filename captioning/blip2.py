"""Captions of a gesture's photos by BLIP-2, in {gesture}_BLIP2.txt and {gesture}_BLIP2_file_name.txt.

Half precision on a GPU (about 8 GB). A killed run can be started again: it continues with the next photos.

Examples:
  python captioning/blip2.py --gesture call
  python captioning/blip2.py --data_dir data
  accelerate launch --num_processes 2 captioning/blip2.py --gesture call --batch_size 16
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python captioning/blip2.py`

from captioning.photos import Captioner, captioner_script
from core.diffusion.pretrained import load_pretrained
from core.runs.command_line import command_line

NAME, MODEL = "BLIP2", "Salesforce/blip2-opt-2.7b"
MAX_NEW_TOKENS = 20  # transformers' default when the code was released


def load(model_path: str, device) -> Captioner:
    """BLIP-2 as released: no prompt, greedy."""
    import torch
    from transformers import Blip2ForConditionalGeneration, Blip2Processor

    dtype = torch.float16 if device.type == "cuda" else torch.float32
    processor = load_pretrained(Blip2Processor, model_path)
    model = load_pretrained(Blip2ForConditionalGeneration, model_path, dtype=dtype).to(device).eval()

    @torch.inference_mode()
    def caption(photos) -> list[str]:
        inputs = processor(images=photos, return_tensors="pt").to(device, dtype)
        tokens = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        return processor.batch_decode(tokens, skip_special_tokens=True)

    return caption


@command_line
def main(argv=None) -> None:
    captioner_script(__doc__, NAME, MODEL, load, argv)


if __name__ == "__main__":
    main()
