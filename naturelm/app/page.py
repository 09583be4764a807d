"""The page: two tabs, or *Ask* alone where there are no results."""

from __future__ import annotations

import gradio as gr

from naturelm.app.ask import Asker
from naturelm.app.ask_tab import build_ask_tab
from naturelm.app.explore import Results
from naturelm.app.explore_tab import build_explore_tab
from naturelm.tables.player import templates

# Uploads and what was made for a visitor go after a day; the check runs every hour.
_DELETE_CACHE_S = (3600, 86400)


def build_page(asker: Asker, results: Results | None = None) -> gr.Blocks:
    """Build the page.

    Parameters
    ----------
    asker : Asker
        Answers in the *Ask* tab.
    results : Results, optional
        What the *Explore* tab shows; without it there is no such tab.
    """
    head = templates().get_template("head.html.j2")
    with gr.Blocks(title="naturelm", analytics_enabled=False, delete_cache=_DELETE_CACHE_S) as page:
        gr.HTML(head.render(model=asker.model_name, results=results and results.directory.resolve().name))
        with gr.Tabs(selected="explore" if results else "ask"):
            with gr.Tab("Ask", id="ask"):
                build_ask_tab(asker)
            if results is not None:
                with gr.Tab("Explore", id="explore"):
                    build_explore_tab(results, page)
    return page


def theme() -> gr.themes.ThemeClass:
    """Fonts of the visitor's own system: the page requests nothing from other hosts."""
    return gr.themes.Base(
        primary_hue=gr.themes.colors.emerald,
        neutral_hue=gr.themes.colors.stone,
        font=["system-ui", "Segoe UI", "Noto Sans", "sans-serif"],
        font_mono=["ui-monospace", "Consolas", "monospace"],
        radius_size=gr.themes.sizes.radius_md,
    ).set(  # contrast of at least 4.5 : 1
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        slider_color="*primary_700",
    )


def css() -> str:
    """Style of what the package adds to Gradio's own."""
    return "\n".join(templates().get_template(name).render() for name in ("player.css", "app.css"))
