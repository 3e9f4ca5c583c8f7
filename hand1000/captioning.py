"""Captions of a gesture's photos: what `captioning/blip2.py`, `paligemma.py` and `vitgpt2.py` share."""

import hashlib
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from core.diffusion.pretrained import check_model
from core.runs.command_line import argument_parser, gesture_name, natural_int, positive_int
from core.runs.errors import UserError
from core.runs.files import check_writable
from core.runs.photos import list_photos, map_photos
from core.runs.processes import (
    check_all_processes_started,
    cpu_count,
    is_main_process,
    num_processes,
    processes_need_cpu,
    progress,
    say,
)
from hand1000 import journal
from hand1000.enrichment import one_line

if TYPE_CHECKING:
    import torch
    from PIL import Image

Captioner = Callable[[Sequence["Image.Image"]], list[str]]
NO_CAPTION = "a photo"  # what an empty caption becomes: a list file has no empty lines


def run_captioner(
    docstring: str, name: str, default_model: str, load: Callable[[str, "torch.device"], Captioner], argv=None
) -> None:
    """The command line of a captioner.

    Writes {gesture}_{name}.txt and {gesture}_{name}_file_name.txt, a line a photo, sorted by file name.

    Args:
        load: makes a function from photos (RGB) to their captions, out of a hub id or folder and a device.

    Raises:
        UserError: no photos, an unreadable one, a model that can't be loaded, lists made with other settings.
    """
    parser = argument_parser(docstring)
    parser.add_argument("--gesture", type=gesture_name, required=True, help="its photos are in {data_root}/{gesture}")
    parser.add_argument("--data_root", type=Path, default=Path(), help="folder of the gesture's files")
    parser.add_argument("--model", default=default_model, help="hub id or local folder")
    parser.add_argument("--batch_size", type=positive_int, default=8, help="photos at a time")
    parser.add_argument("--num_workers", type=natural_int, help="processes that read photos (default: one a core)")
    parser.add_argument("--limit", type=positive_int, help="only the first photos (default: all)")
    args = parser.parse_args(argv)
    photos = list_photos(args.data_root / args.gesture)[: args.limit]
    check_model(args.model)
    check_writable(args.data_root)
    check_all_processes_started()
    output = args.data_root / f"{args.gesture}_{name}.txt"
    names = [photo.name for photo in photos]
    names_hash = hashlib.sha256("\n".join(names).encode()).hexdigest()
    settings = {"model": args.model, "photos": len(photos), "names": names_hash}
    names_file = output.with_name(f"{args.gesture}_{name}_file_name.txt")
    with journal.locked(output):
        if journal.is_finished([names_file, output], settings):
            say(f"{output}: already finished, {len(photos)} captions")
            return
        num_workers = cpu_count() // num_processes() if args.num_workers is None else args.num_workers
        captions = caption_photos(photos, output, settings, args.model, load, args.batch_size, num_workers)
        if is_main_process():
            journal.finish(output, settings, {names_file: names, output: captions})
        say(f"{output}: {len(captions)} captions")
        if NO_CAPTION in captions:
            say(f"Warning: {captions.count(NO_CAPTION)} of them were empty and became '{NO_CAPTION}'")


def caption_photos(
    photos: Sequence[Path],
    output: Path,
    settings: dict,
    model: str,
    load: Callable[[str, "torch.device"], Captioner],
    batch_size: int,
    num_workers: int,
) -> list[str]:
    """Captions of `photos`, in order, going on where the journal of `output` ends.

    Under `accelerate launch` the batches of a round go to different processes. Batches are the same ones after a
    kill as before, so the captions are too.
    """
    from accelerate import PartialState
    from accelerate.utils import gather_object

    state = PartialState(cpu=processes_need_cpu())
    names = [photo.name for photo in photos]
    records = journal.read_journal(output, settings, "photo", names)
    state.wait_for_everyone()
    if len(records) < len(photos):
        records = records[: len(records) // batch_size * batch_size]  # a whole number of batches
    captions = [record["caption"] for record in records]
    rest = photos[len(captions) :]
    if not rest:
        return captions

    caption = load(model, state.device)
    if is_main_process():
        journal.write_journal(output, settings, records)
    batches = [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]
    own = batches[state.process_index :: state.num_processes]
    stream = map_photos(_unchanged, [path for batch in own for path in batch], num_workers=num_workers)
    with progress(total=len(photos), initial=len(captions), desc="Captions", unit="photo") as bar:
        for number in range(-(-len(batches) // state.num_processes)):  # rounds
            texts = _caption_batch(caption, stream, own[number]) if number < len(own) else []
            gathered = gather_object([texts])
            for error in itertools.chain.from_iterable(gathered):
                if isinstance(error, UserError):
                    raise UserError(f"{error} (captions so far are kept: run again)")
            texts = [one_line(text) or NO_CAPTION for text in itertools.chain.from_iterable(gathered)]
            if is_main_process():
                done = zip(photos[len(captions) :], texts)
                journal.append_journal(output, [{"photo": photo.name, "caption": text} for photo, text in done])
            captions += texts
            bar.update(len(texts))
    return captions


def _caption_batch(caption: Captioner, stream, batch: Sequence[Path]) -> list:
    photos = list(itertools.islice(stream, len(batch)))
    errors = [photo for photo in photos if isinstance(photo, UserError)]
    return errors[:1] or caption(photos)


def _unchanged(photo: "Image.Image") -> "Image.Image":
    return photo
