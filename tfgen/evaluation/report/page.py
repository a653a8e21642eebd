"""The frame of the report's page: its looks, its script, and the rule of no network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["render_page"]


def render_page(content: Mapping[str, Any]) -> str:
    """Renders the templates to an HTML page that needs, and may use, nothing from anywhere else.

    Whatever is put in is escaped, unless a template says otherwise: drawings, the style sheet and
    the script. The policy in the page's head lets a browser load nothing and run no script but our
    own, whatever a file from elsewhere has brought into the content.

    Args:
        content: what `templates/page.html` and the templates that it includes name.
    """
    environment = Environment(
        loader=PackageLoader("tfgen.evaluation.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # As the data block is written by the filter `tojson`, which escapes what could end the block.
    environment.policies["json.dumps_kwargs"] = {
        "ensure_ascii": False, "allow_nan": False, "separators": (",", ":")
    }  # fmt: skip
    style, script = (
        files("tfgen.evaluation.report").joinpath(f"page.{kind}").read_text(encoding="utf-8")
        for kind in ("css", "js")
    )
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )
    template = environment.get_template("page.html")
    return template.render(content, policy=policy, style=style, script=script)
