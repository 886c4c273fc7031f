"""Pieces of the page's HTML: prose, sections, figures with their numbers and downloads, tables that scroll."""

from collections.abc import Sequence
from html import escape

from dft_search.report.figures.svg import Figure


def prose(text: str) -> str:
    """Escaped text in which a number stays on the line of its percent sign, or of what it is the value of."""
    return escape(text).replace(" %", "&nbsp;%").replace("p = ", "p&nbsp;=&nbsp;")


def section(key: str, title: str, content: str) -> tuple[str, str, str]:
    """Its id, its title, and the section under a heading of its own."""
    return key, title, f'<section aria-labelledby="{key}"><h2 id="{key}">{escape(title)}</h2>{content}</section>'


def scrolling(label: str, table: str, *, tall: bool = False) -> str:
    """A table that may be wider than the page, or too tall for it: it scrolls for itself, with the keyboard as well."""
    kind = "scroll tall" if tall else "scroll"
    return f'<div class="{kind}" tabindex="0" role="region" aria-label="{escape(label)}">{table}</div>'


def figures_html(figures: Sequence[Figure | None], otherwise: str, *, opened: bool = False) -> str:
    """Figures side by side where there is room, one alone with its text beside it; `otherwise` when there is none."""
    shown = [figure for figure in figures if figure is not None]
    if not shown:
        return f"<p>{escape(otherwise)}</p>"
    kind = "figures" if len(shown) > 1 else "figures solo"
    return f'<div class="{kind}">{"".join(figure_html(figure, opened) for figure in shown)}</div>'


def figure_html(figure: Figure, opened: bool) -> str:
    """A figure with its title, drawing, controls, caption, numbers and downloads."""
    key = f"figure-{figure.name}"
    numbers = ""
    if figure.rows:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in figure.head)
        rows = "".join(f"<tr>{_cells(row)}</tr>" for row in figure.rows)
        caption = f'<caption class="unseen">Numbers of the figure: {escape(figure.title)}</caption>'
        table = f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>"
        numbers = (
            f"<details{' open' if opened else ''}><summary>Numbers</summary>"
            f"{scrolling(f'Numbers of the figure {figure.title}', table)}</details>"
        )
    return (
        f'<figure id="{key}" data-name="{figure.name}" data-source="{figure.source}" aria-labelledby="{key}-title">'
        f'<p class="title" id="{key}-title">{escape(figure.title)}</p><div class="drawing">{figure.drawing}</div>'
        f'<div class="about">{figure.controls}<figcaption>{prose(figure.caption)}</figcaption>'
        f"{downloads(figure.title, ('SVG', 'PNG', 'CSV', 'JSON'))}{numbers}</div></figure>"
    )


def _cells(row: Sequence[str]) -> str:
    rest = "".join(f"<td>{escape(cell)}</td>" for cell in row[1:])
    return f'<th scope="row">{escape(row[0])}</th>{rest}'


def downloads(title: str, kinds: Sequence[str]) -> str:
    """Buttons that the page's script shows and serves: without it there is nothing to press."""
    buttons = "".join(
        f'<button type="button" data-save="{kind.lower()}" aria-label="Save {escape(title)} as {kind}">{kind}</button>'
        for kind in kinds
    )
    return f'<p class="saves" hidden>Save as {buttons}</p>'
