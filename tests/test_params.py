"""params.yaml: whatever is wrong with it is said in one line that names the key, its value, and what would do."""

import copy
import datetime
import math
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import write_params
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml import YAML

from atelier.errors import AtelierError
from atelier.params import Params, Recipe, check_settings, load

ROOT = Path(__file__).parents[1]
VALID = """\
workers: 2
compute: {threads: 1, device: cpu}
datasets:
  digits: {test: 360, validation: 237, seed: 0, train_noise: [gaussian-0.2]}
  mnist: {validation: 10000}
noise:
  seed: 0
  gaussian: [0.2, 0.5]
  masking: [0.25]
experiments: {}
studies:
  small:
    asks: Does a hidden layer help?
    dataset: digits
    seeds: 3
    train: {epochs: 20, batch: 64, lr: 0.003, hold_out: true, patience: 5, evaluate_every: 2}
    models:
      linear: {family: softmax, l2: 0.001}
      dense: {family: mlp, hidden: [32, 16], dropout: [0.1, 0.2], row: D0.1}
      long: {family: mlp, hidden: [32], row: [D0.1, D0.2], train: {epochs: 40, batch: full}}
      gru: {family: recurrent, cell: gru, hidden: [16]}
      denoiser: {family: autoencoder, widths: [32, 8], train: {noise: {kind: gaussian, level: 0.2}}}
    prune:
      models: [dense]
      criteria: [weight-norm, random]
      levels: [0.1, 0.5]
      recoveries: [none, finetune]
      train: {epochs: 5}
    claims:
      - says: A hidden layer helps
        row: D0.1
        compare: {metric: test.accuracy, higher: dense, than: linear, epoch: 20}
      - says: They are equal
        compare: {metric: test.accuracy, equal: [dense, gru], margin: 0.01}
      - says: Depth helps
        compare: {metric: test.accuracy, over: [linear, dense, long], direction: rises}
      - says: It overfits
        compare: {metric: test.nll, of: long, from: 2, to: 40, direction: rises}
    published:
      dense: {test.accuracy: 0.9, parameters: 2000}
    note: Ours
"""
Document = dict[str, Any]


DELETED = ...  # a key that is not there


def text(old: str, new: str) -> str:
    """The valid document with one piece of its text replaced."""
    assert VALID.count(old) == 1, old
    return VALID.replace(old, new)


# (place, what is put there, what is said of it); S is studies.small, M its models, C its claims, {} the place itself.
# What is said opens the message; where it has " ... ", more may stand.
CHANGES: list[tuple[str, Any, str]] = [
    # unknown keys, at every depth
    (
        "workrs",
        2,
        "{} is not a known key; did you mean workers? (cluster, compute, datasets, datasets_on_demand, experiments, "
        "noise, studies, workers)",
    ),
    (
        "mirror",
        "/data",
        "{} is not a known key; (cluster, compute, datasets, datasets_on_demand, experiments, noise, studies, workers)",
    ),
    ("compute.thread", 2, "{} is not a known key; did you mean threads?"),
    ("datasets.digits.tset", 2, "{} is not a known key; did you mean test?"),
    ("noise.gausian", [0.2], "{} is not a known key; did you mean gaussian?"),
    ("noise.salt_and_pepper", [0.1], "{} is not a known key; did you mean salt-and-pepper?"),
    ("S.ask", "?", "{} is not a known key; did you mean asks?"),
    ("S.train.epoch", 3, "{} is not a known key; did you mean epochs?"),
    ("S.prune.level", [0.1], "{} is not a known key; did you mean levels?"),
    ("S.prune.train.lrr", 1, "{} is not a known key; did you mean lr?"),
    ("M.long.train.epoks", 3, "{} is not a known key; did you mean epochs?"),
    ("M.denoiser.train.noise.levl", 1, "{} is not a known key; did you mean level?"),
    ("M.dense.hiden", [3], "{} is not a setting of family mlp; did you mean hidden? (activation, dropout, hidden, "),
    ("M.dense.trian", {}, "{} is not a setting of family mlp; did you mean train?"),
    ("M.linear.hidden", [3], "{} is not a setting of family softmax; ("),
    ("C.0.say", "x", "{} is not a known key; did you mean says?"),
    ("C.0.compare.highr", "x", "{} is not a known key; did you mean higher?"),
    ("a\nb", 1, r"'a\nb' is not a known key"),
    # missing keys
    ("studies", DELETED, "{} is missing"),
    ("studies", {}, "{} is {}; give 1 or more"),
    ("S.train.epochs", DELETED, "{} is missing; it has no default"),
    ("S.prune", DELETED, "{} is missing"),
    ("S.prune.models", [], "{} is []; give 1 or more"),
    ("M", {}, "{} is {}; give 1 or more"),
    ("M.dense.family", DELETED, "{} is missing"),
    ("M.dense", {"famly": "mlp"}, "{}.family is missing; did you mean it by famly?"),
    ("M.denoiser.train.noise", {"kind": "masking"}, "{}.level is missing"),
    # names that must exist
    ("datasets.minst", {"validation": 3}, 'datasets has the key "minst"; did you mean mnist?'),
    ("datasets.digits.train_noise", ["gausian-0.2"], '{}.0 is "gausian-0.2", ... did you mean gaussian-0.2?'),
    ("compute.device", "gpu", '{} is "gpu"; ... (auto, cpu, cuda)'),
    ("S.dataset", "digit", '{} is "digit"; did you mean digits?'),
    ("S.train.optimizer", "adm", '{} is "adm"; did you mean adam? (adam, adamw, momentum, rmsprop, sgd)'),
    ("S.train.schedule", "cosin", '{} is "cosin"; did you mean cosine?'),
    ("S.prune.criteria", ["weight_norm"], '{}.0 is "weight_norm"; did you mean weight-norm?'),
    (
        "S.prune.recoveries",
        ["none", "rewind"],
        "{} holds rewind, which takes back 5 epochs of dense; give prune.train fewer epochs than the model has (20), "
        "and no patience",
    ),
    ("S.prune.schedules", ["weekly"], '{}.0 is "weekly"; '),
    (
        "S.train.thin",
        {"level": 0.5, "criterion": "batch-norm", "inputs": True},
        "{}.inputs is true, but batch-norm cannot rank what no layer computes",
    ),
    ("S.prune.criteria", ["global-tailor"], '{}.0 is "global-tailor"; did you mean global-taylor?'),
    (
        "S.prune",
        {
            "models": ["dense"],
            "criteria": ["global-batch-norm"],
            "levels": [0.5],
            "recoveries": ["none"],
            "inputs": True,
        },
        "{}.inputs is true, but global-batch-norm cannot rank what no layer computes",
    ),
    ("S.prune.recoveries.1", "fine-tune", '{} is "fine-tune"; did you mean finetune?'),
    ("S.prune.schedules", ["oneshot"], '{}.0 is "oneshot"; did you mean one-shot?'),
    ("S.prune.models.0", "dens", 'S.prune.models names "dens", ... did you mean dense?'),
    ("S.prune.train.noise", {"kind": "masking", "level": 0.25}, "{} is masking-0.25, which is not stored"),
    ("S.published.densse", {}, 'S.published names "densse", ... did you mean dense?'),
    ("M.dense.family", "mpl", '{} is "mpl"; did you mean mlp?'),
    ("M.gru.cell", "gur", '{} is "gur"; did you mean gru? (gru, lstm, rnn)'),
    ("M.denoiser.train.noise.kind", "gauss", '{} is "gauss"; did you mean gaussian?'),
    ("M.denoiser.train.noise.draw", "fixd", '{} is "fixd"; did you mean fixed?'),
    ("M.denoiser.train.noise.level", 0.5, "M.denoiser.train.noise is gaussian-0.5, which ... digits.train_noise"),
    ("C.0.compare.than", "liner", 'C.0.compare names "liner", ... did you mean linear?'),
    # numbers
    ("workers", True, "{} is true; give a whole number"),
    ("workers", -1, "{} is -1; give 1 or more"),
    ("cluster", 8786, "{} is 8786; give text, in quotes"),
    ("cluster", "", '{} is ""; give the address of a Dask scheduler, as in tcp://host:8786, or null'),
    ("cluster", "host:8786", '{} is "host:8786"; give the address of a Dask scheduler'),
    ("cluster", "http://host:8786", '{} is "http://host:8786"; give the address'),
    ("cluster", "tcp://host", '{} is "tcp://host"; give the address'),
    ("cluster", "tcp://:8786", '{} is "tcp://:8786"; give the address'),
    ("cluster", "tcp://host:0", '{} is "tcp://host:0"; give the address'),
    ("cluster", "tcp://host:65536", '{} is "tcp://host:65536"; give the address'),
    ("cluster", "tcp://host:8786/x", '{} is "tcp://host:8786/x"; give the address'),
    ("cluster", "tcp://[::1:8786", '{} is "tcp://[::1:8786"; give the address'),
    ("cluster", "tcp://host:8786\n", '{} is "tcp://host:8786\\n"; give the address'),
    ("workers", ["x" * 1000], '{} is ["xxx ... xxx...; give a whole number'),
    ("compute.threads", 0, "{} is 0; give 1 or more"),
    ("datasets.mnist.validation", 0, "{} is 0; give 1 or more"),
    ("noise.gaussian", [0], "{}.0 is 0; give more than 0"),
    ("noise.gaussian", [0.12345678], "{}.0 is 0.12345678; give six digits at most"),
    ("noise.gaussian", [0.2, 0.2], "{} is [0.2, 0.2]; give each once"),
    ("noise.masking", [1.0], "{}.0 is 1.0; give less than 1"),
    ("S.train.lr", True, "{} is true; give a number"),
    ("S.train.lr", "1e-3", '{} is the text "1e-3"; give a number'),
    ("S.train.lr", math.nan, "{} is NaN; give a finite number"),
    ("S.train.lr", math.inf, "{} is Infinity; give a finite number"),
    ("S.train.lr", -0.1, "{} is -0.1; give more than 0"),
    ("S.train.momentum", 1, "{} is 1; give less than 1"),
    ("S.train.label_smoothing", 1, "{} is 1; give less than 1"),
    ("S.train.weight_average", 0, "{} is 0; give more than 0"),
    ("S.train.weight_average", 0.999, "{} is 0.999; give 0.5 or less"),
    ("S.train.hold_out", 1, "{} is 1; give true or false"),
    ("S.train.hold_out", "yes", '{} is "yes"; give true or false'),
    ("S.train.epochs", 0, "{} is 0; give 1 or more"),
    ("S.train.epochs", 1.5, "{} is 1.5; give a whole number"),
    ("S.train.epochs", 20.0, "{} is 20.0; give a whole number"),
    ("S.train.epochs", 10**400, "{} is 1000 ... 0000...; give less than 2147483648"),
    ("S.train.lr", 10**400, "{} is 1000 ... 0000...; give a number"),
    ("S.train.snapshots", [0, -1], "{}.1 is -1; give 0 or more"),
    ("S.train.batch", "fulll", '{} is "fulll"; did you mean full?'),
    ("M.long.train.batch", 0, "{} is 0; (1 or more, full)"),
    ("S.seeds", 0, "{} is 0; give 1 or more, or a list"),
    ("S.seeds", "three", '{} is the text "three"; give a whole number, or a list'),
    ("S.seeds", [0, -1], "{}.1 is -1; give 0 or more"),
    ("S.seeds", [2**31], "{}.0 is 2147483648; give less than 2147483648"),
    ("S.seeds", [0, 1, 0], "{} is [0, 1, 0]; give each once"),
    ("S.prune.levels", [0.5, 1.0], "{}.1 is 1.0; give less than 1"),
    ("S.prune.levels", [30], "{}.0 is 30; give less than 1"),
    ("S.prune.levels", [0.5, 0.1], "{} is [0.5, 0.1]; give levels that rise"),
    ("S.prune.levels", [0.5, 0.5], "{} is [0.5, 0.5]; give levels that rise"),
    ("S.published.dense.parameters", math.nan, "{} is NaN; give a finite number"),
    ("M.linear.l2", "0.1", '{} is the text "0.1"; give a number'),
    ("M.linear.l2", math.inf, "{} is Infinity; give a finite number"),
    ("M.linear.l2", -1, "{} is -1; give 0 or more"),
    ("M.denoiser.train.noise", {"kind": "masking", "level": 1}, "{}.level is 1; give less than 1"),
    ("C.1.compare.margin", math.inf, "{} is Infinity; give a finite number"),
    # the shape of a value
    ("compute", [1], "{} is [1]; give keys with values"),
    ("S.train", None, "{} is null; give keys with values"),
    ("S.asks", 3, "{} is 3; give text"),
    ("S.asks", datetime.date(2020, 1, 1), '{} is "2020-01-01"; give text, in quotes'),
    ("S.asks", "  ", '{} is "  "; give text that can be printed'),
    ("M", ["mlp"], '{} is ["mlp"]; give keys with values'),
    ("M.long.train", 3, "{} is 3; give keys with values"),
    ("M.long.hidden", 300, "{} is 300; give a list"),
    ("M.long.hidden", [0], "{}.0 is 0; give 1 or more"),
    ("M.dense.dropout", [0.1, 1.0], "{}.1 is 1.0; give less than 1"),
    ("M.dense.dropout", [0.1], "M.dense ... dropout has 1 rates for 2 hidden layers"),
    ("C.1.compare.equal", ["dense"], "{}.1 is missing"),
    ("C.1.compare.equal", ["dense", "gru", "long"], "{} is ... give a list of 2"),
    ("C.2.compare.over", ["dense", "gru"], "{} is ... give 3 or more"),
    # names that are given
    ("studies.my study", {}, 'studies has the key "my study"; give 40 small letters, digits or hyphens at most'),
    ("studies.a/b", {}, 'studies has the key "a/b"; give 40 small letters'),
    ("M.MLP", {"family": "mlp"}, 'M has the key "MLP"; give 40 small letters'),
    (f"M.{'x' * 41}", {"family": "mlp"}, "M has the key ... give 40 small letters"),
    ("M.dense.row", "D9.1", '{} is "D9.1"; give a row of the catalogue, as in D0.2'),
    ("M.long.row.1", "0.2", '{} is "0.2"; give a row of the catalogue'),
    ("C.0.compare.metric", "accuracy", '{} is "accuracy"; give a metric, as in test.accuracy'),
    ("S.published.dense", {"f1": 1}, '{} has the key "f1"; give a metric'),
    # keys that do not go together
    ("S.train.label_smoothing", 0.1, "M.denoiser: family autoencoder does not learn labels; label_smoothing is for"),
    ("S.train.hold_out", False, "S.train.patience is 5; it needs hold_out: true"),
    ("M.long.train.hold_out", False, "M.long.train.patience is 5; it needs hold_out: true"),
    ("S.prune.train.hold_out", False, "S.prune.train.patience is 5; it needs hold_out: true"),
    (
        "C.0.compare.over",
        ["linear", "dense", "gru"],
        "C.0.compare has epoch, higher, over, than; give metric and one of",
    ),
    ("C.0.compare.lower", "gru", "C.0.compare has epoch, higher, lower, than; give"),
    ("C.0.compare.than", DELETED, "C.0.compare has epoch, higher; give ... higher + than"),
    ("C.0.compare.than", "dense", "C.0.compare is between dense and dense; give each model once"),
    (
        "C.0.compare.epoch",
        7,
        "C.0.compare names epoch 7, at which dense is not evaluated; give 1, 20 or a multiple of 2",
    ),
    ("C.0.compare", {"metric": "test.nll"}, "{} has no models; give"),
    ("C.1.compare.margin", DELETED, "C.1.compare has equal; give ... equal + margin"),
    ("C.1.compare.margin", 0, "{} is 0; give the difference that still counts as equal"),
    ("C.2.compare.direction", DELETED, "C.2.compare has over; give ... over + direction"),
    ("C.2.compare.epoch", 2, "C.2.compare has direction, epoch, over; give"),
    ("C.3.compare.from", 40, "{} is 40; give an epoch before to (40)"),
    ("C.3.compare.to", 41, "C.3.compare names epoch 41, at which long is not evaluated; give 1, 40 or"),
]

# (file, what is said of it): faults that no change of a well-formed document makes
FILES: dict[str, tuple[str | bytes, str]] = {
    "a key twice": (text("workers: 2", "workers: 2\nworkers: 3"), "line 2: the key workers stands there a second time"),
    "a setting twice": (
        text("cell: gru,", "cell: gru, cell: rnn,"),
        "line 21: the key cell stands there a second time",
    ),
    "a number for a model's name": (text("      gru:", "      7:"), "M has the key 7; give text, in quotes"),
    "a number for a key": (text("workers: 2", "2: workers"), "2 is not a known key"),
    "a number for a setting": (text("cell: gru", "3: gru"), "M.gru.3 is not a known key"),
    "too large for a float": (text("lr: 0.003", "lr: 1e999"), "S.train.lr is Infinity; give a finite number"),
    "half a character": (text("Does a hidden", r'"\ud800"#'), 'S.asks is "\\ud800"; give text that can be printed'),
    "nothing": ("", "is empty; give keys with values"),
    "a comment": ("# nothing\n", "is empty"),
    "a list": ("- 1\n- 2\n", "is [1, 2]; give keys with values"),
    "a word": ("atelier\n", 'is "atelier"; give keys with values'),
    "tabs": ("workers: 2\ncompute:\n\tthreads: 1\n", r"line 3: is not valid YAML: found character '\t'"),
    "an open bracket": ("workers: [1, 2\ncompute: 3", "line 2: is not valid YAML"),
    "two documents": (VALID + "---\n" + VALID, "line 42: is not valid YAML ... another document"),
    "a tag": ("workers: !!python/object:os.system x\n", "line 1: is not valid YAML ... os.system"),
    "a wrong tag": ("workers: !!bool perhaps\n", "is not valid YAML ... perhaps"),
    "a 13th month": ("workers: 2020-13-01\n", "is not valid YAML: month must be in 1..12"),
    "a control character": ("workers: \x00\n", "is not valid YAML ... #x0000"),
    "an alias in itself": ("workers: &a [*a]\n", "is nested too deep"),
    "too deep": ("workers: " + "[" * 1000, "is nested too deep"),
    "an unknown alias": ("workers: *two\n", "line 1: is not valid YAML ... two"),
    "Latin-1": (VALID.replace("Does", "D\xe9s").encode("latin-1"), "is not UTF-8 text"),
}


def valid() -> Document:
    return YAML(typ="safe").load(VALID)


def spelt_out(shorthand: str) -> str:
    full = {"S": "studies.small", "M": "studies.small.models", "C": "studies.small.claims"}
    return re.sub(r"\b[SMC](?=[. ]|$)", lambda letter: full[letter[0]], shorthand)


def changed(place: str, value: Any) -> Document:
    """The valid document with a value put at a place, or taken from it."""
    document = holder = valid()
    *way, last = (int(key) if key.isdecimal() and len(key) == 1 else key for key in spelt_out(place).split("."))
    for key in way:
        holder = holder[key]
    if value is DELETED:
        del holder[last]
    else:
        holder[last] = value
    return document


def written(folder: Path, content: Document | str | bytes) -> Path:
    path = folder / "params.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        with open(path, "w", encoding="utf-8") as file:
            YAML(typ="safe").dump(content, file)
    return path


def assert_one_line(message: str) -> None:
    assert message.startswith("params.yaml: ")
    assert message.isprintable()  # no line break of any kind
    for jargon in ("Input should", "function-", "constrained", "literal[", "tuple[", "[key]", "Value error"):
        assert jargon not in message


def assert_said(message: str, expected: str) -> None:
    assert_one_line(message)
    opening, *rest = spelt_out(expected).split(" ... ")
    assert message.startswith(f"params.yaml: {opening}")
    for part in rest:
        assert part in message


@pytest.mark.parametrize(("place", "value", "said"), CHANGES, ids=[f"{p}={v!r:.30}" for p, v, _ in CHANGES])
def test_a_faulty_value_is_named_in_one_line(place, value, said, tmp_path):
    with pytest.raises(AtelierError) as caught:
        load(written(tmp_path, changed(place, value)))
    assert_said(str(caught.value), said.replace("{}", place, 1))


@pytest.mark.parametrize("fault", FILES)
def test_a_faulty_file_is_described_in_one_line(fault, tmp_path):
    content, said = FILES[fault]
    with pytest.raises(AtelierError) as caught:
        load(written(tmp_path, content))
    assert_said(str(caught.value), said)


def test_a_first_training_is_checked_as_a_recipe_is(project):
    def refused(family: str, **first) -> str:
        write_params(project, {"net": {"family": family, "train": {"pretrain": {"epochs": 1} | first}}})
        with pytest.raises(AtelierError) as error:
            load()
        return str(error.value)

    write_params(project, {"net": {"family": "dbn", "train": {"pretrain": {"epochs": 7}}}})
    recipe = load().study("tiny").recipe("net")
    assert (recipe.pretraining.epochs, recipe.pretraining.lr, recipe.pretraining.pretrain) == (7, recipe.lr, None)
    assert recipe.changed({"label_smoothing": 0.1}).pretraining.label_smoothing == 0  # it has no labels
    assert "family softmax has no first training; pretrain is for dbn" in refused("softmax")
    assert "pretrain.epochs is 0" in refused("dbn", epochs=0)
    assert "models.net.train.pretrain.noise is masking-0.5, which is not stored" in refused(
        "dbn", noise={"kind": "masking", "level": 0.5}
    )


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        ("S.train.optimizer", "adm", 'S.train.optimizer is "adm"; did you mean adam?'),
        ("M.dense.hiden", [3], "M.dense.hiden is not a setting of family mlp; did you mean hidden?"),
        ("studies.my study", {}, 'studies has the key "my study"; give'),
        ("compute.threads", 0, "compute.threads is 0; give 1 or more"),
    ],
)
def test_the_command_line_says_it_and_does_nothing(place, value, said, tmp_path):
    written(tmp_path, changed(place, value))
    done = check(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("atelier: ")
    assert done.stderr.endswith("\n")
    assert_said(done.stderr.removeprefix("atelier: ").removesuffix("\n"), said)
    assert os.listdir(tmp_path) == ["params.yaml"]


def test_the_command_line_passes_what_is_right(tmp_path):
    written(tmp_path, VALID)
    done = check(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_missing_file_is_said_in_one_line(tmp_path):
    done = check(tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "params.yaml: cannot be read in " in done.stderr
    assert len(done.stderr.splitlines()) == 1


def check(folder: Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "atelier", "check"]
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=60)


def test_our_own_parameters_load():
    params = load(ROOT / "params.yaml")
    for study in params.studies.values():
        assert [study.recipe(model).epochs > 0 for model in study.models]


def test_values_have_the_types_that_the_code_relies_on(tmp_path):
    params = load(written(tmp_path, text("lr: 0.003", "lr: 1e-3")))
    study = params.study("small")
    assert study.train.lr == 0.001
    assert study.seed_list == [0, 1, 2]
    assert study.models["dense"].settings == {"hidden": (32, 16), "dropout": (0.1, 0.2)}
    assert study.models["dense"].rows == ("D0.1",)
    assert study.models["long"].rows == ("D0.1", "D0.2")
    assert study.models["gru"].rows == ()
    assert params.noise.corruptions() == {
        "gaussian-0.2": ("gaussian", 0.2),
        "gaussian-0.5": ("gaussian", 0.5),
        "masking-0.25": ("masking", 0.25),
    }
    assert study.claims[3].compare.start == 2
    assert study.claims[3].compare.end == 40
    assert study.claims[2].compare.models == ("linear", "dense", "long")


def test_seeds_may_be_listed(tmp_path):
    document = valid()
    document["studies"]["small"]["seeds"] = [7, 3]
    assert load(written(tmp_path, document)).study("small").seed_list == [7, 3]


def test_a_model_s_name_may_hold_a_dot(tmp_path):
    models = (
        load(written(tmp_path, text("      gru:", "      gru-0.5:").replace("dense, gru]", "dense, gru-0.5]")))
        .study("small")
        .models
    )
    assert "gru-0.5" in models


def test_a_whole_number_stands_for_a_real_one(tmp_path):
    document = valid()
    document["studies"]["small"]["train"]["lr"] = 1
    document["studies"]["small"]["models"]["linear"]["l2"] = 2
    study = load(written(tmp_path, document)).study("small")
    settings = check_settings("softmax", study.models["linear"].settings, "here")
    assert [type(v) for v in (study.train.lr, settings["l2"])] == [float, float]


def test_a_folded_question_is_one_line(tmp_path):
    params = load(written(tmp_path, text("Does a hidden layer help?", ">\n      Does it\n      help?")))
    assert params.study("small").asks == "Does it help?"


def test_anchors_aliases_and_merge_keys(tmp_path):
    content = text("linear: {family: softmax, l2: 0.001}", "linear: &linear {family: softmax, l2: 0.001}")
    content = content.replace("gru: {family", "again: {<<: *linear, l2: 0.5}\n      gru: {family")
    models = load(written(tmp_path, content)).study("small").models
    assert (models["again"].family, models["again"].settings) == ("softmax", {"l2": 0.5})
    assert models["linear"].settings == {"l2": 0.001}


def test_a_model_s_recipe_is_the_study_s_with_its_own_changes(tmp_path):
    study = load(written(tmp_path, VALID)).study("small")
    ours = study.train.model_dump()
    assert study.recipe("dense") == study.train
    assert study.recipe("long").model_dump() == ours | {"epochs": 40, "batch": "full"}
    noise = {"kind": "gaussian", "level": 0.2, "draw": "fixed"}
    assert study.recipe("denoiser").model_dump() == ours | {"noise": noise}
    assert study.prune_recipe("dense").model_dump() == ours | {"epochs": 5}


def test_evaluated_epochs():
    recipe = Recipe(epochs=11, evaluate_every=4)
    assert [epoch for epoch in range(20) if recipe.evaluates(epoch)] == [1, 4, 8, 11]


def test_parameters_cannot_be_changed(tmp_path):
    params = load(written(tmp_path, VALID))
    study = params.study("small")
    for thing, name in ((params, "workers"), (study.train, "epochs"), (study.models["dense"], "family")):
        with pytest.raises(ValidationError, match="frozen"):
            setattr(thing, name, 3)
    for table in (params.studies, params.datasets, study.models, study.published["dense"], study.models["long"].train):
        before = dict(table)
        for change in (
            lambda t: t.update(x=1),
            lambda t: t.pop(next(iter(t))),
            lambda t: t.clear(),
            lambda t: t.__setitem__("x", 1),
        ):
            with pytest.raises(TypeError, match="frozen"):
                change(table)
        assert table == before
    study.models["dense"].settings.clear()  # a copy
    assert study.models["dense"].settings


@pytest.mark.parametrize(
    "address", [None, "tcp://host:8786", "tcp://10.0.0.2:1", "tls://a-b.c_d:65535", "tcp://[::1]:80"]
)
def test_the_jobs_stay_here_or_go_to_a_scheduler(address, tmp_path):
    assert load(written(tmp_path, VALID)).cluster is None
    assert load(written(tmp_path, changed("cluster", address))).cluster == address


def test_no_stage_depends_on_who_does_its_jobs():
    stages = YAML(typ="safe").load((ROOT / "dvc.yaml").read_text())["stages"]
    keys = [key for stage in stages.values() for key in stage.get("do", stage).get("params", [])]
    named = {key.split(".")[0] for key in keys if isinstance(key, str)}  # others are of code.json
    assert named == {"compute", "datasets", "experiments", "noise", "studies"}


def test_parameters_travel_to_worker_processes(tmp_path):
    params = load(written(tmp_path, VALID))
    assert pickle.loads(pickle.dumps(params)) == params
    assert copy.deepcopy(params) == params
    other = load(written(tmp_path, text("workers: 2", "workers: 3")))
    assert other != params


def test_without_families_neither_torch_nor_settings_are_touched(tmp_path):
    path = written(tmp_path, changed("M.dense.hiden", [3]))
    program = (
        "import sys; from pathlib import Path; from atelier.params import load; "
        f"load(Path({str(path)!r}), families=False); "
        "print([m for m in ('torch', 'sklearn', 'mlflow', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
    with pytest.raises(AtelierError, match="did you mean mlp"):
        load(written(tmp_path, changed("M.dense.family", "mpl")), families=False)


# Whatever a document holds, it loads or it is refused in one line.

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-2, 3),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(
        ["full", "mlp", "dense", "1e-3", "gaussian-0.2", "test.accuracy", "D0.1", "a b", "a/b", "~", "\u2028"]
    ),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(SCALARS.filter(lambda k: k == k), inner, max_size=2),
    max_leaves=4,
)


def places(value: Any, way: tuple = ()) -> list[tuple]:
    """Every way into a document, the containers among them."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, inner in items for found in ((*way, key), *places(inner, (*way, key)))]


@st.composite
def mutations(draw: st.DrawFn) -> Document:
    document = valid()
    for _ in range(draw(st.integers(1, 3))):
        *way, last = draw(st.sampled_from(places(document)))
        holder: Any = document
        for key in way:
            holder = holder[key]
        match draw(st.sampled_from(["delete", "replace", "add"])):
            case "delete":
                del holder[last]
            case "replace":
                holder[last] = draw(VALUES)
            case "add" if isinstance(holder, dict):
                holder[draw(SCALARS)] = draw(VALUES)
            case "add":
                holder.append(draw(VALUES))
        if not places(document):
            break
    return document


def loads_or_says_why(path: Path) -> None:
    try:
        assert isinstance(load(path), Params)
    except AtelierError as error:
        assert_one_line(str(error))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(document=mutations())
def test_any_mutation_loads_or_is_refused_in_one_line(document, tmp_path_factory):
    loads_or_says_why(written(tmp_path_factory.getbasetemp(), document))


@settings(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    start=st.integers(0, len(VALID)),
    cut=st.integers(0, 12),
    piece=st.text("{}[]:,-#&*!|>'\"%@` \n\taz09.\0\x85", max_size=6),
)
def test_any_typing_slip_loads_or_is_refused_in_one_line(start, cut, piece, tmp_path_factory):
    slipped = VALID[:start] + piece + VALID[start + cut :]
    loads_or_says_why(written(tmp_path_factory.getbasetemp(), slipped))
