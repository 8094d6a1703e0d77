"""Sliders: ready-made pictures swapped in the browser, which stay alive without a kernel."""

import base64

import ipywidgets
from IPython.display import display


def picture_slider(pictures: list[bytes], labels: list, name: str, alt: str, start: int = 0, width: int = 700) -> None:
    """A slider over PNG pictures, one for each label; arrow keys move it too.

    pictures: PNG bytes (see `plots.png`). labels: what the slider reads at each. alt: a text for who can't see it.
    Where widgets are not shown (on GitHub, in print), the picture at `start` stands in.
    Raises ValueError when there is not one picture for each label.
    """
    if not pictures or len(pictures) != len(labels):
        raise ValueError(
            f"{name} has {len(pictures)} pictures for {len(labels)} labels; give one for each, at least one."
        )
    images = [
        ipywidgets.Image(value=p, format="png", layout=ipywidgets.Layout(width=f"{width}px", max_width="100%"))
        for p in pictures
    ]
    stack = ipywidgets.Stack(images, selected_index=start)
    slider = ipywidgets.SelectionSlider(
        options=[(str(label), n) for n, label in enumerate(labels)],
        index=start,
        description=name,
        continuous_update=True,
        layout=ipywidgets.Layout(width=f"{width}px", max_width="100%"),
    )
    ipywidgets.jslink((slider, "index"), (stack, "selected_index"))
    bundle = ipywidgets.VBox([slider, stack])._repr_mimebundle_()
    bundle["image/png"] = base64.b64encode(pictures[start]).decode()
    bundle["text/plain"] = f"slider {name}: {', '.join(map(str, labels))}"
    display(bundle, raw=True, metadata={"image/png": {"alt": alt}})
