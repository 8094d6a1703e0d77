"""The static edition: `make site` builds docs/_build/html from the executed notebooks, without a kernel or internet."""

import shutil
import sys
from pathlib import Path

import anywidget
from sphinx.application import Sphinx

from dae4rec_core.views import page

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from licences import licences  # noqa: E402

project = "DAE4Rec: the paper you can run, see and move"
copyright = "the authors of this repository, MIT"
extensions = ["myst_nb"]
source_suffix = {".md": "myst-nb", ".ipynb": "myst-nb"}
root_doc = "docs/index"
include_patterns = ["docs/*.md", "notebooks/*.ipynb", "README.md", "benchmarks/results.md", "results/*.md"]
exclude_patterns = [
    "results/table.md",
    "docs/_build",
    "docs/node_modules",
    ".venv",
    ".venv-peers",
    "**/.ipynb_checkpoints",
]

html_theme = "furo"
html_title = "DAE4Rec"
html_theme_options = {"source_repository": "", "sidebar_hide_name": False}
html_show_sphinx = False
html_copy_source = False
html_show_search_summary = False  # it would fetch pages, which file:// forbids
html_show_sourcelink = False

nb_execution_mode = "off"  # the notebooks are committed executed, and strict nbval compares their outputs
nb_merge_streams = True
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 3
suppress_warnings = ["mystnb.mime_priority"]  # JSON beside the pictures of widgets

# what the browser runs comes from docs/node_modules (see package.json), copied so that no request leaves the page
vendor = HERE / "_build" / "vendor"
dist = HERE / "node_modules/@jupyter-widgets/html-manager/dist"
# embed-amd.js asks for its fonts under the names of its modules
for folder in (vendor, vendor / "@jupyter-widgets", vendor / "@jupyter-widgets/html-manager/dist"):
    folder.mkdir(parents=True, exist_ok=True)
    for path in dist.glob("*.woff2"):
        shutil.copy(path, folder)
for path in ("requirejs/require.js", "@jupyter-widgets/html-manager/dist/embed-amd.js", "mathjax/es5/tex-svg-full.js"):
    shutil.copy(HERE / "node_modules" / path, vendor)
shutil.copy(Path(anywidget.__file__).parent / "nbextension/index.js", vendor / "anywidget.js")
page.write_town(HERE.parent / "data/town", HERE.parent / "data/artifacts/town/checkpoint", vendor / "town.js")
shutil.copy(page.HERE / "page.css", vendor)
(vendor / "licences.txt").write_text(licences(), encoding="utf-8")  # linked from the home page
html_extra_path = ["_extra"]  # index.html at the root, which leads to the home page
html_static_path = ["_static", "_build/vendor"]
html_css_files = ["series.css", "page.css"]
html_js_files = ["mathjax-hub.js", "accessible.js"]
mathjax_path = "tex-svg-full.js"
# equations are read where they stand; as stops of the Tab key they stood between a reader and the sliders
mathjax3_config = {"options": {"menuOptions": {"settings": {"inTabOrder": False}}}}
# embed-amd.js, unlike embed.js, can load further widgets: anywidget's, which holds the model that runs in the page
nb_ipywidgets_js = {"require.js": {}, "widgets.js": {}, "embed-amd.js": {}}


def setup(app: Sphinx) -> None:
    """The town explorer's script on the home page alone, with its checksum behind its name, so no old one is kept."""

    def add(app: Sphinx, name: str, *_: object) -> None:
        if name == "docs/index":
            app.add_js_file("town.js", defer="defer")

    app.connect("html-page-context", add)
