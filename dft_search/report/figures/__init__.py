"""The report's figures: inline SVG built by hand, colored through the page's CSS variables."""
