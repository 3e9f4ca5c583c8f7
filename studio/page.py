"""The page itself: its tabs, its looks, and the server. Needs gradio."""

import signal

import gradio as gr
from starlette.middleware import Middleware

from core.runs.processes import say
from studio.guard import guarded
from studio.jobs import stop
from studio.offers import Offers
from studio.parts import Defaults, visitor_of
from studio.tabs import attentionhand_tab, hand1000_tab, measure_tab
from studio.uploads import MOST_BYTES

TITLE = "Hand1000 and AttentionHand"
FONTS = ["system-ui", "sans-serif"]  # of the visitor's machine: none is fetched
STYLE = """
.gradio-container { max-width: 1240px !important; margin: 0 auto !important; }
.picture img, .mesh img { width: 100%; height: 100%; object-fit: contain; }
.mesh img { background: #000; }
.strip img { width: 100%; object-fit: contain; }
.samples .grid-wrap { max-height: none !important; }
.note { font-size: 0.9rem; opacity: 0.85; overflow-wrap: anywhere; }
.scores table { width: 100%; font-size: 0.95rem; }
.scores td:first-child, .scores td:nth-child(2) { white-space: nowrap; }
@media (max-width: 640px) {
  .scores td:nth-child(3), .scores th:nth-child(3) { display: none; }
  .scores table { font-size: 0.85rem; }
  .scores td, .scores th { padding: 0.4rem !important; }
  button.lg { padding: 0.5rem !important; }
  .mesh { position: sticky !important; top: 0; z-index: 5; }
}
"""
KEPT_SECONDS = 3600  # uploads and pictures are removed after that
MOST_WAITING = 20  # jobs in the queue
MOST_VISITORS = 64  # whose last pictures are kept, to show landmarks over them


def build_page(offers: Offers, defaults: Defaults) -> gr.Blocks:
    """The page of what the owner offers."""

    base = "the miniature of this repository, 64 × 64 pixels" if defaults.is_miniature else f"`{offers.base}`"

    def leave(request: gr.Request) -> None:
        stop(visitor_of(request))

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT_SECONDS // 4, KEPT_SECONDS)) as page:
        gr.Markdown(
            f"# {TITLE}\nTwo methods that make Stable Diffusion draw correct hands: **Hand1000** fine-tunes it for one "
            f"gesture, **AttentionHand** lets the mesh of a hand control it. Base model: {base}."
        )
        with gr.Tabs():
            with gr.Tab("Hand1000"):
                hand1000_tab(offers, defaults)
            with gr.Tab("AttentionHand"):
                attentionhand_tab(page, offers, defaults)
            with gr.Tab("Measure"):
                measure_tab(offers, defaults)
        page.unload(leave)
    page.queue(max_size=MOST_WAITING, default_concurrency_limit=1, api_open=False)
    return page


def serve(page: gr.Blocks, offers: Offers, *, host: str, port: int | None, share: bool) -> None:
    """Answer visitors until the process is stopped."""
    _, url, public = page.launch(
        prevent_thread_lock=True,
        quiet=True,
        server_name=host,
        server_port=port,
        share=share,
        max_file_size=MOST_BYTES,
        show_error=False,
        enable_monitoring=False,
        run_history=False,
        mcp_server=False,
        pwa=False,
        ssr_mode=False,
        footer_links=[],
        state_session_capacity=MOST_VISITORS,
        theme=gr.themes.Soft(font=FONTS, font_mono=["ui-monospace", "monospace"]),
        css=STYLE,
        app_kwargs={"middleware": [Middleware(guarded, own_folder=offers.own_folder)]},
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what the page wrote is removed
    say(f"Open {public or url} in a browser. Ctrl-C ends the page.")
    page.block_thread()
