"""The explorers of 09 and 10 say what brute force says."""

import re

import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import held_out, prepare
from dae4rec_core.data.town import write_town
from dae4rec_core.experiments.maps import LEADS
from dae4rec_core.experiments.solvers import law_given_history
from dae4rec_core.method.variants import make_model
from dae4rec_core.recommender import Recommender
from dae4rec_core.streams import stream
from dae4rec_core.views.explorers import CloudExplorer, ConformalExplorer, MapExplorer, cloud


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    """A little town: its folder, dataset and split."""
    folder = tmp_path_factory.mktemp("town")
    write_town(folder, n_venues=100, n_users=60)
    return folder, *prepare(folder, Config())


@pytest.fixture(scope="module")
def clouds(town, tiny):
    folder, dataset, split = town
    torch.manual_seed(0)
    models = {
        name: Recommender(make_model(dataset.n_items, tiny.replace(max_len=length, timesteps=60)), dataset.item_ids)
        for name, length in (("one", 5), ("two", 8))
    }
    users = [str(dataset.user_ids[user]) for user in held_out(dataset, split, "test", tiny).user[:3].tolist()]
    return CloudExplorer(models, dataset, split, folder, users)


def test_a_cloud_is_that_of_the_recommender_and_held_against_the_law(town, clouds, one_sentence):
    folder, dataset, split = town
    user, S = clouds.users[1], 5
    view = clouds.view("two", user, S)
    model = clouds.models["two"].model
    examples = held_out(dataset, split, "test", model.config)
    rows = [int((examples.user == dataset.user_ids.tolist().index(name)).nonzero()) for name in clouds.users]
    e_0 = clouds.models["two"].draw(examples.history[rows], cloud.DRAWS, S, generator=stream(0, "sampling"))[1]
    items = model.embedding.weight.detach()
    nearest = torch.cdist(e_0, items).argmin(1)
    shares = torch.bincount(nearest, minlength=len(items)) / cloud.DRAWS
    law = law_given_history(folder, dataset, split, examples, model.config)[rows[1]]
    assert f"have {len(nearest.unique())} different items" in view.alt
    assert f"between them is {(shares - law).abs().sum() / 2:.2f}." in view.alt
    p = law[law > 0]
    assert f"the law has {-(p * p.log2()).sum():.1f}," in view.alt
    likeliest = dataset.label(int(law.argmax()))
    assert re.search(rf"<td[^>]*>{re.escape(likeliest)}.*? {law.max():.0%}</td>", view.words)
    assert clouds.view("one", user, S).png != view.png != clouds.view("two", user, 10).png
    one_sentence(lambda: clouds.view("three", user, S), "three", "one")
    one_sentence(lambda: clouds.view("one", "nobody", S), "nobody")
    one_sentence(lambda: clouds.view("one", user, 3), "S 3", "20")


def test_a_cloud_needs_a_town_and_users_with_an_answer(town, clouds, ring, trained, one_sentence):
    folder, dataset, split = town
    one_sentence(lambda: CloudExplorer(clouds.models, dataset, split, folder, ["nobody"]), "nobody", clouds.users[0])
    user = str(ring[0].user_ids[int(held_out(*ring, "test", trained.model.config).user[0])])
    one_sentence(lambda: CloudExplorer({"it": trained}, *ring, folder / "none", [user]), "ring", "town")


def test_clouds_in_frames_and_live(clouds):
    shown = clouds.frames({"first": clouds.users[0]}, 5)
    assert shown.text == "slider model: one, two; slider person: first; slider S: 1, 2, 5, 10, 20, 50"
    assert shown.still.alt == clouds.view("one", clouds.users[0], 5).alt == clouds.live(5).still.alt


def test_sets_hold_what_their_level_promises(town, one_sentence):
    _, dataset, split = town
    config = Config()
    before, after = (held_out(dataset, split, part, config) for part in ("validation", "test"))
    rng = torch.Generator().manual_seed(0)
    p = [torch.rand(len(part), dataset.n_items, generator=rng).double().softmax(1) for part in (before, after)]
    explorer = ConformalExplorer({"chance": (p[0], p[1])}, dataset, before, after)
    own = np.sort(p[0][torch.arange(len(before)), before.target].numpy())[::-1]
    for words, level in (("50%", 0.5), ("90%", 0.9)):
        expected = p[1].numpy() >= own[int(np.ceil((len(before) + 1) * level)) - 1]
        held = expected[np.arange(len(after)), after.target.numpy()]
        user = str(dataset.user_ids[int(after.user[2])])
        alt = explorer.view("chance", user, words).alt
        assert f"has {expected[2].sum()} of {dataset.n_items} items" in alt
        assert f"next item of {held.mean():.1%} and have {expected.sum(1).mean():.0f} items" in alt
        assert (" and holds the next one" in alt) == held[2]
    one_sentence(lambda: explorer.view("chance", user, "91%"), "91%", "50%")
    one_sentence(lambda: explorer.view("chance", "nobody", "90%"), "nobody")
    shown = explorer.frames({"a person": user}, "90%")
    assert shown.text == "slider method: chance; slider person: a person; slider level: 50%, 60%, 70%, 80%, 90%, 95%"
    assert "At 90%" in shown.still.alt and "At 90%" in explorer.live("90%").still.alt


def test_sets_need_a_map(ring, tiny, one_sentence):
    part = held_out(*ring, "test", tiny)
    p = torch.full((len(part), ring[0].n_items), 1 / ring[0].n_items).double()
    one_sentence(lambda: ConformalExplorer({"it": (p, p)}, ring[0], part, part), "ring", "coordinates")


@pytest.fixture
def table():
    knobs = [(a, r, u) for a in (0.2, 1.0) for r in (0.0, 0.5) for u in (600.0, 2400.0)]
    rows = pd.DataFrame([*knobs, *knobs], columns=["again", "returns knob", "users"])
    lead = pd.Series(np.linspace(-1, 1, 8))
    rows["improved over counting"] = pd.concat([lead, lead * 0.5], ignore_index=True)
    rows["winner"] = ["SASRec"] * 4 + ["DAE4Rec"] * 11 + ["SASRec"]
    return rows


def test_a_map_shows_means_over_seeds_and_who_wins(table, one_sentence):
    explorer = MapExplorer(table)
    assert explorer.shown == ["who wins", "improved over counting"]
    alt = explorer.view("improved over counting").alt
    few = table[table["users"] == 600].groupby(["again", "returns knob"])["improved over counting"].mean()
    assert f"With 600 people it is ahead in {(few > 0).sum()} of 4 towns" in alt
    assert f"between {2 ** few.min():.2f} and {2 ** few.max():.2f}." in alt
    won = table[table["users"] == 2400]["winner"].value_counts()
    wins = f"DAE4Rec wins {won['DAE4Rec']} of 8, SASRec wins {won['SASRec']} of 8."
    assert f"With 2400 people, each town with each seed: {wins}" in explorer.view("who wins").alt
    assert set(explorer.shown[1:]) <= set(LEADS)
    assert explorer.frames().text == "slider map: who wins, improved over counting"
    one_sentence(lambda: explorer.view("nothing"), "nothing", "who wins")
