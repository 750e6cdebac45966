"""The report and the catalogue of a made-up study: what stands on the page is what stands in the files."""

import itertools
import json
import random
import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import MappingProxyType

import matplotlib
import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from atelier import files, params, paths, stats, summary, timings
from atelier.errors import AtelierError
from atelier.report import costs, figures, page, pruned, results, tables
from atelier.report.drawing import COLOURS
from atelier.stages import catalogue, report

ZOO = Path("reports/studies/zoo")
SEEDS = [0, 1, 2]
CLASSES = [str(digit) for digit in range(10)]
CORRUPTIONS = (
    "gaussian-0.2",
    "gaussian-0.5",
    "salt-and-pepper-0.1",
    "salt-and-pepper-0.3",
    "masking-0.25",
    "masking-0.5",
)
SCORES = {"softmax": 0.941, "mlp": 0.962, "cnn": 0.981, "gru": 0.958}
SIZES = {"softmax": 650, "mlp": 17226, "cnn": 21514, "gru": 9466, "denoiser": 8968}
PARAMS = """
    workers: 1
    compute: {threads: 1}
    datasets:
      digits: {test: 360, validation: 237}
    noise:
      gaussian: [0.2, 0.5]
      salt-and-pepper: [0.1, 0.3]
      masking: [0.25, 0.5]
    experiments: {}
    studies:
      zoo:
        asks: Which family reads small digits best, and can half of a net be pruned at no cost?
        dataset: digits
        seeds: 3
        train: {epochs: 60, batch: 64, lr: 0.003, hold_out: true}
        models:
          softmax: {family: softmax, row: D0.10}
          mlp: {family: mlp, hidden: [128, 64], row: [D0.2, D2.1.wide]}
          cnn: {family: cnn}
          gru: {family: recurrent, row: D3.6}
          denoiser: {family: autoencoder, row: D0.6, train: {noise: {kind: gaussian, level: 0.2, draw: fresh}}}
        prune: null
        claims:
          - says: A hidden layer beats the softmax classifier
            row: D0.2
            compare: {metric: test.accuracy, higher: mlp, than: softmax}
          - says: The dense net beats convolutions
            row: D2.1
            compare: {metric: test.accuracy, higher: mlp, than: cnn}
          - says: The dense net and the GRU are equal within one point
            compare: {metric: test.accuracy, equal: [mlp, gru], margin: 0.01}
          - says: L2 or | not, loss falls between epochs 2 and 60
            row: D1.9
            compare: {metric: validation.loss, of: cnn, from: 2, to: 60, direction: falls}
        published:
          mlp: {test.accuracy: 0.96, train.accuracy_rounded: 0.99, parameters: 17226}
        note: The recipe of the source.
      later:
        asks: Has this one run?
        dataset: digits
        seeds: 1
        train: {epochs: 1}
        models: {softmax: {family: softmax, row: D1.1}}
        prune: null
        claims: []
        published: {}
        note: null
"""


def classifier_figures(score: float, draw: random.Random) -> dict[str, float]:
    accuracy = score + draw.gauss(0, 0.003)
    found = {
        "train.accuracy": min(1.0, accuracy + 0.02),
        "validation.accuracy": accuracy + 0.004,
        "test.accuracy": accuracy,
    }
    found |= {f"test.{c}.accuracy": accuracy - 0.4 * float(c.rsplit("-", 1)[1]) for c in CORRUPTIONS}
    for name in [name for name in found if name.endswith("accuracy")]:
        found[f"{name}_rounded"] = 0.8 + 0.2 * found[name]
    found |= {"test.f1_macro": accuracy - 0.002, "train.nll": 0.08, "test.nll": 1.5 - accuracy, "test.ece": 0.0123}
    return found | {"gap.accuracy": found["train.accuracy"] - accuracy}


def denoiser_figures(draw: random.Random) -> dict[str, float]:
    found = {}
    for name in ("train", "test", *(f"test.{c}" for c in CORRUPTIONS)):
        mae = 0.05 + 0.1 * (float(name.rsplit("-", 1)[1]) if "-" in name else 0) + draw.gauss(0, 0.001)
        found |= {f"{name}.mae": mae, f"{name}.mse": mae**2 * 2, f"{name}.psnr": 20 + draw.gauss(0, 0.1)}
    return found | {"gap.mae": found["test.gaussian-0.2.mae"] - found["train.mae"]}


def curve_rows(seeds: list[int], draw: random.Random) -> list[list]:
    rows = []
    for model, seed, epoch in itertools.product(SIZES, seeds, range(2, 61, 2)):
        height = (1 - 0.9 * 0.9**epoch) + draw.gauss(0, 0.004)
        if model == "denoiser":
            figures = [0.3 * 0.95**epoch + 0.05, None, 0.3 * 0.95**epoch + 0.06, None]
        else:
            top = SCORES[model]
            figures = [
                2.3 * 0.93**epoch + 0.01,
                height * (top + 0.02),
                2.2 * 0.93**epoch + 0.1 + draw.random() / 50,
                height * top,
            ]
        rows.append([model, seed, epoch, *figures])
    return rows


def pruning_points(seeds: list[int], draw: random.Random) -> list[dict]:
    points = []
    for model, seed in itertools.product(("mlp", "cnn"), seeds):
        figures = {"accuracy": SCORES[model] + draw.gauss(0, 0.002), "nll": 0.1}
        dense = {"criterion": "none", "schedule": "none", "recovery": "none", "level": 0.0, "widths": [128]}
        dense |= {"parameters": SIZES[model], "multiply_adds": 10 * SIZES[model], "chosen": False}
        points.append({"model": model, "seed": seed, "validation": figures, "test": figures, **dense})
    ways = itertools.product(("mlp", "cnn"), seeds, ("weight-norm", "random"), ("none", "finetune", "scratch-epochs"))
    for (model, seed, criterion, recovery), level in itertools.product(ways, (0.1, 0.3, 0.5, 0.6, 0.75)):
        width = round(128 * (1 - level))
        loss = {"none": 0.5 * level**3, "finetune": 0.02 * level**2, "scratch-epochs": 0.03 * level**2}[recovery]
        loss *= 2 if criterion == "random" else 1
        accuracy = SCORES[model] - loss + draw.gauss(0, 0.002)
        points.append({
            "model": model, "seed": seed, "criterion": criterion, "schedule": "one-shot", "recovery": recovery,
            "level": level, "widths": [width], "parameters": int(SIZES[model] * (1 - level) ** 1.2),
            "multiply_adds": int(10 * SIZES[model] * (1 - level)),
            "validation": {"accuracy": accuracy + 0.003, "nll": 0.1}, "test": {"accuracy": accuracy, "nll": 0.12},
            "chosen": (criterion, recovery, level) == ("weight-norm", "finetune", 0.5),
        })  # fmt: skip
    return points


def write_study(folder: Path, seeds: list[int]) -> None:
    """The files of a study with four classifiers, a denoiser and two pruned nets, as evaluate and prune leave them."""
    draw = random.Random(0)
    models, recipe = {}, {"epochs": 60, "batch": 64, "optimizer": "adam", "lr": 0.003, "noise": None}
    for model in SIZES:
        noise = {"kind": "gaussian", "level": 0.2, "draw": "fresh"} if model == "denoiser" else None
        by_seed = [denoiser_figures(draw) if noise else classifier_figures(SCORES[model], draw) for _ in seeds]
        models[model] = {
            "rows": [],
            "exact": {"parameters": SIZES[model], "multiply_adds": 10 * SIZES[model], "bytes": 4 * SIZES[model]},
            "metrics": {name: stats.summary([found[name] for found in by_seed]) for name in by_seed[0]},
            "settings": {"family": model, "hidden": [128, 64]},
            "recipe": recipe | {"noise": noise},
            "epochs": stats.summary([60.0] * len(seeds)),
        }
    accuracies = {model: models[model]["metrics"]["test.accuracy"]["values"] for model in SCORES}
    pairs = {f"{a} - {b}": stats.paired(accuracies[a], accuracies[b]) for a, b in itertools.combinations(SCORES, 2)}
    floors = {"identity": {"test.mae": 0.0, "test.mse": 0.0, "test.psnr": None, "test.gaussian-0.2.mae": 0.0913}}
    metrics = {"schema": 1, "study": "zoo", "dataset": "digits", "seeds": seeds, "models": models}
    files.write_json(folder / "metrics.json", metrics | {"differences": {"test.accuracy": pairs}, "floors": floors})
    columns = ["train.loss", "train.accuracy", "validation.loss", "validation.accuracy"]
    files.write_csv(folder / "curves.csv", ["model", "seed", "epoch", *columns], curve_rows(seeds, draw))
    confusion = {}
    for model, score in SCORES.items():
        hits = round(36 * score)
        matrix = [
            [3 * hits if a == b else 3 * (36 - hits) if b == (a + 3) % 10 else 0 for b in range(10)] for a in range(10)
        ]
        rows = [
            {"class": c, "precision": score, "recall": score - 0.01, "f1": score - 0.005, "support": 36}
            for c in CLASSES
        ]
        confusion[model] = {"classes": CLASSES, "matrix": matrix, "per_class": rows}
    files.write_json(folder / "confusion.json", confusion)
    files.write_json(folder / "pruning.json", {"schema": 1, "points": pruning_points(seeds, draw)})


def write_project(folder: Path) -> None:
    (folder / "dvc.yaml").write_text("stages: {}\n")
    (folder / "params.yaml").write_text(textwrap.dedent(PARAMS))
    write_study(folder / ZOO, SEEDS)


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A project with its report and its catalogue."""
    folder = tmp_path_factory.mktemp("reported")
    write_project(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("DVC_ROOT", raising=False)
        report.main("zoo")
        catalogue.main()
    return folder


@pytest.fixture
def project(reported, tmp_path, monkeypatch):
    """A copy of it to read and to change."""
    folder = shutil.copytree(reported, tmp_path / "project")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    return folder


@pytest.fixture
def undrawn(monkeypatch):
    """The report without its pictures, which take seconds."""
    monkeypatch.setattr(figures, "draw", lambda *_: {})


def edit(path, change):
    """Rewrite a JSON file of the project by a function that changes its content in place."""
    content = files.read_json(path)
    change(content)
    files.write_json(path, content)


def edit_params(old, new):
    text = Path("params.yaml").read_text()
    assert old in text
    Path("params.yaml").write_text(text.replace(old, new))


def section(title, text=None):
    """The text under a heading of the page."""
    text = text or (ZOO / "index.md").read_text()
    return re.split(r"\n## ", text.split(f"## {title}\n", 1)[1])[0].strip()


def rows(text, heading):
    """The first Markdown table whose first column is `heading`, as a dict per row."""
    table = next(part for part in text.split("\n\n") if part.startswith(f"| {heading}"))
    head, _, *body = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table.splitlines()]
    return [dict(zip(head, row, strict=True)) for row in body]


def numbers(cell):
    return [float(number) for number in re.findall(r"[-+]?\d[\d,]*\.?\d*(?:e-?\d+)?", cell.replace(",", ""))]


def interval(cell):
    return [float(end) for end in cell.strip("[]").split(",")]


def close(shown, exact, decimals=2):
    """Whether a number on the page is the rounded exact one."""
    return np.allclose(shown, exact, rtol=0, atol=0.5 * 10**-decimals + 1e-9)


# --- the page says what the files say


def test_the_main_table_shows_the_figures_of_metrics_json(project):
    models = files.read_json(ZOO / "metrics.json")["models"]
    shown = rows((ZOO / "index.md").read_text(), "Model")
    assert [row["Model"] for row in shown] == ["softmax", "mlp", "mlp", "cnn", "gru", "denoiser"]
    for row in shown:
        metric = row["Metric"].strip("`")
        exact = models[row["Model"]]["metrics"][metric]
        scale, decimals = (1, 4) if metric.endswith("mae") else (100, 2)
        assert close(numbers(row["Mean"]), scale * exact["mean"], decimals)
        assert close(interval(row["95 % interval"]), scale * np.array(exact["ci95"]), decimals)
        assert row["n"] == "3" and ("%" in row["Mean"]) == (scale == 100)
        if row["Parameters"]:
            assert numbers(row["Parameters"])[0] == SIZES[row["Model"]]


def test_published_figures_stand_beside_ours_and_a_missing_one_is_a_dash(project):
    shown = {(row["Model"], row["Metric"]): row for row in rows((ZOO / "index.md").read_text(), "Model")}
    assert shown["mlp", "`test.accuracy`"]["Published"] == "96 %"
    assert shown["mlp", "`train.accuracy_rounded`"]["Published"] == "99 %"
    assert shown["mlp", "`test.accuracy`"]["Parameters"] == "17,226 (published 17,226)"
    assert {shown[model, "`test.accuracy`"]["Published"] for model in ("softmax", "cnn", "gru")} == {"–"}


def test_the_tables_of_measures_noise_and_reconstruction_show_the_figures_of_metrics_json(project):
    models = files.read_json(ZOO / "metrics.json")["models"]
    seen = 0

    def check(cell, model, metric, scale=100, decimals=2):
        exact = models[model]["metrics"].get(metric)
        if exact is None:
            assert cell == "–", (model, metric, cell)
        else:
            mean, ends = cell.split(" ", 1)
            assert close(float(mean), scale * exact["mean"], decimals), (model, metric, cell)
            assert close(interval(ends), scale * np.array(exact["ci95"]), decimals), (model, metric, cell)
        return exact is not None

    for row in rows(section("Training, held-out and test items"), "Measure"):
        measure, percent = row["Measure"].split(" ")[0], "%" in row["Measure"]
        for split in ("train", "validation", "test", "gap"):
            noisy = split == "test" and measure == "mae"
            metric = "test.gaussian-0.2.mae" if noisy else f"{split}.{measure}"
            seen += check(row[split.capitalize()], row["Model"], metric, *((100, 2) if percent else (1, 4)))
    for row in rows(section("Under noise"), "Test accuracy"):
        for corruption in CORRUPTIONS:
            seen += check(row[corruption], row["Test accuracy (%)"], f"test.{corruption}.accuracy")
    for row in rows(section("Reconstruction"), "Input"):
        if not row["Model or *floor*"].startswith("*"):
            prefix = "test" if row["Input"] == "clean" else f"test.{row['Input']}"
            for column, name, decimals in (("MAE", "mae", 4), ("MSE", "mse", 5), ("PSNR (dB)", "psnr", 2)):
                seen += check(row[column], row["Model or *floor*"], f"{prefix}.{name}", 1, decimals)
    assert seen == 4 * 11 + 3 + 4 * 6 + 7 * 3


def test_floors_stand_beside_the_reconstructions_and_what_they_lack_is_a_dash(project):
    floors = {r["Input"]: r for r in rows(section("Reconstruction"), "Input") if r["Model or *floor*"] == "*identity*"}
    assert set(floors) == {"clean", "gaussian-0.2"}
    assert (floors["clean"]["MAE"], floors["clean"]["PSNR (dB)"]) == ("0.0000", "–")
    assert (floors["gaussian-0.2"]["MAE"], floors["gaussian-0.2"]["MSE"]) == ("0.0913", "–")


def test_the_table_of_claims_shows_claims_json(project):
    entries = {entry["id"]: entry for entry in files.read_json(ZOO / "claims.json")}
    assert [entry["verdict"] for entry in entries.values()] == ["holds", "does not hold", "undecided", "holds"]
    for row in rows(section("Claims"), "Claim"):
        entry = entries[row["Claim"]]
        scale, decimals = (1, 4) if "loss" in entry["metric"] else (100, 2)
        assert row["Verdict"] == f"**{entry['verdict']}**" and row["n"] == "3" and row["Row"] == (entry["row"] or "–")
        assert close(numbers(row["Estimate"]), scale * entry["estimate"], decimals)
        assert close(interval(row["95 % interval"]), scale * np.array(entry["ci95"]), decimals)


def test_the_differences_are_those_of_metrics_json(project):
    pairs = files.read_json(ZOO / "metrics.json")["differences"]["test.accuracy"]
    shown = rows(section("Differences between models"), "Metric")
    assert len(shown) == len(pairs)
    for row in shown:
        exact = pairs[row["Pair"].replace("−", "-")]
        assert close(numbers(row["Difference"]), 100 * exact["mean"])
        assert row["Apart"] == ("no" if exact["ci95"][0] <= 0 <= exact["ci95"][1] else "yes")


def test_the_class_table_shows_confusion_json(project):
    found = files.read_json(ZOO / "confusion.json")
    shown = rows(section("Class by class"), "Class")
    assert [row["Class"] for row in shown] == CLASSES
    for row, model in itertools.product(shown, SCORES):
        exact = found[model]["per_class"][int(row["Class"])]
        assert close(numbers(row[model]), [100 * exact[k] for k in ("f1", "precision", "recall")])


def test_pruning_is_compared_seed_by_seed_with_the_dense_net_and_with_its_own_shape(project):
    points = files.read_json(ZOO / "pruning.json")["points"]

    def values(**wanted):
        same = [p for p in points if all(p[k] == v for k, v in ({"model": "cnn"} | wanted).items())]
        return [p["test"]["accuracy"] for p in sorted(same, key=lambda p: p["seed"])]

    text = section("Pruning").split("### cnn")[1]
    (chosen,) = rows(text, "Criterion")
    assert (chosen["Criterion"], chosen["Recovery"], chosen["Level"], chosen["Chosen"]) == (
        "weight-norm", "finetune", "0.5", "✓",
    )  # fmt: skip
    every = rows(text.split("<details>")[1], "Criterion")
    assert len(every) == 2 * 3 * 5
    for row in every:
        way = {"criterion": row["Criterion"], "recovery": row["Recovery"], "level": float(row["Level"])}
        tested = values(**way)
        against_dense = scipy.stats.ttest_rel(tested, values(recovery="none", level=0.0)).confidence_interval()
        mean, ends = row["− dense (points)"].split(" ", 1)
        assert close(float(mean), 100 * (np.mean(tested) - np.mean(values(recovery="none", level=0.0))))
        assert close(interval(ends), [100 * against_dense.low, 100 * against_dense.high])
        if row["Recovery"] == "scratch-epochs":
            assert row["− scratch-epochs (points)"] == "–"
        else:
            rival = values(**way | {"recovery": "scratch-epochs"})
            mean, ends = row["− scratch-epochs (points)"].split(" ", 1)
            against = scipy.stats.ttest_rel(tested, rival).confidence_interval()
            assert close(interval(ends), [100 * against.low, 100 * against.high])


def test_the_page_goes_from_question_to_cost(project):
    text = (ZOO / "index.md").read_text()
    marks = [
        "# Which family",
        "**Answer.**",
        "| Model |",
        "figures/headline.png",
        "figures/learning-curves.png",
        "## Under",
    ]
    marks += [
        "## Differences",
        "## Class",
        "## Reconstruction",
        "## Pruning",
        "## Recipe",
        "## Run it again",
        "## Cost",
    ]
    places = [text.index(mark) for mark in marks]
    assert places == sorted(places)
    assert "make study STUDY=zoo" in text and "make verify STUDY=zoo" in text


def test_the_answer_is_made_from_the_verdicts(project, undrawn):
    report.main("zoo")
    (answer,) = re.findall(r"\*\*Answer\.\*\* (.*)", (ZOO / "index.md").read_text())
    first, second, third = answer.split(";")
    assert "A hidden layer beats" in first and first.endswith(" hold")
    assert "The dense net beats convolutions" in second and second.endswith(" does not hold")
    assert "equal within one point" in third and third.endswith(" is undecided.")
    swapped = "higher: softmax, than: mlp}"
    edit_params("higher: mlp, than: softmax}", swapped)
    report.main("zoo")
    assert re.search(r"“A hidden layer beats[^;]* do not hold;", (ZOO / "index.md").read_text())


def test_of_many_claims_the_first_and_those_that_do_not_hold_are_quoted_and_the_others_counted():
    verdicts = ["holds"] * 7 + ["does not hold", "undecided"]
    claim = {"kind": "greater", "models": ["one", "other"], "compared": [0.9, 0.91]}
    claim |= {"metric": "test.accuracy", "estimate": -0.01, "ci95": [-0.02, -0.005]}
    entries = [claim | {"says": f"It is {i}", "verdict": verdict} for i, verdict in enumerate(verdicts)]
    told = "(-1.00 points [-2.00, -0.50])"
    assert page.answer(entries) == (
        f"7 of 9 claims hold: “It is 0” {told} and 6 others; 1 of 9 claims does not hold: “It is 7” {told}; "
        "1 of 9 claims is undecided."
    )
    assert page.answer(entries[::-1]) == (
        f"7 of 9 claims hold; 1 of 9 claims does not hold: “It is 7” {told}; "
        f"1 of 9 claims is undecided: “It is 8” {told}."
    )
    assert "“It is 1”" in page.answer(entries[:8])


@pytest.mark.parametrize(
    ("models", "compared", "estimate", "ends", "told"),
    [
        (["a"], [0.001, 0.005], 0.004, [0.003, 0.005], "0.10 % [0.00, 0.20] against 0.50 %"),  # lower than 0.5 %
        (["a"], [0.98, 0.97], 0.01, [0.008, 0.012], "98.00 % [97.80, 98.20] against 97.00 %"),
        (["a"], [0.96, 0.97], -0.01, [-0.012, -0.008], "96.00 % [95.80, 96.20] against 97.00 %"),
        (["a", "ridge"], [0.98, 0.97], 0.01, None, "98.00 % against 97.00 %"),
        (["a", "b"], [0.98, 0.97], 0.01, [0.008, 0.012], "+1.00 points [+0.80, +1.20]"),
    ],
)
def test_an_answer_gives_the_figure_where_a_number_is_its_measure(models, compared, estimate, ends, told):
    entry = {"metric": "test.accuracy", "says": "It is so", "verdict": "holds", "kind": "greater", "models": models}
    entry |= {"compared": compared, "estimate": estimate, "ci95": ends}
    assert page.answer([entry], floors={"ridge"}) == f"“It is so” ({told}) holds."


def test_links_and_pictures_point_at_what_is_there(project):
    files.write_bytes(ZOO / "figures" / "pruning-gone.png", b"of an earlier run")
    Image.new("L", (9, 9)).save(ZOO / "examples.png")
    report.main("zoo")
    targets = re.findall(r"\]\(([^)]+)\)", (ZOO / "index.md").read_text())
    times = "../../timings/zoo.md"
    assert times in targets and "examples.png" in targets
    assert [target for target in targets if target != times and not (ZOO / target).exists()] == []
    assert {f"figures/{path.name}" for path in (ZOO / "figures").iterdir()} <= set(targets)


def test_the_page_and_its_pictures_do_not_depend_on_the_run_or_the_place(reported, tmp_path, monkeypatch):
    write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    with matplotlib.rc_context({"figure.facecolor": "red", "lines.linewidth": 9}):
        report.main("zoo")
    catalogue.main()
    made = sorted(path.relative_to(reported) for path in (reported / "reports").rglob("*.*"))
    # What evaluate and prune left, the page and its claims, pictures, the catalogue, the page on rounded figures.
    assert len(made) == 4 + 2 + 8 + 2 + 1
    for name in made:
        assert (tmp_path / name).read_bytes() == (reported / name).read_bytes(), name
        assert str(reported).encode() not in (reported / name).read_bytes()


def test_pictures_are_small_nameless_and_not_blank(project):
    found = sorted(path.name for path in (ZOO / "figures").iterdir())
    expected = "confusion frontier headline learning-curves noise pruning-cnn pruning-mlp reconstruction-noise"
    assert found == [f"{name}.png" for name in expected.split()]
    for path in (ZOO / "figures").iterdir():
        with Image.open(path) as image:
            assert path.stat().st_size < 200_000 and image.info.keys().isdisjoint({"Software", "Creation Time"})
            assert 500 < image.width < 1600 and len(set(image.convert("L").get_flattened_data())) > 50


# --- what is missing is a dash, never a number


def no_word_for_nothing(text):
    return not re.search(r"\b(nan|inf|None|null)\b", text)


def test_one_seed_has_no_intervals(project):
    write_study(ZOO, [0])
    edit_params("seeds: 3", "seeds: 1")
    report.main("zoo")
    text = (ZOO / "index.md").read_text()
    assert {row["95 % interval"] for row in rows(text, "Model")} == {"–"}
    assert {row["Verdict"] for row in rows(section("Claims"), "Claim")} == {"**undecided**"}
    assert {row["Apart"] for row in rows(section("Differences between models"), "Metric")} == {"–"}
    assert no_word_for_nothing(text)


def test_a_figure_missing_for_one_seed_is_a_dash(project):
    def lose(metrics):
        values = [0.9, None, 0.9]
        metrics["models"]["mlp"]["metrics"]["test.accuracy"] = stats.summary(values)

    edit(ZOO / "metrics.json", lose)
    edit(ZOO / "pruning.json", lambda found: [p["test"].update(accuracy=None) for p in found["points"][3:40]])
    report.main("zoo")
    text = (ZOO / "index.md").read_text()
    row = next(r for r in rows(text, "Model") if r["Model"] == "mlp")
    assert (row["Mean"], row["95 % interval"], row["Published"]) == ("–", "–", "96 %")
    assert no_word_for_nothing(text)
    summary.text("zoo")


def test_a_study_of_one_silent_model_still_has_a_page(project):
    """A family that only samples has no metrics, no curves, no confusion matrix and no pruning."""
    entry = files.read_json(ZOO / "metrics.json")["models"]["softmax"] | {"metrics": {}}
    metrics = {"schema": 1, "study": "later", "dataset": "digits", "seeds": [0], "models": {"softmax": entry}}
    files.write_json(ZOO.parent / "later/metrics.json", metrics)
    report.main("later")
    page = (ZOO.parent / "later/index.md").read_text()
    (row,) = rows(page, "Model")
    assert (row["Metric"], row["Mean"], row["n"], row["Parameters"]) == ("–", "–", "–", "650")
    assert "This study makes no claim" in page and "![" not in page and no_word_for_nothing(page)
    assert "softmax" in summary.text("later")
    catalogue.main()
    assert "Not yet run" not in Path("reports/catalogue.md").read_text()


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("test.accuracy", 0.97314, "97.31 %"),
        ("test.accuracy", None, "–"),
        ("test.mae", 0.08412, "0.0841"),
        ("test.mse", 0.0123456, "0.01235"),
        ("test.mse", 0.00000123, "1.2e-06"),
        ("test.mse", 0.0, "0.00000"),
        ("test.gaussian-0.2.psnr", 21.404, "21.40 dB"),
        ("test.nll", 0.5, "0.5000 nats"),
    ],
)
def test_figures_are_rounded_to_what_can_be_read(metric, value, shown):
    assert tables.with_unit(metric, value) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0123, "+1.23 points"), (-0.0123, "-1.23 points"), (-0.000001, "0.00 points"), (0.0, "0.00 points")],
)
def test_differences_of_shares_are_points(value, shown):
    assert tables.with_unit("test.accuracy", value, difference=True) == shown


def test_a_cell_cannot_break_its_table():
    assert tables.table(["a", "b"], [["x | y", "1"]]).splitlines()[-1] == r"| x \| y | 1 |"


# --- faults


def one_line(error):
    return "\n" not in str(error.value)


def test_a_published_figure_without_one_of_ours_is_an_error(project, undrawn):
    edit_params("train.accuracy_rounded: 0.99", "train.acuracy: 0.99")
    message = r"studies\.zoo\.published\.mlp: mlp has no metric train\.acuracy; did you mean train\.accuracy\?"
    with pytest.raises(AtelierError, match=message) as error:
        report.main("zoo")
    assert one_line(error)


def test_a_model_that_was_not_evaluated_is_an_error(project, undrawn):
    edit(ZOO / "metrics.json", lambda metrics: metrics["models"].pop("gru"))
    with pytest.raises(AtelierError, match=r"metrics\.json: has no model gru; run make study STUDY=zoo") as error:
        report.main("zoo")
    assert one_line(error)


def test_a_study_that_has_not_run_is_an_error(project):
    for call in (report.main, summary.text):
        with pytest.raises(AtelierError, match=r"metrics\.json: not there"):
            call("later")
        with pytest.raises(AtelierError, match="there is no study zo; did you mean zoo"):
            call("zo")


# --- the terminal


def test_the_summary_names_figures_sizes_and_the_page(project):
    text = summary.text("zoo")
    metrics = files.read_json(ZOO / "metrics.json")["models"]
    for model, size in SIZES.items():
        (line,) = [line for line in text.splitlines() if line.startswith(f"{model} ") and "pruned" not in line]
        metric = "test.gaussian-0.2.mae" if model == "denoiser" else "test.accuracy"
        scale, decimals = (1, 4) if model == "denoiser" else (100, 2)
        assert f" {metric} " in line and line.endswith(f"{size:,}")
        assert f"{scale * metrics[model]['metrics'][metric]['mean']:.{decimals}f} [" in line
    assert str(ZOO / "index.md") in text and "make ui" in text


def test_the_half_size_net_is_chosen_on_validation_not_on_test(project):
    def favour(found):
        for point in found["points"]:
            if point["model"] == "cnn" and point["level"] == 0.5 and point["recovery"] == "finetune":
                better = point["criterion"] == "random"
                point["validation"]["accuracy"], point["test"]["accuracy"] = (0.99, 0.5) if better else (0.5, 0.99)

    edit(ZOO / "pruning.json", favour)
    (line,) = [line for line in summary.text("zoo").splitlines() if line.startswith("cnn pruned")]
    assert "44 % of its parameters (random, finetune): test accuracy 50.00 %" in line


# --- the catalogue


def test_the_catalogue_has_an_entry_for_each_row_study_and_model(project):
    entries = files.read_json(Path("reports/catalogue.json"))
    named = [(e["id"], e["model"]) for e in entries]
    assert named == [
        ("D0.2", "mlp"), ("D0.6", "denoiser"), ("D0.10", "softmax"), ("D2.1.wide", "mlp"), ("D3.6", "gru"),
    ]  # fmt: skip
    metrics = files.read_json(ZOO / "metrics.json")["models"]
    first = entries[0]
    assert first["published"] == {"test.accuracy": 0.96, "train.accuracy_rounded": 0.99}
    assert first["measured"] == {m: metrics["mlp"]["metrics"][m] for m in first["published"]}
    assert first["exact"]["parameters"] == {"value": 17226, "expected": 17226, "tolerance": 0}
    assert first["exact"]["bytes"]["expected"] is None
    assert [(e["claims"], e["verdict"]) for e in entries] == [
        (["zoo-1"], "holds"), ([], "no claim"), ([], "no claim"), (["zoo-2"], "does not hold"), ([], "no claim"),
    ]  # fmt: skip
    assert entries[1]["measured"].keys() == {"test.gaussian-0.2.mae"}


@pytest.mark.parametrize(
    ("verdicts", "expected"),
    [
        (("holds", "undecided", "does not hold"), "does not hold"),
        (("undecided", "holds", "holds"), "undecided"),
        (("holds", "holds", "holds"), "holds"),
    ],
)
def test_the_worst_verdict_on_a_row_is_its_verdict(project, verdicts, expected):

    def judge(found):
        for claim, row, verdict in zip(found, ("D2.1", "D2.1.wide", "D2", "D0.2"), (*verdicts, "holds"), strict=True):
            claim |= {"row": row, "verdict": verdict}

    edit(ZOO / "claims.json", judge)
    catalogue.main()
    (entry,) = [e for e in files.read_json(Path("reports/catalogue.json")) if e["id"] == "D2.1.wide"]
    assert (entry["claims"], entry["verdict"]) == (["zoo-1", "zoo-2", "zoo-3"], expected)


def test_a_claim_about_another_row_with_the_same_beginning_does_not_count(project):
    edit(ZOO / "claims.json", lambda found: [claim.update(row="D0.1") for claim in found])
    catalogue.main()
    entries = files.read_json(Path("reports/catalogue.json"))
    assert {e["verdict"] for e in entries if e["id"] == "D0.10"} == {"no claim"}


def test_the_catalogue_page_groups_by_document_and_names_what_has_not_run(project):
    text = Path("reports/catalogue.md").read_text()
    assert [line[3:5] for line in text.splitlines() if line.startswith("## D")] == ["D0", "D2", "D3"]
    assert "`later`, every model: `make study STUDY=later`" in section("Not yet run", text)
    shown = rows(section("D0: Dense nets from scratch, denoising", text), "Row")
    assert [row["Row"] for row in shown] == ["D0.2", "D0.2", "D0.2", "D0.6", "D0.10"]
    assert (shown[0]["Published"], shown[3]["Published"], shown[2]["Verdict"]) == ("96 %", "–", "**equal**")
    mean = files.read_json(ZOO / "metrics.json")["models"]["mlp"]["metrics"]["test.accuracy"]["mean"]
    assert shown[0]["Measured"].startswith(f"{100 * mean:.2f} [")
    assert "L2 or \\| not" in section("Claims on rows that no model bears", text)
    targets = re.findall(r"\]\(([^)]+)\)", text)
    assert targets[0] == "timings/index.md"  # which every stage that takes time writes
    assert all((Path("reports") / target).exists() for target in targets[1:])


def test_a_size_that_differs_from_the_published_one_is_told(project, undrawn):
    edit_params("parameters: 17226", "parameters: 17227")
    report.main("zoo")
    catalogue.main()
    assert "| parameters | 17,227 | 17,226 | – | **differs** |" in Path("reports/catalogue.md").read_text()


def test_a_model_added_since_the_last_run_is_not_yet_run(project):
    edit_params("  gru: {family", "  newcomer: {family: mlp, row: D0.4}\n      gru: {family")
    catalogue.main()
    assert "`zoo`, newcomer: `make study STUDY=zoo`" in Path("reports/catalogue.md").read_text()
    assert "D0.4" not in {e["id"] for e in files.read_json(Path("reports/catalogue.json"))}


def test_before_anything_has_run_the_catalogue_is_empty(project):
    (ZOO / "metrics.json").unlink()
    catalogue.main()
    assert json.loads(Path("reports/catalogue.json").read_text()) == []
    assert "`zoo`, every model" in Path("reports/catalogue.md").read_text()


# --- reading


def test_epochs_that_some_seed_did_not_reach_are_not_averaged(project):
    text = (ZOO / "curves.csv").read_text().splitlines(keepends=True)
    (ZOO / "curves.csv").write_text("".join(line for line in text if not line.startswith("cnn,2,60,")))
    found = results.read(ZOO, "zoo", params.load(families=False).entry("zoo"))
    epochs, values = found.over_seeds("cnn", "train.loss")
    assert epochs == list(range(2, 60, 2)) and {len(v) for v in values} == {3}


def test_the_headline_is_macro_f1_where_only_that_is_claimed(project):
    def headline():
        return results.read(ZOO, "zoo", params.load(families=False).entry("zoo")).headline("mlp")

    assert headline() == "test.accuracy"
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("metric: test.accuracy", "metric: test.f1_macro"))
    assert headline() == "test.f1_macro"


def test_reports_import_nothing_heavy_before_they_draw():
    heavy = "'torch', 'mlflow', 'pandas', 'sklearn', 'scipy', 'matplotlib'"
    check = f"import sys, atelier.stages.report, atelier.stages.catalogue; print({{{heavy}}} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"


def test_every_control_of_a_pruned_net_is_found_by_its_shape():
    """Two ways to the same shape: fresh nets of either length belong to both, and lot's choice stands beside."""
    from atelier.report.results import Results

    figures = {
        ("none", "none", "none", 0.0): [0.9, 0.8],
        ("taylor", "one-shot", "finetune", 0.5): [0.7, 0.7],
        ("taylor", "one-shot", "scratch-epochs", 0.5): [0.6, 0.5],
        ("taylor", "one-shot", "scratch-madds", 0.5): [0.75, 0.75],
        ("random", "one-shot", "finetune", 0.5): [0.4, 0.3],
    }
    points = [
        dict(zip(("criterion", "schedule", "recovery", "level"), way, strict=True))
        | {"model": "net", "seed": seed, "widths": [4 if way[-1] else 8], "parameters": 1, "multiply_adds": 1}
        | {"validation": {"accuracy": value}, "test": {"accuracy": value}, "chosen": False}
        for way, values in figures.items()
        for seed, value in enumerate(values)
    ]
    found = {(g["criterion"], g["recovery"]): g for g in Results("s", "d", [0, 1], {}, {}, {}, {}, {}, points).pruned}
    tuned = found["taylor", "finetune"]
    means = {name: tuned[f"to_{name}"]["mean"] for name in ("dense", "scratch-epochs", "scratch-madds", "random")}
    expected = {"dense": -0.15, "scratch-epochs": 0.15, "scratch-madds": -0.05, "random": 0.35}
    assert means == pytest.approx(expected)
    assert found["random", "finetune"]["to_scratch-epochs"]["mean"] == pytest.approx(-0.2)
    assert found["random", "finetune"]["to_random"] is None
    fresh = found["taylor", "scratch-epochs"]
    assert (fresh["to_scratch-epochs"], fresh["to_scratch-madds"], fresh["to_random"]) == (None, None, None)


@given(
    points=st.lists(st.tuples(st.integers(1, 9).map(float), st.integers(0, 9).map(float)), min_size=1),
    higher=st.booleans(),
)
def test_nothing_beats_a_frontier_and_it_beats_all_else(points, higher):
    from atelier.report.drawing import frontier

    sign = 1 if higher else -1

    def beaten(point, others):
        return any(c <= point[0] and sign * f >= sign * point[1] and (c, f) != point for c, f in others)

    found = frontier(points, higher)
    assert not any(beaten(point, points) for point in found) and len(set(found)) == len(found)
    assert all(point in found or beaten(point, found) for point in points)


def test_latency_stands_beside_that_of_the_first_net():
    from atelier.report import costs

    spent = {("dense", "torch"): 2.0, ("dense", "onnx"): 1.0, ("half", "torch"): 0.5, ("half", "onnx"): 4.0}
    records = [
        {"model": "cnn", "net": net, "widths": [1], "runtime": runtime, "batch": 256, "median_ms": ms, "p95_ms": 2 * ms}
        for (net, runtime), ms in spent.items()
    ]
    (dense, half) = rows(costs.latency(records), "Net")
    assert [dense["PyTorch, 256 items"], half["PyTorch, 256 items"]] == ["2 (4), 1×", "0.5 (1), 4×"]
    assert half["ONNX Runtime, 256 items"] == "4 (8), 0.25×"
    assert costs.latency([]) == ""


def test_what_is_left_of_each_layer_is_drawn_where_layers_compete(project):
    assert not (ZOO / "figures/layers.png").exists()

    def compete(found):
        for point in found["points"]:
            point["criterion"] = point["criterion"].replace("weight-norm", "global-weight-norm")

    edit(ZOO / "pruning.json", compete)
    report.main("zoo")
    assert (ZOO / "figures/layers.png").exists()
    assert "figures/layers.png" in section("Pruning")


def test_the_legend_of_pruned_nets_names_what_is_drawn_and_nothing_else(project):
    def also_gradual(found):
        tuned = [p for p in found["points"] if p["recovery"] in ("finetune", "scratch-epochs")]
        found["points"] += [point | {"schedule": "gradual", "chosen": False} for point in tuned]

    edit(ZOO / "pruning.json", also_gradual)
    _, draw = pruned.plans(results.read(ZOO, "zoo", params.load(families=False).entry("zoo")))["pruning-cnn.png"]
    shown = {text.get_text() for axes in draw().axes if axes.get_legend() for text in axes.get_legend().get_texts()}
    both = {f"{recovery}, {way}" for recovery in ("finetune", "scratch-epochs") for way in ("gradual", "one-shot")}
    assert shown == both | {"none, one-shot", "dense"}


def test_the_page_of_times_shows_what_figures_cost(project):
    seeds = files.read_json(ZOO / "metrics.json")["seeds"]
    both = itertools.product(SCORES, seeds)
    jobs = [{"model": m, "seed": s, "train_s": 60.0, "inference_s_per_1000": 0.002} for m, s in both]
    points = [p for p in files.read_json(ZOO / "pruning.json")["points"] if p["seed"] == seeds[0]]
    widths = {tuple(p["widths"]) for p in points if p["recovery"] == "finetune" or not p["level"]}
    latency = [
        {"model": "cnn", "net": str(w), "widths": list(w), "runtime": way, "batch": b} | {"median_ms": 1, "p95_ms": 2}
        for w, way, b in itertools.product(widths, ("torch", "onnx"), (1, 256))
    ]
    path = paths.timings("zoo")
    timings.update(path, jobs, latency=latency)
    assert "models.png" not in path.with_suffix(".md").read_text()
    report.main("zoo")
    page = path.with_suffix(".md").read_text()
    drawn = re.findall(r"!\[.*?\]\((zoo/\w+\.png)\)", page)
    assert drawn == ["zoo/models.png", "zoo/pruned.png"]
    assert all((path.parent / name).read_bytes().startswith(b"\x89PNG") for name in drawn)
    same = {
        model: entry | {"exact": {"parameters": 9}}
        for model, entry in files.read_json(ZOO / "metrics.json")["models"].items()
    }
    found = results.read(ZOO, "zoo", params.load(families=False).entry("zoo"))
    found.models.update({model: same[model] for model in found.models})
    assert costs.of_models(found, jobs) == {}  # seconds and sizes are the same for all


@pytest.mark.parametrize("group, markers", [("mlp", [".", "*"]), ("", [".", "."])])
def test_the_star_is_the_net_before_pruning_and_no_model_of_that_name(group, markers):
    figure = costs.draw([_net("taylor", group, 0.8), _net("dense", group, 0.9)])
    assert [line.get_marker() for line in figure.axes[0].lines if line.get_linestyle() == "None"] == markers


def test_nets_of_two_metrics_stand_in_two_rows_each_with_its_own_better_end():
    small, large = {"parameters": 4.0, "bytes": 16.0}, {"parameters": 9.0, "bytes": 36.0}
    read = [_net("taylor", "mlp", 0.8, small), _net("dense", "mlp", 0.9, large)]
    rebuild = [
        _net("taylor", "autoencoder", 0.2, small, "test.mae"),
        _net("dense", "autoencoder", 0.3, large, "test.mae"),
    ]
    figure = costs.draw([*rebuild, *read])
    assert [axes.get_ylabel() for axes in figure.axes] == ["test mae", "", "test accuracy (%)", ""]
    lines = [next(line for line in axes.lines if line.get_linestyle() == "-") for axes in figure.axes]
    best = [line.get_ydata() for line in lines]
    assert [list(y) for y in best] == [[0.2], [0.2], [80, 90], [80, 90]]
    assert [lines[0].get_color(), lines[2].get_color()] == [COLOURS[0], COLOURS[1]]


def _net(label, group, figure, spent=MappingProxyType({"parameters": 9.0}), metric="test.accuracy"):
    return costs.Net(label, group, metric, figure, spent)


# --- times


def test_claims_about_seconds_stand_on_the_page_of_times_and_nowhere_else(project, undrawn, monkeypatch):
    monkeypatch.setattr("atelier.report.costs.of_models", lambda *_: {})
    seconds = {"softmax": (1.0, 1.1, 1.2), "mlp": (3.1, 3.0, 2.9)}
    jobs = [
        {"model": model, "seed": seed, "train_s": s, "epochs": 10}
        for model, found in seconds.items()
        for seed, s in enumerate(found)
    ]
    page = paths.timings("zoo")
    timings.update(page, jobs, stages={"train": 9.0})
    first = "says: A hidden layer beats the softmax classifier"
    timed = "compare: {metric: time.epoch_s, higher: mlp, than: softmax, times: 2}"
    claim = f"- says: A hidden layer takes twice the time or more\n        row: D0.2\n        {timed}"
    edit_params(f"- {first}", f"{claim}\n      - {first}")
    report.main("zoo")
    assert "takes twice" not in (ZOO / "index.md").read_text() + (ZOO / "claims.json").read_text()
    assert [e["id"] for e in files.read_json(ZOO / "claims.json")] == ["zoo-2", "zoo-3", "zoo-4", "zoo-5"]
    (entry,) = files.read_json(page)["claims"]
    expected = [(m - 2 * s) / 10 for m, s in zip(seconds["mlp"], seconds["softmax"], strict=True)]
    assert entry["id"] == "zoo-1" and entry["estimate"] == pytest.approx(np.mean(expected))
    assert entry["verdict"] == "holds" and entry["ci95"] == pytest.approx(
        scipy.stats.t.interval(0.95, 2, np.mean(expected), scipy.stats.sem(expected))
    )
    line = "| zoo-1 | A hidden layer takes twice the time or more | D0.2 | **holds** |"
    assert line in page.with_suffix(".md").read_text()
    timings.update(page, jobs, stages={"train": 8.0})
    assert "claims" not in files.read_json(page)  # they were about what was measured before
