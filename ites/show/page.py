"""Self-contained HTML pages, and graphs of curves in them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from importlib import resources
from itertools import cycle
from typing import Any

from ites import __version__
from ites.errors import ItesError


def page(title: str, body: str, *scripts: str) -> str:
    """One self-contained HTML page.

    Args:
        title: plain text.
        body: HTML.
        scripts: JavaScript, run before the body.
    """
    tags = "".join(f"<script>{script}</script>\n" for script in scripts)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="ites {__version__}">
<link rel="icon" href="data:,">
<title>{html.escape(title)}</title>
<style>{asset("page.css")}</style>
{tags}</head>
<body>
<h1>{html.escape(title)}</h1>
{body}
</body>
</html>
"""


def line_graph(
    title: str,
    x: Sequence[float],
    curves: Mapping[str, Sequence[float]],
    unit: str,
    colours: Sequence[str],
    *,
    logarithmic: bool = False,
) -> str:
    """The HTML of a graph of curves over training steps, for the body of a `page`.

    Args:
        title: of the graph.
        x: steps.
        curves: values at these steps, by name.
        unit: of the values; the axis label.
        colours: of the curves, in order.
        logarithmic: whether the value axis is logarithmic.
    """
    graphs = load_plotly().graph_objects
    lines = [
        graphs.Scatter(x=list(x), y=list(y), name=name, mode="lines", line={"color": c, "width": 2})
        for (name, y), c in zip(curves.items(), cycle(colours), strict=False)
    ]
    axis = {"gridcolor": "#edf0f3", "zeroline": False, "linecolor": "#dde3e9"}
    figure = graphs.Figure(lines)
    figure.update_layout(
        template="none",
        title={"text": title, "font": {"size": 15}, "x": 0.02},
        height=320,
        margin={"l": 64, "r": 12, "t": 56, "b": 44},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 1, "xanchor": "right"},
        xaxis={**axis, "title": {"text": "step"}, "rangemode": "tozero"},
        yaxis={**axis, "title": {"text": unit}, "type": "log" if logarithmic else "linear"},
        hovermode="x unified",
    )
    config = {"displaylogo": False, "responsive": True}
    return str(figure.to_html(config=config, include_plotlyjs=False, full_html=False))


def plotly_script() -> str:
    """The JavaScript of the installed Plotly, for offline figures."""
    return str(load_plotly().offline.get_plotlyjs())


def load_plotly() -> Any:
    """The package Plotly.

    Raises:
        ItesError: it is not installed.
    """
    try:
        import plotly.graph_objects
        import plotly.offline
    except ImportError:
        raise ItesError("pages need Plotly: pip install 'ites[view]'") from None
    return plotly


def asset(name: str) -> str:
    """The text of a file of ites/show/assets."""
    return (resources.files("ites.show") / "assets" / name).read_text(encoding="utf-8")
