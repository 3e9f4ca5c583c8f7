"""Captions that name the gesture exactly: {gesture}_{captioner}.txt becomes {gesture}_{captioner}_modified.txt.

An LLM gets the released prompt for each caption. A wrong answer is asked for again, and in the end repaired by a rule;
right is one that has the phrase exactly once, no other gesture, one line, no quotes or explanation, and most of the
caption's words. `--backend rule` needs no LLM. A killed run can be started again: it continues with the next captions.
--data_dir instead of --gesture: the texts of AttentionHand's data; captions without a hand word get one.
The API key of --backend openai is read from the environment: OPENAI_API_KEY.

Examples:
  python captioning/enrich.py --gesture call --captioner BLIP2
  python captioning/enrich.py --gesture call --backend openai --api_base http://localhost:11434/v1 --model llama3
  python captioning/enrich.py --data_dir data --captioner BLIP2
  python captioning/enrich.py --gesture wave --phrase "waving hand gesture" --backend rule
"""

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for `python captioning/enrich.py`

from captioning.language_models import ask_openai, ask_transformers
from captioning.photos import add_place, data_files
from core.diffusion.pretrained import check_available_model, check_model
from core.runs.command_line import argument_parser, command_line, natural_int, positive_int
from core.runs.errors import UserError
from core.runs.files import check_writable, model_identity
from core.runs.journal import append_journal, begin_journal, finish_lists, list_run, lists_are_finished, read_journal
from core.runs.processes import counted, num_processes, progress, say
from hand1000.enrichment import (
    AFTER_A_RETRY,
    AT_ONCE,
    BY_THE_RULE,
    Ask,
    EnrichedCaption,
    check_phrase,
    enrich,
    problems,
    report_of,
)
from hand1000.gesture_files import CAPTIONER, GestureFiles
from hand1000.gestures import PHRASES

DEFAULT_MODELS = {"transformers": "meta-llama/Meta-Llama-3-8B-Instruct", "openai": "llama3", "rule": ""}
UNCHANGED = "named a hand already"  # how such a caption was made
MOST_LINES = 10  # of doubtful captions in the warning


@command_line
def main(argv=None) -> None:
    parser = argument_parser(__doc__)
    add_place(parser, "what the captions will name")
    parser.add_argument("--captioner", default=CAPTIONER, help="whose captions: {gesture}_{captioner}.txt")
    parser.add_argument("--phrase", help="gesture phrase (default: a built-in one for HaGRID's, and their _test)")
    parser.add_argument("--backend", choices=list(DEFAULT_MODELS), default="transformers", help="who rewrites")
    parser.add_argument("--model", help="hub id or folder, or the server's name for it (default: Llama 3)")
    parser.add_argument("--api_base", default="http://localhost:11434/v1", help="URL of an OpenAI-compatible server")
    parser.add_argument("--timeout", type=positive_int, default=120, help="seconds to wait for the server's answer")
    parser.add_argument("--batch_size", type=positive_int, default=8, help="captions, or requests, at a time")
    parser.add_argument("--retries", type=natural_int, default=2, help="how often a wrong answer is asked for again")
    args = parser.parse_args(argv)
    options = {
        "backend": args.backend,
        "model": args.model or DEFAULT_MODELS[args.backend],
        "api_base": args.api_base,
        "timeout": args.timeout,
        "batch_size": args.batch_size,
        "retries": args.retries,
    }
    if args.data_dir:
        write_data_texts(args.data_dir, args.captioner, args.phrase, **options)
    else:
        phrase = args.phrase or PHRASES.get(args.gesture.removesuffix("_test"))
        write_enriched(GestureFiles(args.data_root, args.gesture, args.captioner), phrase, **options)


def write_data_texts(data_dir: Path, captioner: str, phrase: str | None, **options: Any) -> None:
    """Write the texts of AttentionHand's data anew, from the captions that a captioner made of its photos.

    Only captions without a hand word are rewritten.

    Args:
        phrase: what such a caption gets; None for "with a hand in view".
        options: as `write_enriched`.

    Raises:
        UserError: as `write_enriched`, or no data set.
    """
    from attentionhand.data import read_modalities
    from attentionhand.texts import HAND_PHRASE, distinct_photos, write_texts

    files = data_files(data_dir, captioner)
    samples = read_modalities(data_dir / "modalities.json")
    if not files.captions.is_file():
        raise UserError(f"{files.captions}: no such file; caption the photos first: captioning/blip2.py --data_dir ...")
    write_enriched(files, phrase or HAND_PHRASE, only_without_hand_words=True, **options)
    names, texts = files.read(files.enriched)
    photos = distinct_photos(samples)[: len(names)]
    if [photo.name for photo in photos] != names:
        raise UserError(f"{files.names}: lists other photos than {data_dir / 'modalities.json'}; caption them anew")
    by_photo = dict(zip(photos, texts))
    write_texts([sample for sample in samples if sample.rgb in by_photo], by_photo)
    say(f"{data_dir / 'text'}: {counted(len(texts), 'text')}")


def write_enriched(
    files: GestureFiles,
    phrase: str | None,
    *,
    backend: str,
    model: str = "",
    api_base: str = "",
    timeout: float = 120,
    batch_size: int = 8,
    retries: int = 2,
    only_without_hand_words: bool = False,
) -> None:
    """Write the list of enriched captions.

    Args:
        backend: "transformers", "openai" or "rule".
        model: hub id or folder, or the server's name for it.
        api_base, timeout: URL of the server, and seconds to wait for its answer.
        batch_size: captions, or requests, at a time.
        retries: how often a wrong answer is asked for again.
        only_without_hand_words: leave captions that name a hand already as they are.

    Raises:
        UserError: missing or wrong lists, no phrase, no model or server, a list made with other settings.
    """
    _, captions = files.read(files.captions)
    phrase = check_phrase(phrase, files.gesture)
    if backend == "transformers":
        check_model(model)
    if num_processes() > 1:
        raise UserError("enrichment is the work of one process; --batch_size says how many captions at a time")
    check_writable(files.root)
    settings = {
        "captions": hashlib.sha256("\n".join(captions).encode()).hexdigest(),
        "lines": len(captions),
        "phrase": phrase,
        "backend": backend,
        "model": model_identity(model) if backend == "transformers" else model,
        "retries": retries,
    }
    run = list_run(files.enriched, settings, what="enrichment")
    with run.hold():
        if lists_are_finished(run, [files.enriched]):
            say(f"{files.enriched}: already finished, {counted(len(captions), 'caption')}")
            return
        entries = read_journal(run, EnrichedCaption, captions)
        entries = entries[: len(entries) // batch_size * batch_size]  # whole batches: the same ones after a kill
        ask: Ask | None = None
        if backend == "transformers" and len(entries) < len(captions):
            check_available_model(model)
            ask = ask_transformers(model)
        elif backend == "openai":
            ask = ask_openai(api_base, model, timeout=timeout)
        begin_journal(run, entries)
        with progress(total=len(captions), initial=len(entries), desc="Enriching", unit="caption") as bar:
            while len(entries) < len(captions):
                batch = captions[len(entries) : len(entries) + batch_size]
                made = (
                    enrich_some(batch, phrase, ask, retries)
                    if only_without_hand_words
                    else enrich(batch, phrase, ask, retries)
                )
                append_journal(run, made)
                entries += made
                bar.update(len(made))
        report = report_of(entries, phrase)
        finish_lists(run, {files.enriched: [entry["enriched"] for entry in entries]}, **report)
    unchanged = sum(entry["how"] == UNCHANGED for entry in entries)
    say(f"{files.enriched}: {counted(len(entries) - unchanged, 'caption')} with '{phrase}'")
    counts = ", ".join(f"{report[how]} {how}" for how in (AT_ONCE, AFTER_A_RETRY, BY_THE_RULE))
    say(f"{counts}; {report['content words kept']:.1%} of the content words kept")
    doubtful = [
        number
        for number, entry in enumerate(entries, start=1)
        if entry["how"] != UNCHANGED and problems(entry["enriched"], entry["caption"], phrase)
    ]
    if doubtful:
        lines = ", ".join(map(str, doubtful[:MOST_LINES])) + (", ..." if len(doubtful) > MOST_LINES else "")
        say(f"Warning: {counted(len(doubtful), 'caption')} may name another gesture, too; see lines {lines}")


def enrich_some(captions: Sequence[str], phrase: str, ask: Ask | None, retries: int) -> list[dict[str, str]]:
    """As `enrich`, but captions that name a hand already are left as they are."""
    from attentionhand.hand_words import has_hand_word

    made = iter(enrich([caption for caption in captions if not has_hand_word(caption)], phrase, ask, retries))
    return [
        {"caption": caption, "enriched": caption, "how": UNCHANGED} if has_hand_word(caption) else next(made)
        for caption in captions
    ]


if __name__ == "__main__":
    main()
