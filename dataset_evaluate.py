"""How well captions fit their photos: CLIP similarity of photo and caption, and of the captions among each other.

Prints the two numbers of the released code, and the share of captions that contain the gesture phrase.

Example:
  python dataset_evaluate.py --image_folder call --image_filenames_path call_BLIP2_file_name.txt \\
      --captions_path call_BLIP2_modified.txt
"""

from pathlib import Path
from typing import Any

from core.diffusion.pretrained import check_available_model, check_model, load_clip
from core.metrics.clip import clip_embeddings, image_text_similarity, text_text_similarity
from core.runs.command_line import argument_parser, command_line, natural_int, positive_int
from core.runs.errors import UserError
from core.runs.files import check_outputs, read_paired_lines, write_json
from core.runs.processes import say, workers_a_process
from core.runs.run import read_record
from hand1000.enrichment import share_with_phrase
from hand1000.gestures import PHRASES


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--image_folder", type=Path, required=True, help="folder of the photos")
    parser.add_argument("--image_filenames_path", type=Path, required=True, help="list of file names, one a line")
    parser.add_argument("--captions_path", type=Path, required=True, help="list of captions in the same order")
    parser.add_argument("--model", default="openai/clip-vit-base-patch32", help="CLIP: hub id or local folder")
    parser.add_argument(
        "--phrase",
        help="gesture phrase to look for (default: the one that enrich.py noted, or that of the image folder's name)",
    )
    parser.add_argument(
        "--limit", type=positive_int, help="use only the first lines; the released code uses 5000 (default: all)"
    )
    parser.add_argument("--batch_size", type=positive_int, default=32, help="photos and captions at a time")
    parser.add_argument(
        "--num_workers", type=natural_int, help="processes that read photos; 0 for none (default: one per core)"
    )
    parser.add_argument("--json", type=Path, help="write the result and everything it depends on to this file")
    args = parser.parse_args(argv)
    names, captions = read_paired_lines(args.image_filenames_path, args.captions_path)
    names, captions = names[: args.limit], captions[: args.limit]
    photos = [args.image_folder / name for name in names]
    for number, photo in enumerate(photos, start=1):
        if not photo.is_file():
            raise UserError(f"{args.image_filenames_path}: line {number}: no photo {photo}")
    check_model(args.model)
    check_outputs(args.json, inputs=[args.image_filenames_path, args.captions_path, *photos])
    check_available_model(args.model)

    model, processor = load_clip(args.model)
    num_workers = workers_a_process(args.num_workers)
    embeddings = clip_embeddings(
        model, processor, photos, captions, batch_size=args.batch_size, num_workers=num_workers
    )
    result: dict[str, Any] = {
        "image_caption": image_text_similarity(embeddings.images, embeddings.texts),
        "caption_caption": text_text_similarity(embeddings.texts),
        "cut_off": embeddings.cut_off,
    }
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
        record = read_record(captions.with_suffix(".json"))
    except UserError:  # of something else, or damaged
        return None
    phrase = record.settings.get("phrase") if record else None
    return phrase if isinstance(phrase, str) else None


if __name__ == "__main__":
    main()
