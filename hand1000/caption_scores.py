"""How faithful pictures are to their captions: the further metrics of reproduce.py, where they are asked for."""

from pathlib import Path
from typing import Any

from core.metrics.scores import Score
from hand1000.gesture_files import GestureFiles

# torch and transformers are imported inside functions, and by nobody who does not ask for these metrics.


def check_caption_models(clip_model: str | None, attribute_classifier: Path | None) -> None:
    """Refuse models that can't be had or are of another kind, before any step runs.

    Raises:
        UserError
    """
    if clip_model:
        from core.diffusion.pretrained import check_available_model, check_model

        check_model(clip_model)
        check_available_model(clip_model)
    if attribute_classifier:
        from core.metrics.texts import load_attribute_classifier

        load_attribute_classifier(attribute_classifier)


def caption_scores(
    folder: Path, files: GestureFiles, *, clip_model: str | None, attribute_classifier: Path | None, **options: Any
) -> dict[str, Score]:
    """ "CLIP score" and "attributes kept" of the pictures in a folder, each only where its model is given.

    Args:
        folder: pictures under the names of the listed photos; some may be missing.
        files: whose names and enriched captions they were drawn from.
        options: `resamples`, `seed`, `num_workers`, as for `core.metrics.scores.all_scores`.

    Raises:
        UserError: an unreadable picture, or a model that can't be loaded.
    """
    scores: dict[str, Score] = {}
    if not clip_model and not attribute_classifier:
        return scores
    from core.metrics.texts import attributes_kept, clip_score, load_attribute_classifier

    pairs = [(folder / name, caption) for name, caption in zip(*files.read(files.enriched), strict=True)]
    pictures, captions = map(list, zip(*(pair for pair in pairs if pair[0].is_file())))
    if clip_model:
        from core.diffusion.pretrained import load_clip

        scores |= clip_score(*load_clip(clip_model), pictures, captions, range(len(pictures)), **options)
    if attribute_classifier:
        classifier = load_attribute_classifier(attribute_classifier)
        scores |= attributes_kept(classifier, pictures, captions, **options)
    return scores
