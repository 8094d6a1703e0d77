"""The numbers in the model card, the data sheet and the reproduction are those of the files that they describe; so are
those which a notebook's prose has and none of its outputs shows."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from dae4rec_core import checkpoint
from dae4rec_core.cloud import probabilities
from dae4rec_core.config import Config
from dae4rec_core.data.dataset import prepare, training_graph
from dae4rec_core.data.properties import properties
from dae4rec_core.experiments.clouds import make_bench
from dae4rec_core.experiments.evaluation import mean_difference
from dae4rec_core.method import schedule
from dae4rec_core.streams import stream

ROOT = Path(__file__).parents[1]
TOWN = ROOT / "data/town"


def card(name: str) -> tuple[str, dict[str, str]]:
    """The text, and the cells of its tables by their first."""
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| (.+?) \|$", text, re.M)
    return text, dict(rows)


def test_the_data_sheet_counts_what_is_there():
    text, cells = card("datasheet.md")
    dataset, split = prepare(TOWN, Config())
    length = np.diff(dataset.offsets)
    first, _ = prepare(TOWN, Config().replace(repeats="first_visits"))
    counted = {
        "people": len(dataset.user_ids),
        "venues": dataset.n_items,
        "visits": len(dataset.items),
        "visits of a person, least": length.min(),
        "visits of a person, median": np.median(length),
        "visits of a person, most": length.max(),
        "first visits, after the 5-core": len(first.items),
        "people with first visits": len(first.user_ids),
    }
    for name, value in counted.items():
        assert int(cells[name].replace(",", "")) == value, name
    edges = len(training_graph(dataset, split).edges)
    assert f"{200 * edges / (dataset.n_items * (dataset.n_items - 1)):.1f}% of all pairs" in text
    assert f"{100 * properties(dataset, split)['negative eigenvalues']:.0f}% are negative" in text


def test_the_model_card_describes_the_checkpoint():
    text, cells = card("model-card.md")
    found = checkpoint.load(ROOT / "data/artifacts/town/checkpoint", "cpu")
    sizes = {sum(p.numel() for p in c.parameters()) for c in found.compensators.values()}
    config = found.model.config
    assert int(cells["parameters"].replace(",", "")) == sum(p.numel() for p in found.model.parameters())
    assert {int(cells["and of each compensator"].replace(",", ""))} == sizes
    assert cells["compensators for S of"] == ", ".join(map(str, sorted(found.compensators)))
    values = config.model.dim, config.diffusion.timesteps, config.sampling_steps, config.diffusion.delta
    assert cells["d, T, S, δ"] == ", ".join(f"{value:g}" for value in values)
    assert int(cells["newest visits that it sees"]) == config.data.max_len
    assert config.replace(seed=0) == Config()


@pytest.mark.parametrize("row, seeds", [("seed 0, this file", [0]), ("mean of three seeds", [0, 1, 2])])
def test_the_model_cards_figures_are_the_sweeps(row, seeds):
    text, _ = card("model-card.md")
    table = pd.read_csv(ROOT / "data/artifacts/town/steps.csv")
    model = table[(table["part"] == "test") & (table["method"] == "DAE4Rec") & table["seed"].isin(seeds)]
    wanted = (("1", "False"), ("10", "False"), ("10", "True"))
    found = [
        model[(model["S"].astype(str) == S) & (model["compensator"].astype(str) == c)]["HR@10"].mean()
        for S, c in wanted
    ]
    assert f"| {row} | " + " | ".join(f"{100 * value:.1f}" for value in found) + " |" in text


def test_the_model_cards_rivals_are_the_main_tables():
    text, _ = card("model-card.md")
    runs = pd.read_csv(ROOT / "results/runs.csv")
    runs = runs[
        (runs["study"] == "main") & (runs["data"] == "town") & (runs["filter"] == "raw") & (runs["part"] == "test")
    ]
    for words, method, variant in (
        ("popularity", "baselines", "popularity"),
        ("first-order transitions", "baselines", "first-order transitions"),
        ("item-kNN", "item-kNN", None),
        ("SASRec", "SASRec", None),
    ):
        rows = runs[(runs["method"] == method) & ((runs["variant"] == variant) if variant else True)]
        value = rows[rows["rules"] == rows["rules"].max()]["HR@10"].mean()
        assert f"{words} {100 * value:.1f}" in text, words


def test_the_reproductions_figures_are_those_of_the_runs():
    """Each verdict of the page, computed again: mean differences on test, in points of HR@10."""
    _, cells = card("reproduction.md")
    runs = pd.read_csv(ROOT / "results/runs.csv", na_values=[""], keep_default_na=False)
    latest = runs.groupby(["study", "data", "filter", "method", "variant"], dropna=False)["rules"].transform("max")
    runs = runs[(runs["rules"] == latest) & (runs["part"] == "test")]
    runs = runs.assign(column=runs["data"] + ", " + runs["filter"], points=100 * runs["HR@10"])

    def points(method, variant=None, study="main"):
        rows = runs[(runs["study"] == study) & (runs["method"] == method)]
        return rows[rows["variant"] == variant] if variant else rows

    full, plain = points("DAE4Rec", "S=10 + compensator"), points("DAE4Rec", "S=10")
    mean = full.groupby("column")["points"].mean()

    better = pd.read_csv(ROOT / "results/better_than.csv").query("method == 'DAE4Rec' and metric == 'HR@10'")
    behind = better[(better["rival"] == "SASRec") & (better["high"] < 0)]["difference"]
    span = f"by {-100 * behind.max():.0f} to {-100 * behind.min():.0f} points"
    assert f"behind on {len(behind)} of {len(mean)} columns, {span}" in cells["ahead of SASRec"]
    gain = mean - points("DreamRec's recipe").groupby("column")["points"].mean()
    assert f"on {(gain > 0).sum()} of {len(mean)} columns" in cells["ahead of DreamRec"]

    worth = 100 * mean_difference(*(rows.rename(columns={"column": "set"}) for rows in (full, plain)))
    sure = worth[worth["difference"] > worth["reach"]]["difference"]
    words = f"{sure.min():.1f} to {sure.max():.1f} points on {len(sure)} of {len(mean)} columns"
    assert words in cells["the compensator helps"]

    places = pd.read_csv(ROOT / "dae4rec_core/experiments/maps.csv", na_values=[""], keep_default_na=False)
    length = places.set_index(places["data"] + ", " + places["filter"])["history length"]
    real = worth["difference"][~worth.index.str.startswith("town")]
    words = f"rank correlation {real.corr(length[real.index], method='spearman'):.2f} over {len(real)} columns"
    assert words in cells["longer sequences need the compensator more"]

    ablated = {
        name: points(name, "S=10 + compensator", "table 3").groupby("column")["points"].mean()
        for name in ("-C", "-C_ground")
    }
    without = ablated["-C"]
    assert f"{without.min():.1f} to {without.max():.1f}, below popularity" in cells["AIME helps"]
    popular = points("baselines", "popularity").groupby("column")["points"].mean()
    assert (without < popular[without.index]).all()
    gain = (mean - ablated["-C_ground"]).dropna()
    assert f"by {gain.min():.0f} to {gain.max():.0f} points" in cells["$Z^*$ is a better target than the graph"]

    steps = points("T = 1000", study="figure 3")
    steps = steps[steps["variant"] != "Markov chain"].astype({"compensator": str})
    level = steps[steps["compensator"] == "True"].pivot_table("points", "S", "column")
    lost = 100 * (1 - level.loc[1] / level.loc[200])
    assert f"loses {lost.min():.1f} to {lost.max():.1f}%" in cells["with it they lose less than 4%"]
    steps = steps[steps["compensator"] == "False"].groupby(["column", "S"])["points"].mean().groupby("column")
    assert f"within {(steps.max() - steps.min()).max():.1f} points" in cells["few steps lose without it"]

    text, _ = card("reproduction.md")
    asked = [points("regression alone", variant, "controls") for variant in ("S=10 + compensator", "S=10")]
    asked += [full, plain, points("mean of samples", "mean of 16 samples", "beyond")]
    levels = [rows.groupby("column")["points"].mean() for rows in asked]
    alone, alone_plain, ours, ours_plain, mean_of_16 = (
        " and ".join(f"{level[column]:.1f}" for column in levels[0].index) for level in levels
    )
    assert f"has HR@10 {alone} with a compensator, where DAE4Rec has {ours}" in text
    assert f"it has {alone_plain}, DAE4Rec's single draw {ours_plain}, and its mean of 16 samples {mean_of_16}" in text
    sphere = points("-C, on the sphere", "S=10 + compensator", "collapse").groupby("column")["points"].mean()
    assert " and ".join(f"{share:.0f}%" for share in 100 * sphere / mean[sphere.index]) + " of DAE4Rec" in text


def prose(notebook: str) -> str:
    cells = json.loads((ROOT / "notebooks" / notebook).read_text(encoding="utf-8"))["cells"]
    return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


def test_what_06_says_of_the_printed_weight():
    printed = schedule.loss_weights("paper", schedule.make_alpha_bar("linear", 1000))[1:]
    words = f"{printed.mean():.0f} on average, with a median of {printed.median():.0f} and {printed.max():,.0f} at its"
    assert words in prose("06_results.ipynb")


def walked_once(folder: Path, repeats: str) -> str:
    """The share of the graph's edges, each way, that were walked once, as a percentage."""
    counts = training_graph(*prepare(folder, Config().replace(repeats=repeats))).counts.tocoo()
    return f"{100 * (counts.data[counts.row != counts.col] == 1).mean():.0f}%"


def test_what_02_says_of_the_towns_counts():
    assert f"walked once, in the town {walked_once(TOWN, 'keep')}" in prose("02_graph_autoencoder.ipynb")


@pytest.mark.real_data
def test_what_02_says_of_gowallas_counts(real_data):
    share = walked_once(real_data / "gowalla", "first_visits")
    assert f"{share} of the joined pairs were walked once" in prose("02_graph_autoencoder.ipynb")


def leaks_of_01() -> dict[str, list[str]]:
    """The table of notebook 01, the cells of a row by its first."""
    rows = re.findall(r"^\| (\w+, (?:raw|first visits)) \| (.+) \|$", prose("01_interaction_graph.ipynb"), re.M)
    return {place: cells.split(" | ") for place, cells in rows}


def test_what_01_says_of_a_leak():
    """From the runs: the same method with Z* from an honest graph, and from graphs that hold answers."""
    runs = pd.read_csv(ROOT / "results/runs.csv", na_values=[""], keep_default_na=False)
    runs = runs[(runs["variant"] == "S=10 + compensator") & (runs["part"] == "test")]
    runs = runs.assign(points=100 * runs["HR@10"], place=runs["data"] + ", " + runs["filter"])
    runs = runs.set_index(["study", "method"]).sort_index()
    places = pd.read_csv(ROOT / "dae4rec_core/experiments/maps.csv", na_values=[""], keep_default_na=False)
    density = places.set_index(places["data"] + ", " + places["filter"])["density"]
    ways = [("main", "DAE4Rec"), ("leak", "validation steps"), ("leak", "leaking graph")]
    honest, validation, leaking = (
        runs.loc[way].groupby("place")["points"].agg(["mean", "std", "count"]) for way in ways
    )
    assert (leaking["count"] == 3).all() and (validation["count"] == 3).all() and len(validation) == 2
    told = leaks_of_01()
    assert set(told) == set(leaking.index)
    for place, (joined, _, *cells) in told.items():
        assert joined == f"{density[place]:.1%}"
        for cell, by in zip(cells, (honest, validation, leaking), strict=True):
            assert cell == (f"{by['mean'][place]:.1f} ± {by['std'][place]:.1f}" if place in by.index else "–")

    gain = (leaking["mean"] - honest["mean"]).dropna().filter(regex="^(?!town)")
    span, share = f"{gain.min():.1f} to {gain.max():.1f} points", 100 * gain / honest["mean"][gain.index]
    more = f"{share.min():.0f} to {share.max():.0f}% more"
    assert f"worth {span}, {more}" in prose("01_interaction_graph.ipynb") and f"worth {span}" in prose(
        "06_results.ipynb"
    )
    assert f"gains {span} on first visits of three real sets" in card("reproduction.md")[0]
    assert f"gains {gain.min():.0f} to {gain.max():.0f} points" in (ROOT / "README.md").read_text(encoding="utf-8")


def edges_already(folder: Path, repeats: str) -> str:
    """The share of test answers that are joined to the item before them in the honest graph."""
    dataset, split = prepare(folder, Config().replace(repeats=repeats))
    edges = {tuple(edge) for edge in training_graph(dataset, split).edges.tolist()}
    pairs = np.sort(np.stack([dataset.items[split.test - 1], dataset.items[split.test]], axis=1), axis=1)
    return f"{100 * np.mean([tuple(pair) in edges for pair in pairs.tolist()]):.0f}%"


def test_answers_that_are_edges_before_any_leak_in_the_town():
    for name, repeats in (("raw", "keep"), ("first visits", "first_visits")):
        assert leaks_of_01()[f"town, {name}"][1] == edges_already(TOWN, repeats)


@pytest.mark.real_data
@pytest.mark.parametrize("data", ["gowalla", "retailrocket", "foursquare_us"])
def test_answers_that_are_edges_before_any_leak(real_data, data):
    assert leaks_of_01()[f"{data}, first visits"][1] == edges_already(real_data / data, "first_visits")


@pytest.mark.parametrize("notebook", ["03_diffusion_training.ipynb", "04_skip_step_sampling.ipynb"])
def test_what_03_and_04_say_of_positions(notebook):
    runs = pd.read_csv(ROOT / "results/runs.csv")
    runs = runs[(runs["study"] == "positions") & (runs["part"] == "test")]
    rows = runs.assign(points=100 * runs["HR@10"]).groupby("variant")["points"].agg(["mean", "std", "count"])
    assert (rows["count"] == 3).all()
    one, ten, every, mended = (rows.loc[name] for name in ("S=1", "S=10", "S=200", "S=10 + compensator"))
    if notebook.startswith("04"):
        said = [f"one, ten and 200 steps have {one['mean']:.1f}, {ten['mean']:.1f} and {every['mean']:.1f}"]
    else:
        said = [f"against {by['mean']:.1f} ± {by['std']:.1f}%" for by in (ten, every)]
        said += [f"{mended['mean']:.1f} ± {mended['std']:.1f}% without", f"{one['mean']:.1f}% either way"]
    assert [words for words in said if words not in prose(notebook)] == []


def test_what_04_says_of_positions_on_real_sets():
    runs = pd.read_csv(ROOT / "results/runs.csv")
    runs = runs[(runs["study"] == "departures") & (runs["part"] == "test") & (runs["variant"] == "S=10")]
    points = 100 * runs.groupby(["data", "method"])["HR@10"].mean()
    told = [
        points[data, method]
        for data in ("gowalla", "retailrocket")
        for method in ("reference", "reference - positions")
    ]
    words = "(gowalla {:.1f} with them and {:.1f} without, retailrocket {:.1f} and {:.1f},".format(*told)
    assert words in prose("04_skip_step_sampling.ipynb")


def test_what_the_reproduction_says_of_validation_steps():
    runs = pd.read_csv(ROOT / "results/runs.csv")
    runs = runs[
        (runs["variant"] == "S=10 + compensator") & (runs["part"] == "test") & (runs["filter"] == "first visits")
    ]
    points = 100 * runs.groupby(["study", "method", "data"])["HR@10"].mean()
    gain = points["leak", "validation steps"] - points["main", "DAE4Rec"]
    assert f"alone bring {gain['gowalla']:.1f} and {gain['retailrocket']:.1f} on two" in card("reproduction.md")[0]


def test_what_00_says_of_the_first_cloud():
    """Of the person whom the town explorer shows first."""
    dataset, split = prepare(TOWN, Config())
    bench = make_bench(TOWN, dataset, split, Config(), users=1)
    recommender = checkpoint.load(ROOT / "data/artifacts/town/checkpoint", "cpu")
    e_0 = recommender.draw(bench.test.history, draws=200, steps=10, generator=stream(0, "sampling"))
    places = (probabilities(recommender.model, bench.test.history, e_0, width=0) > 0).sum().item()
    mass = bench.law[0].sort(descending=True).values.cumsum(0)
    needed = (mass < 0.9).sum().item() + 1
    assert 10 <= places <= 16 and "fall on about a dozen places" in prose("00_start_here.ipynb")
    assert 90 <= needed < 100 and "nearly a hundred places for nine tenths" in prose("00_start_here.ipynb")


def interval(differences: pd.Series) -> tuple[float, float]:
    """Their mean, and how far Student's 95% interval reaches to both sides."""
    reach = stats.sem(differences) * stats.t.ppf(0.975, len(differences) - 1)
    return differences.mean(), reach


def clouds_of(method: str, kind: str, **values: float) -> pd.DataFrame:
    """Rows of the town in results/clouds.csv without a compensator, a row a seed."""
    table = pd.read_csv(ROOT / "results/clouds.csv", na_values=[""], keep_default_na=False)
    rows = table[(table["data"] == "town") & (table["method"] == method) & (table["kind"] == kind)]
    rows = rows[rows["compensator"].astype(str) != "True"]
    for name, value in values.items():
        rows = rows[rows[name] == value]
    return rows.set_index("seed")


def test_what_09_says_of_sums_and_lists():
    draws, softmax = clouds_of("DAE4Rec", "nearest", S=10, draws=300).mean(numeric_only=True), "DAE4Rec, softmax"
    popular, steps = clouds_of("popularity", "as it is").loc[0], clouds_of("first-order transitions", "as it is").loc[0]
    exact, read = (
        clouds_of("exact f of the law", "nearest", S=1).loc[0],
        clouds_of(softmax, "as it is").mean(numeric_only=True),
    )
    sums = "by category", "by district"
    (c, d), (c_0, d_0), (c_s, d_s) = ([row[name] for name in sums] for row in (draws, popular, read))
    many = clouds_of("DAE4Rec", "nearest", draws=2000)["HR@10"]
    bare = clouds_of("DAE4Rec posterior, softmax, without neighbours", "nearest", draws=300)["HR@10"].mean()
    one, ten = (clouds_of("DAE4Rec", "kernel", S=S, draws=300)["HR@10"] for S in (1, 10))
    gain, reach = interval(100 * (ten - one))
    told = [
        f"nearer than popularity ({d:.2f} against {d_0:.2f}), by category they are not ({c:.2f} against {c_0:.2f})",
        f"knows everything, has {exact['by category']:.2f} by category at $S = 1$",
        f"popularity ({c_s:.2f} and {c_0:.2f}) and by district about as near as transitions ({d_s:.2f} and "
        f"{steps['by district']:.2f})",
        f"leave DAE4Rec at {many.mean():.2f} ({many.min():.2f} to {many.max():.2f} by the seed)",
        f"without them have {bare:.2f}",
        f"by {100 * (ten - one).min():.1f} to {100 * (ten - one).max():.1f} points, which",
        f"({gain:.1f} ± {reach:.1f}, Student's 95%)",
    ]
    assert [words for words in told if words not in prose("09_the_cloud.ipynb")] == []


def test_what_09_says_of_draws_of_the_law():
    """Pooled over the seeds; from: the lower end of a bin of predicted probabilities."""
    bins = pd.read_csv(ROOT / "results/reliability.csv", na_values=[""], keep_default_na=False)
    bins = bins[
        (bins["data"] == "town") & (bins["kind"] == "nearest") & (bins["draws"] == 300) & (bins["from"] == 0.003)
    ]
    bins = bins[(bins["method"] == "the law") | ((bins["S"] == 10) & (bins["compensator"].astype(str) == "False"))]
    sums = bins.assign(said=bins["pairs"] * bins["predicted"], came=bins["pairs"] * bins["observed"])
    share = 100 * sums.groupby("method")[["said", "came"]].sum().div(sums.groupby("method")["pairs"].sum(), axis=0)
    law, posterior = (share.loc[name] for name in ("the law", "DAE4Rec posterior"))
    told = [
        f"say {law['said']:.2f}% where {law['came']:.2f}% came",
        f"no worse than that below 1% ({posterior['said']:.2f}% and {posterior['came']:.2f}%)",
    ]
    assert [words for words in told if words not in prose("09_the_cloud.ipynb")] == []


def test_what_07_and_08_say_of_differences_by_seed():
    runs = pd.read_csv(ROOT / "results/runs.csv", na_values=[""], keep_default_na=False)
    runs = runs[(runs["part"] == "test") & (runs["filter"] == "first visits")]
    runs = runs.set_index(["method", "variant", "data", "seed"]).sort_index()

    def gap(metric, data, one, other):
        return 100 * (runs[metric].loc[(*one, data)] - runs[metric].loc[(*other, data)])

    full = "S=10 + compensator"
    reference, all_pairs, exact = ((f"reference{more}", full) for more in ("", " - aime_pairs", " - gae_pairs"))
    ahead, by_ndcg = (interval(gap(m, "retailrocket", reference, all_pairs)) for m in ("HR@10", "NDCG@10"))
    low, *_, high = sorted(gap("HR@10", "retailrocket", reference, all_pairs))
    exact = interval(gap("NDCG@10", "gowalla", exact, reference))
    told = [
        f"by {low:.2f} to {high:.2f} points ({ahead[0]:.1f} ± {ahead[1]:.1f}, Student's 95%)",
        f"by NDCG@10 it can't be told from nothing ({by_ndcg[0]:.1f} ± {by_ndcg[1]:.1f})",
        f"but not by NDCG@10 ({abs(exact[0]):.1f} ± {exact[1]:.1f})",
    ]
    assert [words for words in told if words not in prose("07_scaling.ipynb")] == []
    of_16 = gap("HR@10", "retailrocket", ("mean of samples", "mean of 16 samples"), ("mean of samples", full))
    words = f"ahead of the compensator on each seed, by {of_16.mean():.1f} ± {of_16.std():.1f}"
    assert (of_16 > 0).all() and words in prose("08_beyond_the_paper.ipynb")


def test_what_10_says_of_leads_in_towns():
    """Means of the logarithm of a factor, as 10 means a lead."""
    towns = pd.read_csv(ROOT / "dae4rec_core/experiments/maps.csv", na_values=[""], keep_default_na=False)
    towns = towns.dropna(subset=["again"]).rename(columns={"returns knob": "knob"})
    grown = towns.pivot_table("SASRec over counting", ["knob", "seed"], "users")
    grown = 100 * (2 ** (grown[2400] - grown[600]) - 1)
    few, *_, most = sorted(grown.drop(0.0))
    still = sorted(-grown[0.0])
    less = sorted(100 - 100 / (1 + grown / 100))  # a quarter of the people in place of four times as many
    rich = towns[towns["users"] == 2400]
    alone = rich[rich["knob"] == 0].pivot_table("improved over counting", "seed", "again")
    falls = 100 * (1 - 2 ** (alone[40.0] - alone[0.2]))
    kind = 100 * (2 ** rich.groupby("again")["improved over SASRec"].mean() - 1)
    letter = 2 ** -towns.groupby(["again", "knob", "users"])["letter over DAE4Rec"].mean()
    told = [
        f"(by {still[0]:.0f}% and {still[1]:.0f}% on the two seeds, because counting gains more)",
        f"it is larger (by {few:.0f}% to {most:.0f}%)",
        f"{less[2]:.0f}% to {less[-1]:.0f}% smaller where people return",
        f"and {-less[1]:.0f}% and {-less[0]:.0f}% larger where nobody does",
        f"from `again` = 0.2 to 40, by {falls[7]:.0f}% and {falls[8]:.0f}% on the two seeds",
        f"improved is {kind[0.2]:.0f}% ahead at `again` = 0.2",
        f"by a factor of {letter.min():.1f} to {letter.max():.1f}, {stats.gmean(letter):.1f} on average",
    ]
    assert [words for words in told if words not in prose("10_when_does_it_work.ipynb")] == []


def test_what_06_says_of_timesteps_and_few_steps():
    runs = pd.read_csv(ROOT / "results/runs.csv", na_values=[""], keep_default_na=False)
    runs = runs[runs["part"] == "test"].set_index(["study", "method", "variant", "data", "seed"]).sort_index()["HR@10"]
    gain = 100 * (runs["departures", "letter + timesteps", "S=10"] - runs["departures", "letter", "S=10"])
    by = gain.groupby("data").agg(["mean", "std"])
    a, b = (f"{by['mean'][data]:.1f} ± {by['std'][data]:.1f}" for data in ("gowalla", "retailrocket"))
    told = [f"$T = 200$ brings the letter {a} and {b}"]
    for data, words in (("gowalla", "a loss of up to {:.1f}%"), ("retailrocket", "at most {:.1f}%")):
        one, all_steps = (
            runs["figure 3"].xs((f"S={S} + compensator", data), level=("variant", "data")) for S in (1, 200)
        )
        lost, reach = interval(100 * (all_steps - one).dropna())
        told.append(words.format((lost + reach) / all_steps.mean()))
    assert [words for words in told if words not in prose("06_results.ipynb")] == []


def test_what_06_says_of_esasrec_and_the_letter():
    runs = pd.read_csv(ROOT / "results/runs.csv", na_values=[""], keep_default_na=False)
    runs = runs[(runs["part"] == "test") & (runs["study"] == "main") & (runs["variant"] != "S=10")]
    runs = runs[["method", "data", "filter", "seed", "HR@10", "run_seconds"]]
    esasrec = runs[runs["method"] == "eSASRec"].set_index(["data", "seed"]).sort_index()
    rivals = runs[runs["filter"] == "first visits"].set_index(["method", "data", "seed"]).sort_index()
    behind = 100 * (rivals["HR@10"]["SASRec"] - esasrec["HR@10"]).dropna()
    by = behind.groupby("data").agg(["mean", "std"])
    a, b = (f"{by['mean'][data]:.1f} ± {by['std'][data]:.1f}" for data in ("gowalla", "retailrocket"))
    above = 100 * (esasrec["HR@10"] - rivals["HR@10"]["GRU4Rec"]).dropna().groupby("data").mean()
    assert len(behind) == len(esasrec) == 6 and ((above > 0) & (above < 1)).all()
    minutes = esasrec["run_seconds"] / 60
    told = [
        f"is {a} and {b} points below it on the two columns",
        f"a run takes {minutes.min():.0f} to {minutes.max():.0f} minutes on one busy core",
    ]
    mean = 100 * runs.groupby(["method", "data", "filter"])["HR@10"].mean()
    gap = mean["DAE4Rec"] - mean["DAE4Rec, letter"]
    told.append(f"is {gap.min():.0f} to {gap.max():.0f} points below DAE4Rec on all nine columns")
    assert len(gap.dropna()) == 9
    assert [words for words in told if words not in prose("06_results.ipynb")] == []
