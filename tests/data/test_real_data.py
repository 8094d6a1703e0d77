"""Real data sets beside the project: they load, filter, split, and have the sizes noted there."""

import numpy as np
import pytest

from dae4rec_core.config import Config
from dae4rec_core.data.dataset import encode, filter_interactions, held_out, make_examples, prepare
from dae4rec_core.data.files import load_interactions
from dae4rec_core.ranking import evaluate
from dae4rec_core.training import fit

pytestmark = pytest.mark.real_data

# records, users, items of the 5-core in ../shared/data/README.md, and the filter that gives them
SIZES = {
    "online_retail": ("keep", 260_422, 13_572, 2_969, {"description", "category"}),
    "retailrocket": ("keep", 156_728, 21_541, 11_091, {"category"}),
    "gowalla": ("keep", 71_703, 7_720, 3_140, {"lat", "lon"}),
    "foursquare_us": ("first_visits", 83_376, 4_360, 5_820, {"lat", "lon"}),
    "foursquare_nyc": ("keep", 147_938, 1_083, 5_135, {"name_fsq_os", "category", "lat", "lon"}),
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_splits_and_silence(real_data, name, capfd):
    repeats, records, users, items, attributes = SIZES[name]
    if not (real_data / name).is_dir():
        pytest.skip(f"no {name} in {real_data}")
    dataset, split = prepare(real_data / name, Config().replace(repeats=repeats))
    facts = dataset.statistics()
    assert (facts["records"], facts["users"], facts["items"]) == (records, users, items)
    assert facts["average length"] == pytest.approx(records / users)
    assert attributes <= set(dataset.attributes) and len(dataset.attributes) == items
    # the k-core holds, time never runs backwards within a user, everybody is tested
    lengths = np.diff(dataset.offsets)
    assert lengths.min() >= 5 and np.bincount(dataset.items).min() >= 5
    later = np.diff(dataset.timestamps)
    later[dataset.offsets[1:-1] - 1] = 0  # from one user to the next
    assert (later >= 0).all()
    assert len(split.test) == len(split.validation) == users
    assert (split.train_end - dataset.offsets[:-1] == lengths - 2).all()
    examples = make_examples(dataset, split.test, 20)
    assert (examples.target.numpy() == dataset.items[dataset.offsets[1:] - 1]).all()
    assert capfd.readouterr() == ("", "")


def test_a_tiny_fit_on_retailrocket(real_data, tmp_path):
    frame, _ = load_interactions(real_data / "retailrocket")
    dataset = encode(filter_interactions(frame))
    some = frame[frame["user_id"].isin(dataset.user_ids[:400])]
    some.to_csv(tmp_path / "some.csv", index=False)
    config = Config().replace(k_core=2, dim=16, hidden=32, timesteps=10, epochs=2, gae_steps=20, compensator_epochs=2)
    dataset, split = prepare(tmp_path / "some.csv", config)
    assert dataset.n_users > 300
    recommender = fit(dataset, split, config, "cpu")
    examples = held_out(dataset, split, "test", config)
    metrics = evaluate(recommender.scorer(), examples)
    assert len(examples) > 200 and 0 <= metrics["HR@10"] <= metrics["HR@20"] <= 1
    found = recommender.recommend([dataset.item_ids[0]], k=5)
    assert set(found["item_id"]) <= set(dataset.item_ids) and found["score"].notna().all()
