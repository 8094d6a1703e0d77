"""Three errors of a chain: against `evaluate`, `town_ceiling`, and one chain at a time with counting by numpy."""

import numpy as np
import pandas as pd
import pytest
import torch

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import held_out, prepare
from dae4rec_core.data.town import load_town_law, town_ceiling, write_town
from dae4rec_core.experiments.solvers import law_given_history, reference_rows, solver_rows
from dae4rec_core.method.sampling import choose_tau, choose_tau_by_snr, skip_step
from dae4rec_core.ranking import evaluate
from dae4rec_core.streams import stream
from dae4rec_core.training import fit

USERS, DRAWS, T = 6, 32, 10


@pytest.fixture(scope="module")
def town(tmp_path_factory, tiny):
    """A small town and a model of it: (folder, dataset, split, recommender)."""
    folder = tmp_path_factory.mktemp("town")
    write_town(folder, n_venues=100, n_users=80)
    dataset, split = prepare(folder, tiny)
    return folder, dataset, split, fit(dataset, split, tiny.replace(compensator_epochs=0), "cpu")


@pytest.fixture(scope="module")
def rows(town):
    folder, dataset, split, recommender = town
    found = pd.DataFrame(solver_rows(recommender, folder, dataset, split, [1, 2, 5, T], USERS, DRAWS))
    return found.set_index(["spacing", "order", "S"])


def test_every_way_has_its_rows_and_some_are_one_chain(rows):
    assert sorted(rows.index) == sorted(
        [(spacing, order, S) for S in (1, 2, 5) for spacing, order in (("t", 1), ("log-SNR", 1), ("log-SNR", 2))]
        + [("t", 1, T)]
    )
    assert rows.loc["log-SNR", 2, 2].equals(rows.loc["log-SNR", 1, 2])
    for way in (("log-SNR", 1), ("log-SNR", 2)):
        assert rows.loc[(*way, 1)].equals(rows.loc["t", 1, 1])
        assert rows.loc[(*way, 5)]["distance"] != rows.loc["t", 1, 5]["distance"] > 0
    assert rows.loc["t", 1, T][["distance", "same"]].tolist() == [0, 1]


def test_the_ranking_is_what_evaluate_says(town, rows):
    _, dataset, split, recommender = town
    tests = held_out(dataset, split, "test", recommender.model.config)
    for S in (1, 2, 5, T):
        found = evaluate(recommender.scorer(S, compensate=False), tests)["HR@10"]
        assert rows.loc["t", 1, S]["HR@10"] == pytest.approx(found, abs=1e-12)


@pytest.mark.parametrize("spacing, order", [("t", 1), ("log-SNR", 1), ("log-SNR", 2)])
def test_distance_and_cloud_by_one_chain_at_a_time(town, rows, spacing, order):
    folder, dataset, split, recommender = town
    model, config = recommender.model.eval(), recommender.model.config
    tests, few = (held_out(dataset, split, "test", config, limit=limit) for limit in (None, USERS))
    law, d = load_town_law(folder), config.model.dim
    noise = stream(0, "sampling")
    x_T = torch.randn(len(tests), d, generator=noise)
    clouds = torch.randn(DRAWS, USERS, d, generator=noise)
    tau = choose_tau(T, 5) if spacing == "t" else choose_tau_by_snr(model.alpha_bar, 5)

    @torch.no_grad()
    def answer(history, x, tau, order=order):
        h = model.condition(history[None])
        return skip_step(model.predictor(h), x[None], h, model.alpha_bar, tau, order=order)[1][0]

    fine = torch.stack([answer(*row, range(1, T + 1), 1) for row in zip(tests.history, x_T, strict=True)])
    mine = torch.stack([answer(*row, tau) for row in zip(tests.history, x_T, strict=True)])
    away = (mine - fine).norm(dim=1).mean() / fine.norm(dim=1).mean()
    assert rows.loc[spacing, order, 5]["distance"] == pytest.approx(away.item(), rel=1e-4)

    places, apart, bits = model.embedding.weight.detach().numpy(), [], []
    for user in range(USERS):
        points = [answer(few.history[user], clouds[n, user], tau).numpy() for n in range(DRAWS)]
        nearest = [np.linalg.norm(places - point, axis=1).argmin() for point in points]
        p = np.bincount(nearest, minlength=dataset.n_items) / DRAWS
        position = next(
            n for n in split.test if dataset.offsets[few.user[user]] <= n < dataset.offsets[few.user[user] + 1]
        )
        past = slice(dataset.offsets[few.user[user]], position)
        visits = law.index_of(dataset.item_ids[dataset.items[past]])
        q = law.next_given_history([(visits, dataset.timestamps[past])])[0, law.index_of(dataset.item_ids)]
        apart.append((p - q / q.sum()).clip(min=0).sum())  # the other formula of the total variation
        bits.append(-sum(share * np.log2(share) for share in p if share))
    assert rows.loc[spacing, order, 5]["total variation"] == pytest.approx(np.mean(apart), abs=1e-9)
    assert rows.loc[spacing, order, 5]["entropy"] == pytest.approx(np.mean(bits), rel=1e-6)


def test_what_f_misses_at_the_first_step(town, rows):
    """By the closed form of Eq. 2 and `forward`, one example at a time, with the noise of the stream."""
    _, dataset, split, recommender = town
    model = recommender.model.eval()
    tests = held_out(dataset, split, "test", model.config)
    eps = torch.randn(len(tests), model.config.model.dim, generator=stream(0, "judging"))
    share, e_0 = model.alpha_bar[1].item(), model.embedding.weight.detach()[tests.target]
    with torch.no_grad():
        answers = [
            model.denoiser(
                (share**0.5 * e + (1 - share) ** 0.5 * noise)[None], torch.tensor([1]), model.condition(past[None])
            )
            for e, noise, past in zip(e_0, eps, tests.history, strict=True)
        ]
    missed = ((torch.cat(answers) - e_0) ** 2).sum() / ((e_0 - e_0.mean(0)) ** 2).sum()
    assert rows["missed"].to_numpy() == pytest.approx(missed.item(), rel=1e-4)


def test_the_law_is_the_ceiling_s(town):
    folder, dataset, split, recommender = town
    tests = held_out(dataset, split, "test", recommender.model.config)
    found = law_given_history(folder, dataset, split, tests, recommender.model.config)
    law, users, visits = (
        load_town_law(folder),
        *(pd.read_csv(folder / f"{n}.csv.gz") for n in ("users", "interactions")),
    )
    columns = law.index_of(dataset.item_ids)
    expected = dict(
        (user, given_history[columns])
        for names, _, _, given in town_ceiling(law, users, visits)
        for user, given_history in zip(names, given, strict=True)
    )
    same = 0
    for user, row in zip(tests.user.tolist(), found, strict=True):
        name = str(dataset.user_ids[user])
        if (visits["user_id"] == name).sum() == len(dataset.sequence(user)):  # the filter took nothing of this one
            np.testing.assert_allclose(row, expected[name] / expected[name].sum(), rtol=1e-10)
            same += 1
    assert same > 10


def test_what_clouds_are_held_against(town):
    folder, dataset, split, recommender = town
    found = {
        draws: pd.DataFrame(reference_rows(folder, dataset, split, recommender.model.config, USERS, draws)).set_index(
            "method"
        )
        for draws in (16, 4096)
    }
    errors = found[4096]["total variation"]
    assert errors["the law"] == pytest.approx(0, abs=1e-12)
    assert errors["the law's own draws"] < 0.1 < found[16]["total variation"]["the law's own draws"]
    assert (errors[["own visits", "first-order transitions", "popularity"]] > 0.1).all() and (errors <= 1).all()
    assert found[4096]["entropy"]["own visits"] < found[4096]["entropy"]["popularity"] <= np.log2(dataset.n_items)


def test_where_no_law_is_known_there_is_no_cloud(ring, ring_csv, trained, tmp_path):
    [row] = solver_rows(trained, ring_csv, *ring, [10])
    assert set(row) == {"method", "seed", "S", "spacing", "order", "distance", "same", "HR@10", "missed"}
    assert list(reference_rows(ring_csv, *ring, trained.model.config)) == []
    write_town(tmp_path, n_venues=100, n_users=80)  # known, but not for a filtered history
    config = Config().replace(repeats="first_visits")
    assert list(reference_rows(tmp_path, *prepare(tmp_path, config), config)) == []
