"""Judging models, what simple reconstructions reach, what a model costs: against known answers and other libraries."""

import json
import math

import numpy as np
import pytest
import torch
from conftest import CLASSES, SHAPE, TEST, TRAIN, VALIDATION, write_params
from scipy import stats
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge
from torch import nn

from atelier import assess, cost, evaluation, families, files, fit, floors, latency, noise, paths, pictures, timings
from atelier.data.items import Items, items
from atelier.data.store import Store
from atelier.errors import AtelierError
from atelier.params import Recipe, TrainNoise
from atelier.report import drawing
from atelier.stages import evaluate, report, train

GAUSSIAN = TrainNoise(kind="gaussian", level=0.2)
MASKING = TrainNoise(kind="masking", level=0.25, draw="fresh")
pytestmark = pytest.mark.usefixtures("one_thread")


class Says(nn.Module):
    """Gives every item the class that its first value names, with the given log-odds against the others."""

    def __init__(self, odds: float, classes: int = CLASSES) -> None:
        super().__init__()
        self.odds, self.classes = odds, classes

    def classify(self, x):
        return nn.functional.one_hot(x.flatten(1)[:, 0].long(), self.classes) * self.odds


class Echo(nn.Module):
    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.shift = shift

    def reconstruct(self, x):
        return x + self.shift


def labelled(y: list[int], said: list[int]) -> Items:
    x = torch.tensor(said, dtype=torch.float32)[:, None].expand(-1, 3)
    return Items(x, x, torch.tensor(y))


# ---- what is judged


def test_items_are_the_splits_with_the_stored_corruption(project):
    store = Store(paths.noisy("digits"))
    for hold_out, sizes in ((True, (TRAIN, VALIDATION, TEST)), (False, (TRAIN + VALIDATION, 0, TEST))):
        for split, size in zip(("train", "validation", "test"), sizes, strict=True):
            clean = items(store, split, None, hold_out)
            noisy = items(store, split, GAUSSIAN, hold_out)
            assert len(clean) == len(noisy) == size
            assert clean.x is clean.clean and torch.equal(clean.y, noisy.y)
            assert torch.equal(clean.clean[:], noisy.clean[:])
            if size:
                stored, _ = store.split(split, "gaussian-0.2", hold_out=hold_out)
                assert np.array_equal(noisy.x[:].numpy(), stored) and not torch.equal(noisy.x[:], noisy.clean[:])


def test_what_is_not_stored_is_drawn_once_and_differs_between_splits(project):
    store = Store(paths.noisy("digits"))
    masks = []
    for split in ("train", "validation", "test"):
        seen = items(store, split, MASKING, hold_out=True)
        again = items(store, split, MASKING, hold_out=True)
        x, clean = seen.x[:], seen.clean[:]
        assert torch.equal(x, again.x[:])
        lost = (x == 0) & (clean > 0)
        assert torch.equal(x[~lost], clean[~lost])
        assert lost.float().mean() == pytest.approx(0.25, abs=0.06)
        masks.append(lost[:VALIDATION])
    assert not torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])


# ---- figures


def test_a_classifier_that_is_known_is_judged_as_it_should_be():
    found = evaluation.judge(Says(math.log(7)), labelled([0, 1, 2, 3], [0, 1, 2, 0]))
    right, wrong = math.log(10 / 7), math.log(10)  # the class that it says has 7 in 10, the three others 1 in 10
    expected = {"accuracy": 0.75, "accuracy_rounded": 14 / 16, "nll": (3 * right + wrong) / 4, "ece": 0.05}
    f1 = {"f1_macro": (2 / 3 + 1 + 1 + 0) / 4, "sure_right": 0.75, "sure_wrong": 0.25}
    assert found == pytest.approx(expected | f1, abs=1e-7)


def test_a_reconstruction_is_judged_against_the_clean_items():
    clean = torch.rand(20, *SHAPE)
    seen = Items(clean + 0.25, clean, torch.zeros(20, dtype=torch.int64))
    found = evaluation.judge(Echo(0.25), seen)
    assert found == pytest.approx({"mae": 0.5, "mse": 0.25, "psnr": 10 * math.log10(4)}, rel=1e-5)


def test_a_model_that_does_neither_and_a_split_without_items_have_no_figures():
    assert evaluation.judge(nn.Linear(3, 3), labelled([0], [0])) == {}
    empty = Items(torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    assert evaluation.judge(Says(1.0), empty) == {} and evaluation.judge(Echo(), empty) == {}


def test_what_a_family_measures_itself_is_averaged_beside_its_answers(monkeypatch):
    class Measured(Echo):
        def figures(self, x):
            return {"loss": x.flatten(1)[:, 0], "first": x.flatten(1)[:, 0], "one": torch.ones(len(x))}

    monkeypatch.setattr(fit, "ROWS", 7)
    clean = torch.rand(20, *SHAPE)
    found = evaluation.judge(Measured(), Items(clean, clean, torch.zeros(20, dtype=torch.int64)))
    assert found.keys() == {"mae", "mse", "psnr", "first", "one"} and found["one"] == 1
    assert found["first"] == pytest.approx(float(clean.flatten(1)[:, 0].mean()), rel=1e-6)


def test_a_familys_judge_adds_figures_floors_items_and_what_is_drawn(project, monkeypatch):
    class Judge:
        @staticmethod
        def assess(model, store, seed, hold_out):
            """Luck: what luck is."""
            row = ("drawn", np.full((3, *SHAPE), 0.5, np.float32), [])
            return assess.Assessment({"test.luck": 7.0 + seed}, {"points": [seed]}, [row])

        @staticmethod
        def floors(store):
            return {"none": {"test.luck": float(len(store.classes))}}

        @staticmethod
        def pictures(models, series):
            left = [[run["points"], *run["curve"][1]] for run in series["net"]]
            return {"luck.png": (f"{list(models)} {left}", lambda: drawing.grid(1, 1, 2, 2)[0])}

    monkeypatch.setattr(assess, "names", lambda: ["mlp"])
    monkeypatch.setattr(assess, "load", lambda family: Judge if family == "mlp" else None)
    write_params(project, {"net": {"family": "mlp"}, "plain": {"family": "softmax"}}, seeds=2, epochs=1)
    train.main("tiny")
    evaluate.main("tiny")
    folder = paths.report("tiny")
    found = files.read_json(folder / "metrics.json")
    assert found["models"]["net"]["metrics"]["test.luck"]["values"] == [7, 8]
    assert found["models"]["net"]["series"] == [{"points": [0]}, {"points": [1]}]
    assert "series" not in found["models"]["plain"] and "test.luck" not in found["models"]["plain"]["metrics"]
    assert found["floors"] == {"none": {"test.luck": CLASSES}}
    files.write_json(folder / "pruning.json", {"schema": 1, "points": []})
    report.main("tiny")
    page = (folder / "index.md").read_text()
    assert "| luck | net | – | – | 7.5000 [1.1469, 13.8531] |" in page and "Luck: what luck is." in page
    assert f"| luck | *none* | – | – | {CLASSES}.0000 |" in page
    assert "['net'] [[[0], 'train.loss'" in page and (folder / "figures/luck.png").exists()


def test_a_family_that_samples_shows_samples_and_the_same_ones_each_time():
    class Draws(nn.Module):
        def sample(self, count):
            return torch.rand(count, *SHAPE)

    rows, again = (pictures.samples(Draws(), seed=3) for _ in range(2))
    assert [len(items) for _, items, _ in rows] == [10, 10]
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(rows, again, strict=True))
    assert pictures.samples(nn.Linear(1, 1), seed=3) == []


def test_answers_do_not_depend_on_how_many_rows_are_asked_at_once(monkeypatch):
    torch.manual_seed(0)
    model, x = families.load("mlp")(SHAPE, CLASSES, hidden=(8,), dropout=(0.5,)), torch.rand(23, *SHAPE)
    whole = evaluation.answer(model.train(), x)
    monkeypatch.setattr(fit, "ROWS", 5)
    np.testing.assert_allclose(evaluation.answer(model.train(), x), whole, atol=1e-6)
    assert whole.dtype == np.float64
    np.testing.assert_allclose(np.exp(whole).sum(1), 1, rtol=1e-12)


@pytest.mark.parametrize("hold_out", [True, False])
def test_everywhere_is_every_split_and_every_corruption(project, hold_out):
    store = Store(paths.noisy("digits"))
    recipe = Recipe(epochs=1, hold_out=hold_out, noise=GAUSSIAN)
    found = evaluation.judge_everywhere(Echo(), store, recipe, [GAUSSIAN])
    splits = {"train", "validation", "test", "test.gaussian-0.2"} - (set() if hold_out else {"validation"})
    gaps = {"gap.mae", "gap.mse"}
    assert found.keys() == {f"{split}.{name}" for split in splits for name in ("mae", "mse", "psnr")} | gaps
    assert found["test.mae"] == 0 and found["test.psnr"] is None
    x, _ = store.split("train", "gaussian-0.2", hold_out=hold_out)
    clean, _ = store.split("train", hold_out=hold_out)
    assert found["train.mae"] == pytest.approx(np.abs(x - clean).mean(), rel=1e-5)


def test_training_figures_are_of_the_items_that_a_recipe_leaves(project):
    store = Store(paths.noisy("digits"))
    found = evaluation.judge_everywhere(Echo(), store, Recipe(epochs=1, items=10, noise=GAUSSIAN), [])
    x, _ = store.split("train", "gaussian-0.2", hold_out=False)
    clean, _ = store.split("train", hold_out=False)
    assert found["train.mae"] == pytest.approx(np.abs(x[:10] - clean[:10]).mean(), rel=1e-5)
    with pytest.raises(AtelierError, match="items is 100000, but the training split has 96"):
        evaluation.judge_everywhere(Echo(), store, Recipe(epochs=1, items=100_000), [])


def test_weights_are_counted_without_biases():
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[3.0, 4.0], [0.0009, -0.0009]]))
    found = evaluation.weights(layer)
    assert found["weights.small"] == 0.5 and found["weights.norm"] == pytest.approx(5.0)
    assert evaluation.weights(nn.ReLU()) == {}


def test_gaps_say_how_much_worse_test_is_on_inputs_corrupted_alike():
    found = {"train.accuracy": 0.9, "test.accuracy": 0.7, "train.nll": 0.3, "test.nll": 0.8, "test.f1_macro": 0.5}
    assert evaluation.gaps(found, None) == pytest.approx({"gap.accuracy": 0.2, "gap.nll": 0.5})
    found = {"train.mae": 0.1, "test.mae": 0.0, "test.gaussian-0.2.mae": 0.4}
    assert evaluation.gaps(found, GAUSSIAN) == pytest.approx({"gap.mae": 0.3})
    assert evaluation.gaps({"train.accuracy": 1.0}, None) == {}


def test_a_duration_is_for_a_thousand_items(monkeypatch):
    times = iter(range(100))
    with monkeypatch.context() as patch:
        patch.setattr(latency.time, "perf_counter", lambda: next(times))
        assert evaluation.seconds_per_1000(Echo(), torch.rand(50, *SHAPE)) == 20
    assert 0 < evaluation.seconds_per_1000(Echo(), torch.rand(50, *SHAPE)) < 10


# ---- what simple reconstructions reach


def test_ridge_regression_equals_scikit_learn():
    rng = np.random.default_rng(0)
    x, seen = rng.random((60, 9)).astype(np.float32), rng.random((15, 9)).astype(np.float32)
    y = (x @ rng.normal(size=(9, 4)) + 0.3).astype(np.float32)
    for penalty in (1.0, 7.0):
        expected = Ridge(alpha=penalty).fit(x, y).predict(seen)
        np.testing.assert_allclose(floors._ridge(x, y, seen, penalty), expected, atol=1e-5)


def test_floors_equal_scikit_learn_on_the_stored_items(project):
    store, width = Store(paths.noisy("digits")), 3
    found = floors.floors(store, [GAUSSIAN], width)
    clean, target = (store.split(split)[0].reshape(-1, math.prod(SHAPE)) for split in ("train", "test"))
    noisy = store.split("test", "gaussian-0.2")[0].reshape(target.shape)
    drawn = noise.draw(clean.reshape(-1, *SHAPE), "gaussian", 0.2, seed=0, epoch=0).reshape(clean.shape)
    pca = PCA(width, svd_solver="full").fit(clean)
    seen = {"test": target, "test.gaussian-0.2": noisy}
    answers = {
        "identity": seen,
        "pca-3": {name: pca.inverse_transform(pca.transform(x)).clip(0, 1) for name, x in seen.items()},
        "ridge": {"test.gaussian-0.2": Ridge(alpha=1.0).fit(drawn, clean).predict(noisy).clip(0, 1)},
    }
    for floor, outputs in answers.items():
        assert found[floor].keys() == {f"{name}.{metric}" for name in outputs for metric in ("mae", "mse", "psnr")}
        for name, output in outputs.items():
            assert found[floor][f"{name}.mae"] == pytest.approx(np.abs(output - target).mean(), abs=1e-6)
            assert found[floor][f"{name}.mse"] == pytest.approx(np.square(output - target).mean(), abs=1e-6)
    assert found["identity"]["test.psnr"] is None


# ---- what a model costs


def gates(kind: str) -> int:
    return {"rnn": 1, "gru": 3, "lstm": 4}[kind]


COSTS = [
    ("softmax", (1, 6, 5), {}, 30 * 7, 30 * 7 + 7),
    ("mlp", (1, 6, 5), {"hidden": (20, 11)}, 30 * 20 + 20 * 11 + 11 * 7, 31 * 20 + 21 * 11 + 12 * 7),
    (
        "cnn",
        (2, 8, 8),
        {"plan": ("conv 5 3", "pool 2", "conv 4 3 valid", "dense 9")},
        64 * 5 * 2 * 9 + 2 * 2 * 4 * 5 * 9 + 16 * 9 + 9 * 7,
        5 * 19 + 4 * 46 + 17 * 9 + 10 * 7,
    ),
    ("autoencoder", (1, 6, 5), {"widths": (20, 4)}, 2 * (30 * 20 + 20 * 4), 31 * 20 + 21 * 4 + 5 * 20 + 21 * 30),
    (
        # A transposed convolution multiplies every input pixel with the whole kernel.
        "autoencoder",
        (1, 8, 8),
        {"widths": (6, 4), "conv": True},
        64 * 9 * 6 + 16 * 9 * 6 * 4 + 4 * 9 * 4 * 6 + 16 * 9 * 6,
        6 * 10 + 4 * 55 + 6 * 37 + 55,
    ),
] + [
    (
        "recurrent",
        (1, 6, 5),
        {"cell": cell, "hidden": (8, 3)},
        6 * gates(cell) * (8 * (5 + 8) + 3 * (8 + 3)) + 3 * 7,
        gates(cell) * (8 * (5 + 8 + 2) + 3 * (8 + 3 + 2)) + 4 * 7,
    )
    for cell in ("rnn", "gru", "lstm")
]


@pytest.mark.parametrize("family, shape, settings, products, parameters", COSTS)
def test_costs_equal_closed_formulas(family, shape, settings, products, parameters):
    model = families.load(family)(shape, 7, **settings)
    assert cost.exact(model, shape) == {"parameters": parameters, "multiply_adds": products, "bytes": 4 * parameters}
    assert next(model.parameters()).device.type == "cpu"


def test_a_model_without_answers_has_no_multiply_adds_and_buffers_count_as_bytes():
    model = nn.BatchNorm1d(5)
    assert cost.exact(model, (5,)) == {"parameters": 10, "multiply_adds": None, "bytes": 4 * 20 + 8}


# ---- the stage


def test_the_stage_writes_what_the_models_are_worth(project):
    models = {
        "net": {"family": "mlp", "hidden": [12], "row": "D0.1"},
        "plain": {"family": "softmax"},
        "rebuilder": {"family": "autoencoder", "widths": [12, 5], "train": {"snapshots": [0, 4]}},
    }
    models["rebuilder"]["train"]["noise"] = {"kind": "gaussian", "level": 0.2}
    write_params(project, models, seeds=2)
    train.main("tiny")
    evaluate.main("tiny")
    folder = paths.report("tiny")
    found, store = files.read_json(folder / "metrics.json"), Store(paths.noisy("digits"))
    assert (found["schema"], found["dataset"], found["seeds"]) == (1, "digits", [0, 1])
    net = found["models"]["net"]
    assert net["rows"] == ["D0.1"] and net["settings"] == {"family": "mlp", "hidden": [12]}
    assert net["exact"]["parameters"] == 37 * 12 + 13 * CLASSES
    accuracy = net["metrics"]["test.accuracy"]
    assert accuracy["n"] == 2 and accuracy["mean"] == pytest.approx(np.mean(accuracy["values"]))
    assert min(accuracy["values"]) > 0.5

    # The same figure from the stored weights, by hand.
    from safetensors.numpy import load_file

    w = load_file(paths.model("tiny", "net", 1) / "weights.safetensors")
    x, y = store.split("test", "gaussian-0.2")
    hidden = np.maximum(x.reshape(len(x), -1) @ w["layers.0.weight"].T + w["layers.0.bias"], 0)
    answers = (hidden @ w["head.weight"].T + w["head.bias"]).argmax(1)
    assert net["metrics"]["test.gaussian-0.2.accuracy"]["values"][1] == (answers == y).mean()

    pair = found["differences"]["test.accuracy"]["net - plain"]
    other = found["models"]["plain"]["metrics"]["test.accuracy"]
    assert pair["values"] == pytest.approx(np.subtract(accuracy["values"], other["values"]))
    assert found["differences"].keys() == {"test.accuracy", "test.f1_macro", "test.nll"}
    assert found["floors"].keys() == {"identity", "pca-5", "ridge"}
    confusion = json.loads((folder / "confusion.json").read_text())
    assert confusion.keys() == {"net", "plain"}
    assert np.sum(confusion["net"]["matrix"]) == 2 * TEST
    assert np.trace(confusion["net"]["matrix"]) == round(sum(accuracy["values"]) * TEST)
    lines = (folder / "curves.csv").read_text().splitlines()
    assert len(lines) == 1 + 3 * 2 * 4 and lines[0].startswith("model,seed,epoch,train.loss,train.accuracy,")
    jobs = files.read_json(paths.timings("tiny"))["jobs"]
    assert [(job["model"], job["seed"]) for job in jobs] == [(m, s) for m in sorted(models) for s in (0, 1)]
    assert all(job["inference_s_per_1000"] > 0 and job["train_s"] > 0 for job in jobs)
    assert (folder / "examples.png").read_bytes().startswith(b"\x89PNG")


def test_test_items_are_judged_under_the_corruptions_that_are_stored(project):
    folder = paths.noisy("digits")
    about = files.read_json(folder / "about.json")
    kept = {name: total for name, total in about["files"].items() if "gaussian" not in name}
    files.write_json(folder / "about.json", about | {"files": kept})
    write_params(project, {"plain": {"family": "softmax"}}, seeds=1)
    train.main("tiny")
    evaluate.main("tiny")
    metrics = files.read_json(paths.report("tiny") / "metrics.json")["models"]["plain"]["metrics"]
    assert "test.accuracy" in metrics and not any("gaussian" in name for name in metrics)


def test_trials_are_judged_on_clean_items_alone(project):
    trial = {"family": "softmax", "trial_of": "net", "train": {"hold_out": True}}
    write_params(project, {"trial": trial, "plain": {"family": "softmax"}}, seeds=1)
    train.main("tiny")
    evaluate.main("tiny")
    found = files.read_json(paths.report("tiny") / "metrics.json")["models"]
    noisy = {name: {m for m in model["metrics"] if "gaussian" in m} for name, model in found.items()}
    assert not noisy["trial"] and noisy["plain"]
    assert {"validation.accuracy", "test.accuracy"} <= found["trial"]["metrics"].keys()


def test_snapshots_stand_below_the_items_that_they_rebuild(project):
    """With held-out items training takes its snapshots of validation items, without them of test items."""
    for hold_out in (True, False):
        models = {"net": {"family": "autoencoder", "widths": [5], "train": {"snapshots": [0, 4], "hold_out": hold_out}}}
        write_params(project, models)
        train.main("tiny")
        candidate = evaluate.Candidate(evaluate.jobs.of_study(evaluate.load(), "tiny")[0], ())
        rows = {label: items for label, items, _ in evaluate.judge(candidate)["examples"]}
        assert list(rows) == ["clean", "input", "epoch 0", "epoch 4", "at the end"]
        np.testing.assert_allclose(rows["epoch 4"], rows["at the end"], atol=0.5 / 255 + 1e-6)


def test_the_figures_of_a_classifier_trained_on_noise_are_told_apart(project):
    """Its confusion matrix is of clean test items, its training figures and its gap of noisy ones."""
    models = {"net": {"family": "softmax", "train": {"noise": {"kind": "gaussian", "level": 0.2}}}}
    write_params(project, models)
    train.main("tiny")
    found = evaluate.judge(evaluate.Candidate(evaluate.jobs.of_study(evaluate.load(), "tiny")[0], (GAUSSIAN,)))
    figures = found["metrics"]
    assert figures["test.accuracy"] != figures["test.gaussian-0.2.accuracy"]
    assert np.trace(found["confusion"]) == round(figures["test.accuracy"] * TEST)
    assert figures["gap.accuracy"] == pytest.approx(figures["train.accuracy"] - figures["test.gaussian-0.2.accuracy"])


# ---- durations


def test_windows_are_drawn_five_in_a_line_with_room_for_their_names(tmp_path):
    from PIL import Image

    def size(items):
        rows = [("surest mistakes", items, ["walking downstairs\nas walking"] * len(items))]
        pictures.examples(tmp_path / "drawn.png", {"mlp": rows})
        with Image.open(tmp_path / "drawn.png") as drawn:
            return drawn.size, drawn.mode

    rng = np.random.default_rng(0)
    windows = {n: size(rng.normal(size=(n, 9, 128))) for n in (5, 10)}
    assert windows[5] == windows[10] == ((940, windows[5][0][1]), "P")
    assert size(rng.random((10, 1, 8, 8)))[1] == "L"


def test_the_page_of_durations_holds_means_over_seeds(tmp_path):
    jobs = [{"model": "a", "seed": seed, "epochs": 3, "train_s": s} for seed, s in enumerate((1.0, 2.0, 3.0))]
    jobs += [{"model": "b", "seed": 0, "train_s": 1234.5, "inference_s_per_1000": 0.0125}]
    timings.update(tmp_path / "tiny.json", jobs, stages={"train": 90.0}, note="Measured at night.")
    page = (tmp_path / "tiny.md").read_text()
    low, high = stats.t.interval(0.95, 2, 2.0, 1 / np.sqrt(3))
    assert f"| a | 3 | 3.0 [3.0, 3.0] | 2.0 [{low:.1f}, {high:.1f}] | – |" in page
    assert "| b | 1 | – | 1,234.5 | 12.5 |" in page
    assert "train 1.5." in page and "Measured at night." in page


def test_durations_are_merged_and_those_of_a_model_that_is_gone_leave(tmp_path):
    path = tmp_path / "tiny.json"
    both = [{"model": "b", "seed": 0, "train_s": 2.0}, {"model": "a", "seed": 0, "train_s": 1.0}]
    timings.update(path, both, stages={"train": 3.0})
    timings.update(path, [{"model": "a", "seed": 0, "inference_s_per_1000": 0.5}, both[0]], stages={"evaluate": 1.5})
    timings.update(path, [], pruning=[1], stages={})
    found = files.read_json(path)
    assert found["jobs"] == [{"model": "a", "seed": 0, "train_s": 1.0, "inference_s_per_1000": 0.5}, both[0]]
    assert (found["wall_s"], found["pruning"]) == (4.5, [1])
    assert found["machine"]["torch"] == torch.__version__ and found["machine"]["cores"] > 0
    timings.update(tmp_path / "other.json", both, stages={"evaluate": 60.0})
    page = (tmp_path / "index.md").read_text()
    assert "| [tiny](tiny.md) | 2 | 3 | 0.1 |" in page and "| [other](other.md) | 2 | 3 | – |" in page
    assert "Together 0 minutes for the 1 of 2" in page
    timings.update(path, [{"model": "a", "seed": 0, "train_s": 4.0}], stages={"train": 5.0})
    found = files.read_json(path)
    assert found["jobs"] == [{"model": "a", "seed": 0, "train_s": 4.0, "inference_s_per_1000": 0.5}]
    assert found["wall_s"] == 6.5


def test_nets_that_rebuild_the_same_items_share_what_they_saw(tmp_path):
    """Item by item: what a net saw stands above the first that rebuilt it, and the others stand below that one."""
    from PIL import Image

    items, noisy, rebuilt = (np.full((2, 1, 8, 8), value, np.float32) for value in (0.2, 0.5, 0.9))
    one, other = ([("clean", items, []), ("input", seen, []), ("at the end", rebuilt, [])] for seen in (items, noisy))
    blocks = {"a": one, "b": other, "c": [*one, ("samples", rebuilt, [])]}
    found = [(model, [label for label, *_ in rows]) for model, rows in pictures._below_what_they_saw(blocks)]
    every = ["clean", "input", "at the end"]
    assert found == [("a", every), ("c", ["at the end", "samples"]), ("b", every)]
    pictures.examples(tmp_path / "drawn.png", blocks)
    assert Image.open(tmp_path / "drawn.png").mode == "L"
