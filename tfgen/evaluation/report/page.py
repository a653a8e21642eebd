"""The frame of the HTML report: its looks, its script, and the rule of no network."""

from __future__ import annotations

import base64
import hashlib
import html
from importlib.resources import files

__all__ = ["page"]


def page(title: str, body: str) -> str:
    """Returns a whole HTML page that needs, and may use, nothing from anywhere else.

    The policy in its head lets a browser load nothing and run no script but our own, whatever a
    file from elsewhere has brought into the body.

    Args:
        title: plain text.
        body: HTML.
    """
    style, script = (
        files("tfgen").joinpath(f"_report_page.{kind}").read_text(encoding="utf-8")
        for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""
