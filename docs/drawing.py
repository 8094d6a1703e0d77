"""The one drawn picture of the method, as SVG text: what the paper's Figure 2 shows, in our own shapes.

    python docs/drawing.py        writes notebooks/images/method_00.svg to method_10.svg

There is one file for each notebook, with "you are here" at its part. A file brings its own background, light or dark
as the reader's system asks, so it reads well on any page. A test holds the files equal to what this script writes.
"""

import math
import random
import re
from collections.abc import Iterable
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "notebooks" / "images"
WIDTH, HEIGHT = 720, 592
TEXT, SMALL = 15.5, 12.5  # font sizes; at 700 pixels of width none is below 11
LETTERS = re.compile(r"(\^|_)\{([^}]*)\}")  # e^{t} and x_{T}

# light, dark. The three colours of items are Okabe and Ito's, as in the notebooks' figures.
COLOURS = {
    "page": ("#ffffff", "#14171c"),
    "panel": ("#f4f5f7", "#1f242c"),
    "edge": ("#c4c9d1", "#454d5a"),
    "ink": ("#1b1f24", "#e8eaee"),
    "soft": ("#5b6472", "#a7b0bd"),
    "here": ("#fff0c9", "#40330f"),
    "mark": ("#b25e00", "#f2b23e"),
    "onmark": ("#ffffff", "#14171c"),
    "blue": ("#0072b2", "#56b4e9"),
    "green": ("#009e73", "#2fc79b"),
    "pink": ("#cc79a7", "#e19ac2"),
}
ITEMS = ("blue", "green", "pink")

# notebook: its name, and what the last line of its picture says
SERIES = {
    0: ("start here", "the whole method, and a first recommendation"),
    1: ("item graph", "from visits to neighbours, without the test answers"),
    2: ("graph auto-encoder", "from neighbours to vectors and similarities"),
    3: ("diffusion training", "a network learns to undo noise, E learns from Z^{*}"),
    4: ("skip-step sampling", "from noise to a vector in S of T steps"),
    5: ("compensator", "a network of its own takes the last step"),
    6: ("results", "how good are the lists, and which claims hold?"),
    7: ("fast and large", "all pairs of items and all scores are costly"),
    8: ("beyond the paper", "embeddings, loss and scores of our own"),
    9: ("the cloud", "many draws are a distribution over the items"),
    10: ("when does it work?", "what the visits are like decides which method leads"),
}


# ---- elements -------------------------------------------------------------------------------------


def number(value: float) -> str:
    """At most one decimal, so that two machines write the same text."""
    return f"{round(value, 1) + 0:g}"


def element(name: str, content: str = "", **attributes: float | str) -> str:
    """One SVG element; `class_` is its class, other underscores become hyphens."""
    words = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{value if isinstance(value, str) else number(value)}"'
        for key, value in attributes.items()
    )
    return f"<{name}{words}>{content}</{name}>" if content else f"<{name}{words}/>"


def text(x: float, y: float, words: str, class_: str = "soft", size: float = TEXT, anchor: str = "middle") -> str:
    """Words with e^{t} raised and x_{T} lowered."""
    parts, at, back = [], 0, 0.0
    for found in LETTERS.finditer(words):
        parts.append(_span(words[at : found.start()], back))
        shift = -0.38 * size if found[1] == "^" else 0.25 * size
        parts.append(_span(found[2], shift + back, SMALL))
        at, back = found.end(), -shift
    parts.append(_span(words[at:], back))
    return element("text", "".join(parts), x=x, y=y, class_=class_, font_size=size, text_anchor=anchor)


def _span(words: str, shift: float, size: float | None = None) -> str:
    if not words or (not shift and size is None):
        return words
    sized: dict[str, float | str] = {} if size is None else {"font_size": size}
    return element("tspan", words, dy=shift, **sized)


def dot(x: float, y: float, colour: str, radius: float = 6.5, **more: float | str) -> str:
    return element("circle", cx=x, cy=y, r=radius, class_=colour, **more)


def line(points: Iterable[tuple[float, float]], class_: str = "line", **more: float | str) -> str:
    return element("path", d="M" + "L".join(f"{number(x)} {number(y)}" for x, y in points), class_=class_, **more)


def arrow(*points: tuple[float, float], class_: str = "arrow") -> str:
    return line(points, class_)


def box(x: float, y: float, width: float, height: float, class_: str, radius: float = 8) -> str:
    return element("rect", x=x, y=y, width=width, height=height, rx=radius, class_=class_)


# ---- pictograms -----------------------------------------------------------------------------------

VISITS = ((0, 0, 1, 0), (1, 2, 1), (2, 2, 0, 2))  # whose colours three people's places have
NODES = (
    (0, 0.0, 0.25),
    (0, 0.36, 0.0),
    (0, 0.30, 0.60),
    (1, 0.68, 0.28),
    (1, 1.0, 0.04),
    (2, 0.62, 1.0),
    (2, 1.0, 0.72),
)
EDGES = ((0, 1), (0, 2), (1, 2), (1, 3), (3, 4), (2, 3), (2, 5), (5, 6), (3, 6))


def visits(x: float, y: float) -> str:
    """Three sequences of places."""
    rows = []
    for row, places in enumerate(VISITS):
        at = [(x + 25 * n, y + 28 * row) for n in range(len(places))]
        rows.append(line(at))
        rows += [dot(*place, ITEMS[kind]) for place, kind in zip(at, places, strict=True)]
    return "".join(rows)


def graph(x: float, y: float, width: float, height: float) -> str:
    """Seven items and the lines between neighbours."""
    at = [(x + width * right, y + height * down) for _, right, down in NODES]
    return "".join(line((at[i], at[j])) for i, j in EDGES) + "".join(
        dot(*place, ITEMS[node[0]]) for place, node in zip(at, NODES, strict=True)
    )


def heatmap(x: float, y: float, cell: float, blur: float) -> str:
    """Similarities of seven items of three kinds; blur: how much the kinds run into each other."""
    kinds = [kind for kind, *_ in NODES]
    chance = random.Random(5)
    found = [box(x - 3, y - 3, 7 * cell + 6, 7 * cell + 6, "frame", 4)]
    noise = [[chance.random() for _ in kinds] for _ in kinds]
    for i, one in enumerate(kinds):
        for j, other in enumerate(kinds):
            shade = 1.0 if i == j else 0.75 if one == other else 0.16 if abs(one - other) == 2 else 0.3
            shade += blur * (noise[min(i, j)][max(i, j)] - 0.5)
            cell_box = {"x": x + cell * j, "y": y + cell * i, "width": cell - 1, "height": cell - 1}
            found.append(element("rect", **cell_box, class_="blue", opacity=f"{min(max(shade, 0.06), 1):.2f}"))
    return "".join(found)


def encoder(x: float, y: float, width: float, height: float) -> str:
    """Two graph layers: a funnel, each layer a row of small circles joined by lines."""
    corners = f"{number(x)},{number(y)} {number(x + width)},{number(y + height * 0.24)} "
    corners += f"{number(x + width)},{number(y + height * 0.76)} {number(x)},{number(y + height)}"
    funnel = element("polygon", points=corners, class_="tool")
    return funnel + network(x + 10, y + 8, width - 20, height - 16, (5, 4, 3))


def network(x: float, y: float, width: float, height: float, layers: tuple[int, ...]) -> str:
    """Layers of small circles, each joined to all of the next."""
    tall = max(layers)
    at = [
        [(x + width * n / (len(layers) - 1), y + height * (0.5 + (m - (size - 1) / 2) / tall)) for m in range(size)]
        for n, size in enumerate(layers)
    ]
    wires = [line((a, b), "thin") for left, right in zip(at[:-1], at[1:], strict=True) for a in left for b in right]
    return "".join(wires) + "".join(dot(*place, "ink", 2.6) for layer in at for place in layer)


def attention(x: float, y: float, width: float) -> str:
    """Four items, and the same four below, each of which looks at all above; thicker lines weigh more."""
    at = [(x + width * n / 3, y) for n in range(4)]
    below = [(x + width * n / 3, y + 46) for n in range(4)]
    weights = ((3, 1, 1, 1), (1, 3, 2, 1), (2, 1, 3, 1), (1, 2, 1, 3))
    wires = [
        line((a, b), "weight", stroke_width=0.8 * w)
        for b, row in zip(below, weights, strict=True)
        for a, w in zip(at, row, strict=True)
    ]
    kinds = zip((*at, *below), VISITS[0] * 2, strict=True)
    return "".join(wires) + "".join(dot(*place, ITEMS[kind], 5) for place, kind in kinds)


def vector(x: float, y: float, shades: tuple[float, ...]) -> str:
    """A column of numbers."""
    cells = [
        element("rect", x=x, y=y + 13 * n, width=15, height=12, class_="ink", opacity=f"{shade:.2f}")
        for n, shade in enumerate(shades)
    ]
    return box(x - 3, y - 3, 21, 13 * len(shades) + 5, "frame", 4) + "".join(cells)


def cloud(x: float, y: float, radius: float, seed: int, count: int = 26) -> str:
    """Draws around a place, the more of them blue the nearer they are to one another: noise that becomes an item."""
    chance = random.Random(seed)
    found = []
    for _ in range(count):
        angle, far = 2 * math.pi * chance.random(), radius * math.sqrt(chance.random())
        colour = "blue" if chance.random() > radius / 24 else "soft"
        found.append(dot(x + far * math.cos(angle), y + far * math.sin(angle), colour, 1.7))
    return "".join(found)


def chain(x: float, y: float, width: float) -> str:
    """From noise to nearly an item in four jumps, over a ruler of T ticks."""
    stops = ((0.0, 26), (0.34, 19), (0.62, 12), (0.83, 6), (1.0, 2.5))
    ticks = [line(((x + width * n / 30, y + 39), (x + width * n / 30, y + 44)), "thin") for n in range(31)]
    taken = [line(((x + width * at, y + 35), (x + width * at, y + 47)), "taken") for at, _ in stops]
    clouds = [cloud(x + width * at, y, radius, 3 + n, 34 - 6 * n) for n, (at, radius) in enumerate(stops)]
    hops = []
    for (a, ra), (b, rb) in zip(stops[:-1], stops[1:], strict=True):
        start, top, end = (a * width + 3, -ra - 2), ((a + b) / 2 * width, -max(ra, rb) - 16), (b * width - 2, -rb - 5)
        way = [f"{number(x + right)} {number(y + down)}" for right, down in (start, top, end)]
        hops.append(element("path", d=f"M{way[0]}Q{way[1]} {way[2]}", class_="arrow"))
    return "".join(ticks + taken + clouds + hops)


def ranking(x: float, y: float, width: float) -> str:
    """A list of items, the best match first."""
    rows = []
    for place, (kind, share) in enumerate(((0, 1.0), (0, 0.84), (1, 0.62), (2, 0.45))):
        down = y + 23 * place
        rows.append(text(x, down + 5.5, f"{place + 1}", "soft", TEXT, "start"))
        rows.append(dot(x + 24, down, ITEMS[kind]))
        rows.append(element("rect", x=x + 38, y=down - 5, width=(width - 38) * share, height=10, rx=3, class_="soft"))
    return "".join(rows)


# ---- the picture ----------------------------------------------------------------------------------

# x, y, width, height, and how far along the upper edge "you are here" sits
PANELS = {
    1: (16, 30, 334, 152, 196),
    2: (376, 30, 328, 152, 190),
    3: (16, 214, 688, 162, 310),
    4: (16, 408, 300, 144, 70),
    5: (336, 408, 170, 144, 48),
    6: (526, 408, 178, 144, 30),
}
TITLES = {
    1: "item graph",
    2: "graph auto-encoder",
    3: "diffusion training",
    4: "skip-step sampling",
    5: "compensator",
    6: "ranked items",
}
# what a notebook is about: panels, and for 07 and 08 also parts of others: x, y, width, height
ABOUT = {n: (n,) for n in PANELS} | {7: (6,), 8: (6,), 9: (4, 6), 10: (1, 6)}
PARTS = {7: ((570, 60, 128, 119), (570, 241, 128, 131)), 8: ((570, 241, 128, 131), (246, 241, 98, 131))}


def panel(notebook: int, here: int) -> str:
    x, y, width, height, _ = PANELS[notebook]
    marked = notebook in ABOUT.get(here, ())
    title = element("tspan", f"{notebook:02d}", class_="mark" if marked else "soft") + f" {TITLES[notebook]}"
    frame = box(x, y, width, height, "panel here" if marked else "panel", 10)
    return frame + element("text", title, x=x + 14, y=y + 25, class_="ink", font_size=TEXT + 0.5, font_weight="bold")


def tag(x: float, y: float) -> str:
    """The label "you are here", centred on the line y."""
    return box(x, y - 12, 118, 24, "tag", 12) + text(x + 59, y + 5.2, "you are here", "onmark", TEXT - 0.5)


def flow() -> str:
    """Everything inside the panels, and the arrows between them."""
    up, middle, low = 106, 294, 482  # the heights on which things stand
    return "".join(
        [
            # 01: visits -> neighbours
            visits(42, up - 28),
            text(78, 172, "visits"),
            arrow((142, up), (186, up)),
            graph(206, 72, 124, 70),
            text(268, 172, "neighbours"),
            # 02: neighbours -> two layers -> Z*
            arrow((336, up), (398, up)),
            encoder(406, up - 40, 80, 80),
            text(446, 172, "two layers"),
            arrow((492, up), (584, up)),
            text(536, up - 9, "Z^{*}", "ink"),
            heatmap(592, 66, 12.5, 0.1),
            text(636, 172, "similarity of Z^{*}"),
            # from row to row
            arrow((78, 182), (78, 212)),
            text(90, 203, "one person", anchor="start"),
            arrow((637, 181), (637, 243), class_="both"),
            text(628, 203, "AIME holds E to Z^{*}", "ink", anchor="end"),
            # 03: history -> attention -> h -> f <- noise <- e^0 <- E
            line(((36, middle), (96, middle))),
            *(dot(36 + 20 * n, middle, ITEMS[kind]) for n, kind in enumerate(VISITS[0])),
            text(66, 364, "history"),
            arrow((106, middle), (124, middle)),
            attention(134, middle - 23, 54),
            text(161, 364, "attention"),
            arrow((196, middle), (211, middle)),
            vector(218, middle - 32, (0.8, 0.3, 0.55, 0.15, 0.7)),
            text(225, middle - 42, "h", "ink"),
            arrow((238, middle), (252, middle)),
            box(256, middle - 36, 78, 72, "tool"),
            network(268, middle - 30, 54, 60, (4, 3, 4)),
            text(295, 364, "denoiser f"),
            arrow((410, middle), (340, middle)),
            cloud(436, middle, 21, 4, 40),
            text(436, 364, "e^{t}", "ink"),
            arrow((532, middle), (464, middle)),
            text(498, middle + 22, "+ noise"),
            dot(543, middle, "blue", 6.5),
            text(543, 364, "e^{0}", "ink"),
            arrow((586, middle), (554, middle)),
            heatmap(592, 248, 12.5, 0.45),
            text(636, 364, "embeddings E"),
            element("path", d=f"M295 {middle - 38}C300 {middle - 74} 528 {middle - 74} 541 283", class_="arrow dashed"),
            text(416, middle - 32, "learns to predict"),
            # from training to use
            arrow((295, 371), (295, 408)),
            text(303, 387, "f", "ink", anchor="start"),
            line(((232, 391), (345, 391)), "halo"),
            arrow((225, 327), (225, 408)),
            arrow((225, 391), (355, 391), (355, 408)),
            text(216, 397, "h", "ink", anchor="end"),
            # 04: x_T -> jumps -> e^tau_1
            chain(54, low - 8, 236),
            text(54, 542, "x_{T}", "ink"),
            text(172, 542, "S of T steps"),
            text(290, 542, "e^{τ₁}", "ink"),
            # 05 and 06
            arrow((298, low - 8), (364, low - 8)),
            box(370, low - 40, 78, 64, "tool"),
            network(382, low - 34, 54, 52, (4, 3, 4)),
            text(409, 542, "c(e^{τ₁}, h)"),
            arrow((452, low - 8), (466, low - 8)),
            dot(476, low - 8, "blue"),
            text(476, 542, "ê^{0}", "ink"),
            arrow((486, low - 8), (540, low - 8)),
            ranking(550, low - 32, 138),
        ]
    )


RULES = (
    (".page", "fill", "page"),
    (".panel", "fill", "panel"),
    (".panel", "stroke", "edge"),
    (".tool,.frame", "fill", "page"),
    (".here,.part", "fill", "here"),
    (".here,.part,.outer,.taken", "stroke", "mark"),
    (".tag", "fill", "mark"),
    (".line,.thin,.weight,.tool,.frame", "stroke", "soft"),
    (".arrow,.both", "stroke", "ink"),
    (".halo", "stroke", "page"),
    *((f".{name}", "fill", name) for name in ("ink", "soft", "mark", "onmark", *ITEMS)),
)
SHAPES = (
    "text{font-family:system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}",
    ".line,.thin,.weight,.taken,.arrow,.both,.halo,.outer{fill:none}",
    ".panel,.tool{stroke-width:1.3}",
    ".here,.part,.outer,.taken{stroke-width:3}",
    ".line,.arrow,.both{stroke-width:1.8}",
    ".thin{stroke-width:.7}",
    ".weight{opacity:.75}",
    ".halo{stroke-width:7}",
    ".dashed{stroke-dasharray:5 4}",
    ".arrow,.both{marker-end:url(#tip)}",
    ".both{marker-start:url(#tip)}",
)


def style() -> str:
    """Light, and dark where the reader's system asks for it."""
    light, dark = (
        "\n".join(f"{where}{{{what}:{COLOURS[name][which]}}}" for where, what, name in RULES) for which in (0, 1)
    )
    shapes = "\n".join(SHAPES)
    return element("style", f"\n{light}\n{shapes}\n@media (prefers-color-scheme:dark){{\n{dark}\n}}\n")


def picture(here: int) -> str:
    """The whole SVG file for one notebook."""
    name, says = SERIES[here]
    tip = element("path", d="M0 0 9 4.5 0 9z", class_="ink")
    place = {"viewBox": "0 0 9 9", "refX": 7.5, "refY": 4.5, "markerWidth": 5.5, "markerHeight": 5.5}
    tip = element("marker", tip, id="tip", **place, orient="auto-start-reverse")
    marks = [box(*part, "part", 8) for part in PARTS.get(here, ())]
    if here == 0:
        marks.append(box(6, 16, WIDTH - 12, HEIGHT - 50, "outer", 14))
    x, y, _, _, along = PANELS[ABOUT[here][0]] if here else (0, 20, 0, 0, 301)
    body = [
        element("title", f"DAE4Rec in one picture; you are here: {here:02d} {name}"),
        element("desc", DESCRIPTION + f" Marked here: {MARKED[here]}."),
        style(),
        element("defs", tip),
        box(0, 0, WIDTH, HEIGHT, "page", 12),
        *(panel(n, here) for n in PANELS),
        *marks,
        flow(),
        tag(x + along, y - 4),
        text(WIDTH / 2, HEIGHT - 14, f"{here:02d} {name}: {says}", "ink"),
    ]
    size = {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "width": WIDTH, "height": HEIGHT}
    return element("svg", "\n" + "\n".join(body) + "\n", xmlns="http://www.w3.org/2000/svg", **size, role="img") + "\n"


DESCRIPTION = (
    "Three rows, read from left to right. First row: people's visits become an item graph, in which places visited one "
    "after the other are neighbours (notebook 01); a graph auto-encoder of two layers turns it into vectors Z* and a "
    "matrix of similarities (02). Second row, training (03): attention turns one person's history into the condition "
    "h; the vector e^0 of the next item, taken from the embeddings E, gets noise and becomes e^t; the denoiser f sees "
    "e^t and h and learns to predict e^0, while AIME holds the similarities of E to those of Z*. Third row, use: from "
    "noise x_T, f and h lead in all but the last of S steps to e^tau_1 (04); the compensator c takes the last one, to "
    "e^0 hat (05), "
    "whose inner products rank the items (06)."
)
MARKED = {
    0: "the whole picture",
    **{n: f"the part {n:02d}, {title}" for n, title in TITLES.items()},
    7: "both matrices of similarities and the ranked items",
    8: "the embeddings E, the denoiser f and the ranked items",
    9: "skip-step sampling and the ranked items",
    10: "the item graph and the ranked items",
}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for here in SERIES:
        (FOLDER / f"method_{here:02d}.svg").write_text(picture(here), encoding="utf-8", newline="\n")


if __name__ == "__main__":
    main()
