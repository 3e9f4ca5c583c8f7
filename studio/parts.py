"""What the tabs share: errors in the page, a visitor's job, buttons and numbers. Needs gradio."""

import functools
import html
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from core.runs.errors import UserError
from studio.fine_tuned import Settings
from studio.jobs import Stopped, stop

MOST_SEED = 2**32 - 1
MOST_STEPS, MOST_GUIDANCE = 100, 15
JOB = {"concurrency_id": "job", "concurrency_limit": 1}  # the one queue of all that takes long


class Defaults(NamedTuple):
    """What the page begins with."""

    is_miniature: bool  # whether the base model is that of this repository
    seed: int
    mu: float
    steps: int
    tuned_guidance: float
    controlled_guidance: float
    prompt: str
    text: str


def in_page(function: Callable[..., Any]) -> Callable[..., Any]:
    """Show a visitor's mistake in the page as one line; what else goes wrong is printed on the server only."""

    @functools.wraps(function)
    def wrapped(*values: Any) -> Any:
        try:
            return function(*values)
        except UserError as error:
            raise shown_error(str(error)) from None
        except Stopped:
            gr.Info("The job was stopped.", duration=3, title="Stopped")
            return gr.skip()
        except MemoryError:
            raise shown_error("there is not enough memory for this") from None

    return wrapped


def shown_error(message: str) -> gr.Error:
    """An error for the page, which renders HTML in it; names of files may hold any."""
    return gr.Error(html.escape(message), duration=20, title="This does not work", print_exception=False)


def visitor_of(request: gr.Request) -> str:
    """The name of a visitor's open page."""
    return str(request.session_hash)


def telling(progress: gr.Progress) -> Callable[[float | None, str], None]:
    """What a job tells, to Gradio's bar."""

    def tell(share: float | None, what: str) -> None:
        progress(0 if share is None else min(share, 1.0), desc=what)

    return tell


def number(value: Any, low: float, high: float, what: str) -> float:
    """A visitor's number.

    Raises:
        UserError: it is none, or outside its range.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise UserError(f"{what} is a number from {low:g} to {high:g}")
    return value


def drawing_settings(seed: Any, steps: Any, guidance: Any) -> Settings:
    """The numbers of `drawing_numbers`. Raises UserError where one is outside its range."""
    return Settings(
        int(number(seed, 0, MOST_SEED, "the seed")),
        int(number(steps, 1, MOST_STEPS, "the number of steps")),
        number(guidance, 1, MOST_GUIDANCE, "the guidance"),
    )


def drawing_numbers(defaults: Defaults, guidance: float) -> list[Any]:
    """Seed in sight, steps and guidance folded away."""
    seed = gr.Number(defaults.seed, label="Seed", precision=0, minimum=0, maximum=MOST_SEED)
    with gr.Accordion("Steps and guidance", open=False):
        steps = gr.Slider(1, MOST_STEPS, defaults.steps, step=1, label="DDIM steps")
        scale = gr.Slider(1, MOST_GUIDANCE, guidance, step=0.5, label="Guidance", info="how much the text counts")
    return [seed, steps, scale]


def upload(**options: Any) -> gr.File:
    """A field for files. Gradio by itself would fetch a link that is sent in place of a file."""
    field = gr.File(type="filepath", **options)
    inherited = field.async_move_resource_to_block_cache

    async def files_only(path: str | Path | None) -> str | None:
        if "://" in str(path):
            raise shown_error("links are not opened here; upload the file")
        return await inherited(path)

    field.async_move_resource_to_block_cache = files_only
    return field


def stops(button: gr.Button, events: list[Any]) -> None:
    """Let a button end the visitor's job, or take it out of the queue."""

    def end(request: gr.Request) -> None:
        stop(visitor_of(request))

    button.click(end, None, None, queue=False, cancels=events, api_visibility="private")
