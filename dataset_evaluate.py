"""How well captions fit their photos: CLIP similarity of image and caption, and of captions among each other.

The two numbers of the released code, and beside them the share of captions that contain the gesture phrase.

Example:
  python dataset_evaluate.py --image_folder call --image_filenames_path call_BLIP2_file_name.txt \\
      --captions_path call_BLIP2_modified.txt
"""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from core.diffusion.pretrained import check_model, load_pretrained
from core.runs.command_line import argument_parser, command_line, natural_int, positive_int
from core.runs.errors import UserError
from core.runs.files import read_paired_lines
from core.runs.photos import map_photos
from core.runs.processes import cpu_count, progress, say
from hand1000.enrichment import share_with_phrase
from hand1000.evaluation import check_outputs, write_json
from hand1000.gestures import PHRASES


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--image_folder", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--image_filenames_path", type=Path, required=True, help="list of file names, one a line")
    parser.add_argument("--captions_path", type=Path, required=True, help="list of captions in the same order")
    parser.add_argument("--model", default="openai/clip-vit-base-patch32", help="CLIP: hub id or local folder")
    parser.add_argument(
        "--phrase", help="gesture phrase (default: what enrich.py noted, or by the image folder's name)"
    )
    parser.add_argument("--limit", type=positive_int, help="only the first lines (released: 5000; default: all)")
    parser.add_argument("--batch_size", type=positive_int, default=32, help="photos or captions at a time")
    parser.add_argument("--num_workers", type=natural_int, help="processes that read photos (default: one a core)")
    parser.add_argument("--json", type=Path, help="also write the result to this file")
    args = parser.parse_args(argv)
    names, captions = read_paired_lines(args.image_filenames_path, args.captions_path)
    names, captions = names[: args.limit], captions[: args.limit]
    photos = [args.image_folder / name for name in names]
    for number, photo in enumerate(photos, start=1):
        if not photo.is_file():
            raise UserError(f"{args.image_filenames_path}: line {number}: no photo {photo}")
    check_model(args.model)
    check_outputs(args.json)
    num_workers = cpu_count() if args.num_workers is None else args.num_workers

    result = clip_similarities(photos, captions, args.model, args.batch_size, num_workers)
    say(f"Similarity 1 (image-caption average similarity): {result['image_caption']:.6f}")
    say(f"Similarity 2 (caption-caption average similarity): {result['caption_caption']:.6f}")
    phrase = args.phrase or phrase_of(args.captions_path) or PHRASES.get(args.image_folder.resolve().name)
    if not phrase:
        say("The share of captions with the gesture phrase needs --phrase")
    else:
        result["share_with_phrase"] = share_with_phrase(captions, phrase)
        say(f"Captions with '{phrase}': {result['share_with_phrase']:.1%} of {len(captions)}")
    if result["cut_off"]:
        say(f"Warning: {result['cut_off']} captions are longer than CLIP's text input and were cut off")
    if args.json:
        write_json(args.json, {**result, "phrase": phrase, "model": args.model, "captions": len(captions)})


def phrase_of(captions: Path) -> str | None:
    """The phrase that `captioning/enrich.py` noted beside the captions."""
    try:
        return json.loads(captions.with_suffix(".json").read_text(encoding="utf-8"))["settings"]["phrase"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def clip_similarities(
    photos: Sequence[Path], captions: Sequence[str], model_path: str, batch_size: int, num_workers: int
) -> dict[str, float]:
    """Mean cosine of each photo with its caption, and of all pairs of captions, each with itself included.

    With t the unit vectors of N captions, the mean of all N² cosines is |Σt / N|²: no N×N matrix is needed, let alone
    the released N×N×512 one.

    Raises:
        UserError: an unreadable photo, a model that is no CLIP.
    """
    import torch
    from accelerate import PartialState
    from transformers import CLIPModel, CLIPProcessor

    device = PartialState().device
    processor = load_pretrained(CLIPProcessor, model_path)
    model = load_pretrained(CLIPModel, model_path, dtype=torch.float32).to(device).eval()
    longest = model.config.text_config.max_position_embeddings

    stream, image_caption, cut_off = map_photos(_unchanged, photos, num_workers=num_workers), 0.0, 0
    caption_sum = torch.zeros((), dtype=torch.float64)
    with progress(total=len(photos), desc="CLIP", unit="photo") as bar, torch.inference_mode():
        for start in range(0, len(photos), batch_size):
            texts = list(captions[start : start + batch_size])
            images = list(itertools.islice(stream, len(texts)))
            for error in images:
                if isinstance(error, UserError):
                    raise error
            cut_off += sum(len(tokens) > longest for tokens in processor.tokenizer(texts).input_ids)
            inputs = processor(
                text=texts, images=images, return_tensors="pt", padding=True, truncation=True, max_length=longest
            )
            outputs = model(**inputs.to(device))
            image, text = (
                torch.nn.functional.normalize(embeds.cpu().double(), dim=-1)
                for embeds in (outputs.image_embeds, outputs.text_embeds)
            )
            image_caption += float((image * text).sum())
            caption_sum = caption_sum + text.sum(dim=0)
            bar.update(len(texts))
    mean_caption = caption_sum / len(captions)
    return {
        "image_caption": image_caption / len(photos),
        "caption_caption": float(mean_caption @ mean_caption),
        "cut_off": cut_off,
    }


def _unchanged(photo):
    return photo


if __name__ == "__main__":
    main()
