"""python -m benchmarks: measure everything in one run and write benchmarks/results.csv and results.md."""

import argparse
import datetime
from pathlib import Path

import pandas as pd

from benchmarks import page, pairs, sampling, training
from benchmarks.measure import machine

FOLDER = Path(__file__).parent
PARTS = {"pairs": pairs.table, "training": training.table, "sampling": sampling.table, "page": page.table}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="(default: all of them)")
    parser.add_argument("--out", default=str(FOLDER / "results"), help="files without their endings")
    options = parser.parse_args()
    rows = []
    for part in options.parts:
        print(f"\n{part}", flush=True)
        found = PARTS[part]()
        print(pd.DataFrame(found)[["setting", "what", "figure", "unit"]].to_string(index=False, float_format=number))
        rows += found
    table = pd.DataFrame(rows)
    table.to_csv(f"{options.out}.csv", index=False, float_format="%.4g")
    Path(f"{options.out}.md").write_text(as_text(table), encoding="utf-8")


def number(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def cell(text: str) -> str:
    """Text for a Markdown table, where a bar would end the cell."""
    return text.replace("|", "\\|")


def as_text(table: pd.DataFrame) -> str:
    """The table as Markdown, with the machine above it."""
    facts = ", ".join(f"{name} {value}" for name, value in machine().items())
    lines = ["# Benchmarks", "", f"`python -m benchmarks`, {datetime.date.today()}: {facts}.", ""]
    for part, rows in table.groupby("part", sort=False):
        lines += [f"## {part}", "", "| setting | what | figure | unit |", "|---|---|---|---|"]
        lines += [
            f"| {cell(r['setting'])} | {cell(r['what'])} | {number(r['figure'])} | {r['unit']} |"
            for r in rows.to_dict("records")
        ] + [""]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
