"""Captions of a gesture's photos by PaliGemma, in {gesture}_PaliGemma.txt and {gesture}_PaliGemma_file_name.txt.

bfloat16 on a GPU (about 7 GB). The model's licence has to be accepted on the hub. A killed run can be started
again: it continues with the next photos.

Examples:
  python captioning/paligemma.py --gesture call
  python captioning/paligemma.py --data_dir data
  accelerate launch --num_processes 2 captioning/paligemma.py --gesture call --batch_size 16
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python captioning/paligemma.py`

from captioning.photos import Captioner, captioner_script
from core.diffusion.pretrained import load_pretrained
from core.runs.command_line import command_line

NAME, MODEL = "PaliGemma", "google/paligemma-3b-mix-224"
PROMPT = "<image>caption"
MAX_NEW_TOKENS = 100


def load(model_path: str, device) -> Captioner:
    """PaliGemma as released: prompt "caption", greedy."""
    import torch
    from transformers import PaliGemmaForConditionalGeneration, PaliGemmaProcessor

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    processor = load_pretrained(PaliGemmaProcessor, model_path)
    model = load_pretrained(PaliGemmaForConditionalGeneration, model_path, dtype=dtype).to(device).eval()

    @torch.inference_mode()
    def caption(photos) -> list[str]:
        inputs = processor(images=photos, text=[PROMPT] * len(photos), return_tensors="pt").to(device, dtype)
        tokens = model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=False)
        return processor.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    return caption


@command_line
def main(argv=None) -> None:
    captioner_script(__doc__, NAME, MODEL, load, argv)


if __name__ == "__main__":
    main()
