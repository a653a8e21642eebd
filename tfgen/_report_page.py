"""The frame of the HTML report: its looks, its few lines of script, and the rule of no network."""

from __future__ import annotations

import base64
import hashlib
import html

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light dark; --bg: #fbfbfa; --card: #ffffff; --ink: #1d2329; --soft: #5a6570;
  --line: #dfe3e7; --accent: #1f6fb2; --good: #1e7a4c; --bad: #b3261e; --stripe: #f4f6f7; }
@media (prefers-color-scheme: dark) {
  :root { --bg: #14181c; --card: #1b2025; --ink: #e4e8ec; --soft: #9aa6b2; --line: #313941;
    --accent: #6cb2ee; --good: #62c795; --bad: #f0867e; --stripe: #20262c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif; }
main, header, footer { max-width: 1180px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 40px; }
h1 { font-size: 2rem; line-height: 1.2; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 1.3rem; margin: 48px 0 8px; letter-spacing: -0.005em; }
p { margin: 8px 0; max-width: 78ch; }
.soft, figcaption, caption { color: var(--soft); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin: 24px 0 0; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.card dt { color: var(--soft); font-size: 0.85rem; }
.card dd { margin: 2px 0 0; font-size: 1.6rem; font-weight: 650;
  font-variant-numeric: tabular-nums; }
.card small { display: block; color: var(--soft); font-size: 0.8rem; font-weight: 400; }
.wide { overflow-x: auto; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; margin: 12px 0; }
.tall { max-height: 640px; overflow-y: auto; }
table { border-collapse: collapse; width: 100%; font-size: 0.9rem;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 10px 12px 4px; font-size: 0.85rem; }
th, td { padding: 6px 9px; text-align: right; white-space: nowrap; }
td.status { white-space: normal; min-width: 12em; }
th { font-weight: 600; } thead th { border-bottom: 1px solid var(--line); }
.tall thead { position: sticky; top: 0; background: var(--card); z-index: 1; }
th.group { text-align: center; color: var(--soft); font-weight: 500; }
.text { text-align: left; }
tbody tr:nth-child(even) { background: var(--stripe); }
th button { all: unset; cursor: pointer; font-weight: 600; }
th button:hover, th button:focus-visible { color: var(--accent); text-decoration: underline; }
th[aria-sort=ascending] button::after { content: " \\2191"; }
th[aria-sort=descending] button::after { content: " \\2193"; }
.yes { color: var(--good); } .no { color: var(--bad); font-weight: 600; }
figure { margin: 12px 0; background: var(--card); border: 1px solid var(--line);
  border-radius: 10px; padding: 14px 16px 10px; }
figcaption { font-size: 0.87rem; margin-top: 6px; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 340px), 1fr));
  gap: 12px; }
.pair figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg.chart { stroke-linejoin: round; margin: 0 auto; }
svg text { font-family: inherit !important; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(165px, 1fr)); gap: 12px; }
.gallery figure { margin: 0; padding: 12px; }
.gallery figcaption { font-size: 0.8rem; line-height: 1.35; font-variant-numeric: tabular-nums;
  overflow-wrap: anywhere; }
.gallery svg { width: 132px; max-width: 100%; margin: 0 auto; }
.atom { stroke: #00000066; stroke-width: 0.04; } .fog { fill: var(--card); }
dl.plain { display: grid; grid-template-columns: max-content 1fr; gap: 4px 20px; margin: 12px 0;
  font-size: 0.93rem; }
dl.plain dt { color: var(--soft); } dl.plain dd { margin: 0; overflow-wrap: anywhere; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 12px;
  overflow-x: auto; font-size: 0.82rem; }
footer { margin-top: 56px; padding-bottom: 48px; font-size: 0.93rem; }
footer h2 { border-top: 1px solid var(--line); padding-top: 24px; }
"""

_SCRIPT = """
document.querySelectorAll("table.sortable").forEach((table) => {
  const body = table.tBodies[0];
  table.querySelectorAll("th button").forEach((button) => {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const down = head.getAttribute("aria-sort") === "ascending";
      table.querySelectorAll("th[aria-sort]").forEach((th) => th.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const column = Number(button.dataset.column);
      const key = (row) => row.cells[column].dataset.v;
      const rows = Array.from(body.rows);
      rows.sort((a, b) => {
        const x = key(a), y = key(b);
        if (x === "" || y === "") return (x === "") - (y === "");  // nothing comes last
        const order = button.dataset.kind === "number" ? x - y : x.localeCompare(y);
        return down ? -order : order;
      });
      body.append(...rows);
    });
  });
});
"""


def page(title: str, body: str) -> str:
    """Returns a whole HTML page that needs, and may use, nothing from anywhere else.

    The policy in its head lets a browser load nothing and run no script but our own, whatever a
    file from elsewhere has brought into the body.

    Args:
        title: plain text.
        body: HTML.
    """
    digest = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
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
<style>{_STYLE}</style>
</head>
<body>
{body}
<script>{_SCRIPT}</script>
</body>
</html>
"""
