"""Models drawn from ranges: within them, evenly, each draw on its own; and chosen on validation items alone."""

import copy
import math
from types import SimpleNamespace

import pytest
from conftest import write_params

from atelier import strict, trials
from atelier.errors import AtelierError
from atelier.params import load
from atelier.report import page, tables
from atelier.report.results import Results

NET = {
    "family": "mlp",
    "row": "D0.1",
    "draws": {"count": 40, "seed": 3},
    "hidden": {"among": [[8], [16, 8], [32]]},
    "train": {"lr": {"from": 0.0001, "to": 0.1}, "batch": {"from": 8, "to": 64}, "optimizer": "adamw"},
}


def expanded(**models) -> dict:
    return trials.expanded(strict.frozen({"workers": 1, "studies": {"s": {"seeds": 1, "models": models}}}))


def drawn(net: dict = NET, name: str = "net") -> list[dict]:
    return list(expanded(**{name: net})["studies"]["s"]["models"].values())


def changed(*way: str, to: object) -> dict:
    net = holder = copy.deepcopy(NET)
    for key in way[:-1]:
        holder = holder[key]
    holder[way[-1]] = to
    return net


def test_a_model_with_draws_becomes_so_many_models_in_its_place():
    first, last = {"family": "softmax"}, {"family": "mlp", "hidden": (4,)}
    document = expanded(first=first, net=NET, last=last)
    models = document["studies"]["s"]["models"]
    assert list(models) == ["first", *(f"net-{i:02d}" for i in range(1, 41)), "last"]
    assert (models["first"], models["last"], document["workers"]) == (first, last, 1)
    for net in (models[name] for name in models if name.startswith("net-")):
        assert net.keys() == {"family", "row", "hidden", "train", "trial_of"}
        assert (net["family"], net["row"], net["trial_of"], net["train"]["optimizer"]) == (
            "mlp",
            "D0.1",
            "net",
            "adamw",
        )
        assert net["hidden"] in [(8,), (16, 8), (32,)]
        assert 0.0001 <= net["train"]["lr"] <= 0.1 and net["train"]["lr"] == float(f"{net['train']['lr']:.3g}")
        assert type(net["train"]["batch"]) is int and 8 <= net["train"]["batch"] <= 64


def test_without_draws_a_document_stays_as_it_is():
    plain = strict.frozen({"studies": {"s": {"models": {"net": {"family": "mlp", "hidden": [4]}}}}})
    assert trials.expanded(plain) == plain
    for odd in (None, [1], {"studies": [1]}, {"studies": {"s": 1}}, {"studies": {"s": {"models": "net"}}}):
        assert trials.expanded(odd) == odd


def test_choices_and_logarithms_are_drawn_evenly():
    nets = [net for seed in range(10) for net in drawn(changed("draws", to={"count": 99, "seed": seed}))]
    n = len(nets)
    for share, expected in [
        *((sum(net["hidden"] == hidden for net in nets) / n, 1 / 3) for hidden in [(8,), (16, 8), (32,)]),
        *((sum(net["train"]["lr"] < 10**-power for net in nets) / n, (4 - power) / 3) for power in (2, 3)),
        (sum(net["train"]["batch"] < math.sqrt(8 * 64) for net in nets) / n, 1 / 2),
    ]:
        assert abs(share - expected) < 4 * math.sqrt(expected * (1 - expected) / n)


def test_a_draw_depends_on_seed_model_number_and_key_alone():
    nets = drawn()
    assert nets == drawn() and len({str(net) for net in nets}) > 30
    assert drawn(changed("draws", to={"count": 7, "seed": 3})) == nets[:7]
    narrow = drawn(changed("train", "batch", to={"among": [32]}))
    assert [(net["hidden"], net["train"]["lr"]) for net in narrow] == [(n["hidden"], n["train"]["lr"]) for n in nets]
    for other in (drawn(changed("draws", to={"count": 40, "seed": 4})), drawn(name="ten")):
        assert sum(one["train"]["lr"] == two["train"]["lr"] for one, two in zip(nets, other, strict=True)) < 3


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (changed("draws", to=20), "net.draws is 20; give keys with values"),
        (changed("draws", to={"count": 0}), "net.draws.count is 0; give 1 or more"),
        (changed("draws", to={"cuont": 2}), "net.draws.cuont is not a known key; did you mean count?"),
        (changed("hidden", to={"among": []}), "net.hidden.among is []; give 1 or more entries"),
        (changed("train", "lr", to={"from": 0, "to": 1}), "net.train.lr.from is 0; give more than 0"),
        (changed("train", "lr", to={"from": 1, "to": 0.1}), "net.train.lr.from is 1; give less than to (0.1)"),
        (changed("train", "lr", to={"from": 0.1}), "net.train.lr.to is missing"),
        (changed("train", "lr", to={"from": 1, "to": 2, "by": 1}), "net.train.lr.by is not a known key"),
        (changed("train", "lr", to={"among": [0.1, -1]}), "-1; give more than 0"),
        (changed("hidden", to={"from": 2, "to": 9}), "; give a list"),
        ({"family": "mlp", "hidden": {"among": [[8]]}}, 'net.hidden is {"among": [[8]]}; give a list'),
        (changed("train", "hold_out", to=False), "is a trial; it needs hold_out: true"),
    ],
)
def test_a_fault_is_said_in_one_line(net, said, project):
    write_params(project, {"net": net})
    with pytest.raises(AtelierError) as error:
        load()
    message = str(error.value)
    assert message.startswith("params.yaml: studies.tiny.models.net") and said in message and message.isprintable()


def test_a_name_that_a_trial_has_is_refused(project):
    write_params(project, {"net": NET, "net-07": {"family": "softmax"}})
    with pytest.raises(AtelierError, match="studies.tiny.models.net-07 is a trial's name too; rename one"):
        load()


def test_a_study_trains_its_trials_as_it_does_any_model(project):
    write_params(project, {"net": NET, "fixed": {"family": "softmax"}})
    study = load().study("tiny")
    assert study.trials == {"net": [f"net-{i:02d}" for i in range(1, 41)]}
    assert study.recipe("net-05").lr == drawn()[4]["train"]["lr"]
    assert study.models["net-05"].settings == {"hidden": drawn()[4]["hidden"]}


def test_the_best_on_validation_items_is_chosen_whatever_test_says():
    def entry(validation: float | None, test: float) -> dict:
        metrics = {"validation.accuracy": validation, "test.accuracy": test}
        return {"metrics": {name: {"mean": value, "ci95": None} for name, value in metrics.items()}}

    models = {"a-01": entry(0.8, 0.9), "a-02": entry(0.85, 0.7), "a-03": entry(0.85, 0.99), "a-04": entry(None, 1.0)}
    found = Results("s", "digits", [0], models, {}, {}, {}, {}, [])
    assert tables.trials(found, {"a": list(models)}).splitlines()[2:] == [
        "| a | 4 | `validation.accuracy` | 80.00 to 85.00 % | a-02 | 85.00 % | 70.00 % |"
    ]
    assert tables.trials(found, {}) == ""
    told = page._choice(found, SimpleNamespace(trials={"a": list(models)}))
    assert told == "Validation items decide: of 3 trials of a they choose a-02 (validation.accuracy 85.00 %)."
    assert "no claim" in page._choice(found, SimpleNamespace(trials={}))
