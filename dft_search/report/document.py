"""What every page of this package begins with: an HTML head that asks nothing of any network."""

from html import escape
from importlib.resources import files


def head(title: str, *, style: str = "") -> str:
    """From the doctype to the end of the head, styles of pages and figures in it.

    Args:
        title: plain text.
        style: further CSS.
    """
    more = f"\n<style>{style}</style>" if style else ""
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>{resource("palette.css")}{resource("page.css")}</style>
<style id="figure-style">{resource("figure.css")}</style>{more}
</head>"""


def resource(name: str) -> str:
    """A file of the pages that lies beside this module."""
    return (files("dft_search.report") / name).read_text(encoding="utf-8")
