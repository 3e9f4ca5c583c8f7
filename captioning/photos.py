"""Captions of photos, a gesture's or a data set's: what `blip2.py`, `paligemma.py` and `vitgpt2.py` share."""

import argparse
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from core.diffusion.pretrained import check_available_model, check_model
from core.runs.command_line import argument_parser, folder_name, natural_int, positive_int
from core.runs.errors import UserError
from core.runs.files import check_writable, model_identity, sha256_of_files
from core.runs.journal import append_journal, begin_journal, finish_lists, list_run, lists_are_finished, read_journal
from core.runs.photos import list_photos, map_photos, unchanged
from core.runs.processes import (
    check_all_processes_started,
    counted,
    is_main_process,
    progress,
    say,
    start_processes,
    workers_a_process,
)
from core.runs.run import Run
from hand1000.enrichment import enrich_by_rule, one_line
from hand1000.gesture_files import GestureFiles

if TYPE_CHECKING:
    import torch
    from PIL import Image

Captioner = Callable[[Sequence["Image.Image"]], list[str]]  # photos (RGB) to their captions
Load = Callable[[str, "torch.device"], Captioner]  # a hub id or folder, and a device, to a captioner
NO_CAPTION = "a photo"  # in place of an empty caption: a list has no empty lines


class PhotoCaption(TypedDict):
    """An entry of the journal."""

    photo: str  # its file name
    caption: str


def captioner_script(docstring: str | None, name: str, default_model: str, load: Load, argv=None) -> None:
    """The command line of the captioner `name`."""
    parser = argument_parser(docstring)
    add_place(parser, "its photos are in {data_root}/{gesture}")
    parser.add_argument("--model", default=default_model, help="hub id or local folder")
    parser.add_argument("--batch_size", type=positive_int, default=8, help="photos at a time")
    parser.add_argument("--num_workers", type=natural_int, help="processes that read photos (default: one per core)")
    parser.add_argument("--limit", type=positive_int, help="only the first photos (default: all)")
    args = parser.parse_args(argv)
    options = {"batch_size": args.batch_size, "num_workers": args.num_workers, "limit": args.limit}
    if args.data_dir:
        write_data_captions(args.data_dir, name, args.model, load, **options)
    else:
        write_captions(GestureFiles(args.data_root, args.gesture, name), args.model, load, **options)


def add_place(parser: argparse.ArgumentParser, gesture_help: str) -> None:
    """The options that say whose captions: a gesture's, or AttentionHand's data set's."""
    whose = parser.add_mutually_exclusive_group(required=True)
    whose.add_argument("--gesture", type=folder_name, help=gesture_help)
    whose.add_argument("--data_dir", type=Path, help="AttentionHand's data instead: writes the texts of its photos")
    parser.add_argument("--data_root", type=Path, default=Path(), help="folder of the gesture's files")


def data_files(data_dir: Path, captioner: str) -> GestureFiles:
    """The lists of a data set: data/captions_BLIP2.txt with a line for each photo, and those beside it."""
    return GestureFiles(data_dir, "captions", captioner)


def write_captions(
    files: GestureFiles,
    model: str,
    load: Load,
    *,
    batch_size: int = 8,
    num_workers: int | None = None,
    limit: int | None = None,
) -> None:
    """Write the lists of file names and captions, a line for each photo, sorted by file name.

    Args:
        model: hub id or local folder.
        num_workers: processes that read photos (default: one per core).
        limit: only the first photos (default: all).

    Raises:
        UserError: no photos, an unreadable one, a model that cannot be loaded, lists made with other settings.
    """
    write_lists(files, list_photos(files.photos)[:limit], model, load, batch_size=batch_size, num_workers=num_workers)


def write_data_captions(
    data_dir: Path,
    name: str,
    model: str,
    load: Load,
    *,
    batch_size: int = 8,
    num_workers: int | None = None,
    limit: int | None = None,
) -> None:
    """Write the texts of AttentionHand's data, and beside modalities.json the list of captions as they were made.

    A caption without a hand word gets one by the rule of `hand1000.enrichment`; enrich.py --data_dir asks an LLM.

    Args:
        name: of the captioner, for the names of the lists.
        model, batch_size, num_workers, limit: as `write_captions`.

    Raises:
        UserError: as `write_captions`, or no data set.
    """
    from attentionhand.data import read_modalities
    from attentionhand.hand_words import has_hand_word
    from attentionhand.texts import HAND_PHRASE, distinct_photos, write_texts

    samples = read_modalities(data_dir / "modalities.json")
    photos = distinct_photos(samples)[:limit]

    def use(captions: list[str]) -> None:
        texts = [text if has_hand_word(text) else enrich_by_rule(text, HAND_PHRASE) for text in captions]
        if is_main_process():
            by_photo = dict(zip(photos, texts))
            write_texts([sample for sample in samples if sample.rgb in by_photo], by_photo)
        added = sum(text != caption for text, caption in zip(texts, captions))
        say(f"{data_dir / 'text'}: {counted(len(texts), 'text')}, {added} with '{HAND_PHRASE}' added")

    write_lists(
        data_files(data_dir, name),
        photos,
        model,
        load,
        batch_size=batch_size,
        num_workers=num_workers,
        flag="--data_dir",
        use=use,
    )


def write_lists(
    files: GestureFiles,
    photos: Sequence[Path],
    model: str,
    load: Load,
    *,
    batch_size: int,
    num_workers: int | None,
    flag: str = "--data_root",
    use: Callable[[list[str]], None] | None = None,
) -> None:
    """Caption photos and write the two lists, unless they are finished.

    Args:
        flag: the option that chooses another place.
        use: called with the captions before the lists are written.
    """
    check_model(model)
    check_writable(files.root)
    check_all_processes_started()
    run = caption_run(files, photos, model, flag)
    with run.hold():
        if lists_are_finished(run, [files.names, files.captions]):
            say(f"{files.captions}: already finished, {counted(len(photos), 'caption')}")
            return
        check_available_model(model)
        captions = caption_photos(run, photos, model, load, batch_size, workers_a_process(num_workers))
        if use:
            use(captions)
        finish_captions(run, files, photos, captions)


def caption_run(files: GestureFiles, photos: Sequence[Path], model: str, flag: str) -> Run:
    """The run that makes the lists of captions; `flag` chooses another place."""
    settings = {"model": model_identity(model), "photos": len(photos), "contents": sha256_of_files(photos)}
    return list_run(files.captions, settings, what="captioning", flag=flag)


def finish_captions(run: Run, files: GestureFiles, photos: Sequence[Path], captions: Sequence[str]) -> None:
    """Write the lists, and say so."""
    if is_main_process():
        finish_lists(run, {files.names: [photo.name for photo in photos], files.captions: captions})
    say(f"{files.captions}: {counted(len(captions), 'caption')}")
    if NO_CAPTION in captions:
        count = captions.count(NO_CAPTION)
        say(f"Warning: the model gave no caption for some photos; lines with '{NO_CAPTION}': {count}")


def caption_photos(
    run: Run, photos: Sequence[Path], model: str, load: Load, batch_size: int, num_workers: int
) -> list[str]:
    """Captions of `photos`, in order, from where the run's journal ends.

    Under `accelerate launch` the batches of a round go to different processes. Batches are the same ones after a
    kill as before, so the captions are too.
    """
    from accelerate.utils import gather_object

    state = start_processes()
    entries = read_journal(run, PhotoCaption, [photo.name for photo in photos])
    state.wait_for_everyone()
    if len(entries) < len(photos):
        entries = entries[: len(entries) // batch_size * batch_size]  # a whole number of batches
    captions = [entry["caption"] for entry in entries]
    rest = photos[len(captions) :]
    if not rest:
        return captions

    caption = load(model, state.device)
    if is_main_process():
        begin_journal(run, entries)
    batches = [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]
    own = batches[state.process_index :: state.num_processes]
    stream = map_photos(unchanged, [path for batch in own for path in batch], num_workers=num_workers)
    with progress(total=len(photos), initial=len(captions), desc="Captions", unit="photo") as bar:
        for number in range(-(-len(batches) // state.num_processes)):  # rounds
            made = _caption_batch(caption, stream, len(own[number])) if number < len(own) else []
            gathered = gather_object([made])  # of every process; each must get here, also one with a bad photo
            for error in gathered:
                if isinstance(error, UserError):
                    raise UserError(f"{error} (captions so far are kept: run again)")
            texts = [one_line(text) or NO_CAPTION for text in itertools.chain.from_iterable(gathered)]
            if is_main_process():
                done = zip(photos[len(captions) :], texts)
                append_journal(run, [{"photo": photo.name, "caption": text} for photo, text in done])
            captions += texts
            bar.update(len(texts))
    return captions


def _caption_batch(caption: Captioner, stream, count: int) -> list[str] | UserError:
    """Captions of the next `count` photos, or the error of an unreadable one."""
    try:
        return caption(list(itertools.islice(stream, count)))
    except UserError as error:
        return error
