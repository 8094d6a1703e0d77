"""What the explorers share: items' names, lists of items as a table, a text field."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence

import ipywidgets
import numpy as np

from dae4rec_core.data.dataset import Dataset

LISTED = 10  # items in every list


def field(name: str, value: str, options: list[str]) -> ipywidgets.Combobox:
    """A labelled text field that suggests `options` and takes anything."""
    return ipywidgets.Combobox(value=value, options=options, description=name, continuous_update=False)


def names_of(dataset: Dataset) -> list[str]:
    """What every item is called: `Dataset.label`, with the id behind a name that several items share."""
    labels = [dataset.label(item) for item in range(dataset.n_items)]
    times = Counter(labels)
    return [f"{name} ({dataset.item_ids[n]})" if times[name] > 1 else name for n, name in enumerate(labels)]


def ranking(
    columns: Mapping[str, Sequence[int] | np.ndarray], labels: Sequence[str], caption: str, mark: int | None = None
) -> str:
    """Lists of item indices side by side as an HTML table; the item `mark` is bold and says that it is the true one."""
    rows = max(map(len, columns.values()))
    style = 'style="padding:1px 14px 1px 0;text-align:left;font-weight:inherit"'

    def cell(items: Sequence[int] | np.ndarray, n: int) -> str:
        if n >= len(items):
            return f"<td {style}></td>"
        text = html.escape(labels[items[n]])
        return f"<td {style}>{f'<b>★ {text}</b>' if items[n] == mark else text}</td>"

    head = "".join(f'<th scope="col" {style}>{html.escape(name)}</th>' for name in columns)
    body = "".join(
        f'<tr><th scope="row" {style}>{n + 1}</th>{"".join(cell(items, n) for items in columns.values())}</tr>'
        for n in range(rows)
    )
    return (
        f'<div role="status" style="overflow-x:auto;line-height:1.5"><p>{html.escape(caption)}</p><table>'
        f'<thead style="font-weight:bold"><tr><th scope="col" {style}>rank</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
