"""The report on generated structures: a page that opens with no network, and a printed summary.

`write` writes the folder; `sections` gathers the content of the page as plain data, from `figures`
(charts), `fingerprint_map`, `gallery` and `structure_table`; `page` renders it with the templates
in `templates/`. `charts` and `pictures` draw SVG, and `summary` prints.
"""
