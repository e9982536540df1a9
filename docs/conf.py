"""How `make docs` builds the site: Sphinx reads the Markdown pages beside this file. It needs no network."""

project = "vbench"
copyright = "the authors of vbench"  # noqa: A001 (Sphinx names it)
extensions = ["myst_parser"]
exclude_patterns = ["ci"]
suppress_warnings = ["misc.highlighting_failure"]  # a block of a TOML or YAML fragment is shown as it is

myst_heading_anchors = 3  # a heading can be linked to, as on GitHub
myst_enable_extensions = ["colon_fence"]

html_theme = "furo"
html_title = "vbench"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
smartquotes = False  # it would make one dash of the two of an option
