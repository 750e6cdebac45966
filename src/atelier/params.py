"""params.yaml -> frozen typed objects. What it does not know it rejects, in one line: key, value, what would do."""

import functools
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from pydantic import AfterValidator, BaseModel, Field, create_model, model_validator

from atelier import paths, strict, trials
from atelier.errors import AtelierError, nearest
from atelier.strict import FilledTable, FrozenDict, Several, Strict, Table


def _family(text: str) -> str:
    from atelier import families

    return strict.one_of(families.names(), text)


def _experiment(text: str) -> str:
    from atelier import experiments

    return strict.one_of(experiments.names(), text)


def _source(text: str) -> str:
    from atelier.data import sources

    return strict.one_of(sources.names(), text)


def _short(level: float) -> float:
    """Levels stand in file names, which must not be rounded."""
    if float(f"{level:g}") != level:
        raise ValueError("give six digits at most")
    return level


def _line(text: str) -> str:
    """Text on one line, however it is folded in the document."""
    line = " ".join(text.split())
    if not line or not line.isprintable():
        raise ValueError("give text that can be printed")
    return line


def _scheduler(text: str) -> str:
    found = re.fullmatch(r"(tcp|tls)://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):([0-9]{1,5})", text)
    if not found or not 0 < int(found[3]) < 2**16:
        raise ValueError("give the address of a Dask scheduler, as in tcp://host:8786, or null")
    return text


def _rising(values: tuple) -> tuple:
    if list(values) != sorted(set(values)):
        raise ValueError("give levels that rise, each once")
    return values


OFF = (None, False, ())  # equal to 0 too
_METRIC, _EXACT = r"(train|validation|test|gap|weights|time)\.[a-z0-9_.-]+", "parameters|multiply_adds|bytes"
T = TypeVar("T")
Kind = Literal["gaussian", "masking", "salt-and-pepper"]
Criterion = Literal[
    "activation",
    "batch-norm",
    "random",
    "reconstruction",
    "taylor",
    "weight-norm",
    "global-activation",
    "global-batch-norm",
    "global-random",
    "global-taylor",
    "global-weight-norm",
]
Count = Annotated[int, Field(ge=1, lt=2**31)]
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Radius = Annotated[float, Field(gt=0, le=1), AfterValidator(_short)]
Text = Annotated[str, AfterValidator(_line)]
Name = Annotated[str, strict.like(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", "40 small letters, digits or hyphens at most")]
ModelName = Annotated[
    str, strict.like(r"[a-z0-9]([a-z0-9.-]{0,38}[a-z0-9])?", "40 small letters, digits, dots or hyphens at most")
]
Metric = Annotated[str, strict.like(_METRIC, "a metric, as in test.accuracy")]
Figure = Annotated[str, strict.like(f"{_METRIC}|{_EXACT}", "a metric, as in test.accuracy, or parameters")]
Row = Annotated[str, strict.like(r"D[0-4](\.[a-z0-9-]+)+", "a row of the catalogue, as in D0.2")]
Levels = Annotated[tuple[Annotated[T, AfterValidator(_short)], ...], AfterValidator(strict.once)]


class Compute(Strict):
    threads: Count = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"


class Dataset(Strict):
    """Items held out for validation, and for test where the source has no test set of its own.

    So many, stratified by class with `seed`, or all of certain people, where items are known to be theirs.
    channels, step: which channels of a recording are taken, and how far apart its windows begin.
    """

    validation: Count | None = None
    validation_subjects: Several[Count] | None = None
    test: Count | None = None
    test_subjects: Several[Count] | None = None
    seed: Seed = 0
    train_noise: Annotated[tuple[str, ...], AfterValidator(strict.once)] = ()
    channels: Literal["document", "valid"] | None = None
    step: Count | None = None

    @property
    def reading(self) -> dict[str, Any]:
        """What the reader of the files is told."""
        return {key: value for key in ("channels", "step") if (value := getattr(self, key)) is not None}

    @model_validator(mode="after")
    def _held_out_once(self) -> "Dataset":
        if self.validation is None and self.validation_subjects is None:
            raise ValueError(".validation is missing; give a count, or validation_subjects")
        for key in ("validation", "test"):
            if getattr(self, key) and getattr(self, f"{key}_subjects"):
                raise ValueError(f".{key} and .{key}_subjects are both set; give one")
        if both := set(self.validation_subjects or ()) & set(self.test_subjects or ()):
            raise ValueError(f".test_subjects names {min(both)}, as validation_subjects does; give each once")
        return self


class Noise(Strict):
    """The levels at which every test set is stored."""

    seed: Seed = 0
    gaussian: Levels[Positive] = ()
    masking: Levels[Fraction] = ()
    salt_and_pepper: Annotated[Levels[Fraction], Field(alias="salt-and-pepper")] = ()

    def corruptions(self) -> dict[str, tuple[str, float]]:
        """Name, as in "gaussian-0.2" -> (kind, level), in a fixed order."""
        levels = {kind: getattr(self, kind.replace("-", "_")) for kind in get_args(Kind)}
        return {f"{kind}-{level:g}": (kind, level) for kind, found in levels.items() for level in found}


class TrainNoise(Strict):
    """Corruption of the training inputs: the stored set, or drawn afresh every epoch."""

    kind: Kind
    level: Annotated[Positive, AfterValidator(_short)]
    draw: Literal["fixed", "fresh"] = "fixed"

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.level:g}"

    @model_validator(mode="after")
    def _level_is_a_share(self) -> "TrainNoise":
        if self.kind != "gaussian" and self.level >= 1:
            raise ValueError(f".level is {self.level:g}; give less than 1: {self.kind} takes the share of pixels")
        return self


class Augment(Strict):
    """Random changes of the images of a batch: mirrored, moved by up to `shift` pixels, erased in part at this rate;
    turned, stretched and slanted by up to `warp`, a share of their size.
    """

    flip: bool = False
    shift: Annotated[int, Field(ge=0)] = 0
    erase: Annotated[float, Field(ge=0, le=1)] = 0.0
    warp: Annotated[float, Field(ge=0, lt=0.5)] = 0.0


class Attack(Strict):
    """Every batch is moved so that the net errs, by at most epsilon in every pixel of [0, 1]; see attacks.py.

    steps: of pgd, the others go one step a batch. step: how far one goes; None: the rule of the kind (step_size).
    start: where it begins: at a random point of the ball, or at the item itself.
    """

    kind: Literal["fgsm", "pgd", "universal"]
    epsilon: Radius
    steps: Count | None = None
    step: Positive | None = None
    start: Literal["item", "random"] = "random"

    @model_validator(mode="after")
    def _steps_are_of_pgd(self) -> "Attack":
        if self.kind == "pgd" and self.steps is None:
            raise ValueError(".steps is missing; give how many steps pgd takes, as in steps: 7")
        if self.kind != "pgd" and self.steps is not None:
            raise ValueError(f".steps is {self.steps}; {self.kind} takes one step a batch: drop it, or give kind: pgd")
        return self


class Attacks(Strict):
    """How the classifiers of a study are attacked once they are trained; see robustness.py.

    Within epsilon of every test item, by PGD of so many steps and restarts and by weaker means. curve: the epsilons of
    curves. items: the test items, the first, of curves and checks. transfer: models whose hard items the others get.
    """

    epsilon: Radius
    steps: Count
    restarts: Count
    items: Count
    curve: Annotated[tuple[Radius, ...], Field(min_length=1), AfterValidator(_rising)]
    transfer: Several[str]


class Thin(Strict):
    """Nodes, or weights, fall silent one after the other as training goes on; see sparsity.py.

    level: the share of them that is gone after the share `until` of all epochs. keep: how many nodes of each layer that
    it names are left then, instead; inputs are one by name. inputs: whether as large a share of them goes too.
    """

    what: Literal["nodes", "weights"] = "nodes"
    level: Fraction | None = None
    keep: FilledTable[str, Count] | None = None
    criterion: Criterion = "weight-norm"
    inputs: bool = False
    until: Fraction = 0.5

    @model_validator(mode="after")
    def _inputs_have_no_norm(self) -> "Thin":
        if self.inputs and self.criterion.endswith("batch-norm"):
            raise ValueError(f".inputs is true, but {self.criterion} cannot rank what no layer computes; drop one")
        return self

    @model_validator(mode="after")
    def _level_or_keep(self) -> "Thin":
        if (self.level is None) == (self.keep is None):
            raise ValueError(" has level and keep, or neither; give one of them")
        if self.keep and (self.what == "weights" or self.inputs):
            raise ValueError(".keep counts the nodes of each layer that it names; drop what: weights and inputs")
        return self


class Recipe(Strict):
    """How a model is trained.

    batch: full is one step an epoch; chunk bounds the rows held at once and leaves the gradient as it is.
    items: train on so many of the training split only, the first.
    label_smoothing: the share of a label's probability that training spreads over all classes; evaluation does not.
    distil: the share of the target that is the probabilities of a teacher, which for a pruned net is the dense one.
    hold: zeros: weights that are zero stay so; values: weights of a tensor that are equal stay so, too.
    group_lasso: the rate of a penalty on the length of the weights that read a node, for all nodes, inputs excepted.
    thin: make the net sparse while it trains.
    span: train these epochs of the recipe only, as [10, 20] the last ten of twenty.
    weight_average: judge and keep a running mean of the weights, on average this share of all steps so far old.
    precision: bf16 multiplies in bfloat16 (autocast) and keeps weights, losses and evaluation in float32.
    snapshots: the epochs whose reconstructions are kept; 0 is before training.
    pretrain: what changes in this recipe for a first training, without labels, of a family that has one.
    """

    epochs: Count
    batch: Count | Literal["full"] = 128
    chunk: Count | None = None
    optimizer: Literal["sgd", "momentum", "rmsprop", "adam", "adamw"] = "adam"
    lr: Positive = 1e-3
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: NonNegative = 0.0
    schedule: Literal["constant", "cosine", "one-cycle", "step"] = "constant"
    clip: Positive | None = None
    hold_out: bool = False
    items: Count | None = None
    patience: Count | None = None
    evaluate_every: Count = 1
    noise: TrainNoise | None = None
    augment: Augment | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    distil: Annotated[float, Field(ge=0, le=1)] = 0.0
    hold: Literal["values", "zeros"] | None = None
    group_lasso: NonNegative = 0.0
    thin: Thin | None = None
    span: tuple[Annotated[int, Field(ge=0)], Count] | None = None
    weight_average: Annotated[float, Field(gt=0, le=0.5)] | None = None
    attack: Attack | None = None
    precision: Literal["bf16", "fp32"] = "fp32"
    snapshots: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(strict.once)] = ()
    pretrain: Table[str, Any] | None = None

    @property
    def pretraining(self) -> "Recipe | None":
        """The recipe of the first training, if there is one; what is not said of it is as in the second."""
        if self.pretrain is None:
            return None
        own = ("snapshots", "label_smoothing", "distil", "hold", "group_lasso", "thin", "span")
        off = {key: Recipe.model_fields[key].default for key in own}
        return self.changed({**off, **self.pretrain, "pretrain": None}, ".pretrain")

    @property
    def chosen(self) -> dict[str, Any]:
        """The keys that are not off: what is off says nothing, so a later version may have more of it."""
        return {key: value for key, value in self.model_dump().items() if value not in OFF}

    @model_validator(mode="after")
    def _pretraining_is_a_recipe(self) -> "Recipe":
        _ = self.pretraining
        return self

    @model_validator(mode="after")
    def _patience_needs_validation(self) -> "Recipe":
        if self.patience and not self.hold_out:
            raise ValueError(f".patience is {self.patience}; it needs hold_out: true, to judge on validation items")
        return self

    @property
    def begin(self) -> int:
        """Epochs that are as if done."""
        return self.span[0] if self.span else 0

    @property
    def end(self) -> int:
        """The last epoch."""
        return self.span[1] if self.span else self.epochs

    @property
    def sparse(self) -> bool:
        """Whether something holds weights, or drives them to zero, in every step."""
        return bool(self.hold or self.group_lasso or self.thin)

    def evaluates(self, epoch: int) -> bool:
        """The first epoch, the last and every `evaluate_every` in between."""
        within = self.begin < epoch < self.end and epoch % self.evaluate_every == 0
        return epoch in (self.begin + 1, self.end) or within

    @model_validator(mode="after")
    def _span_lies_within(self) -> "Recipe":
        if self.span and not self.span[0] < self.span[1] <= self.epochs:
            raise ValueError(f".span is {list(self.span)}; give two epochs that rise, to {self.epochs} at most")
        return self

    @model_validator(mode="after")
    def _zeros_are_not_averaged(self) -> "Recipe":
        for key in ("group_lasso", "thin"):
            if self.weight_average and getattr(self, key):
                raise ValueError(f".weight_average keeps what {key} sets to zero from being zero; drop one of them")
        return self

    def changed(self, changes: Mapping[str, Any], where: str = "") -> "Recipe":
        """A copy with these keys replaced, checked anew; a ValueError begins with `where`."""
        return strict.checked(Recipe, {**self.model_dump(), **changes}, where)


class Case(Strict, extra="allow"):
    """One model of an experiment; every key but its row is a setting of what the experiment measures."""

    row: Row | Several[Row] = ()

    @property
    def rows(self) -> tuple[str, ...]:
        return (self.row,) if isinstance(self.row, str) else self.row

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.__pydantic_extra__ or {})


class ModelEntry(Case, extra="allow"):
    """One model of a study; every key but these four is a setting of its family.

    trial_of: what this is one of several configurations of; the page names the best of them on validation.
    """

    family: Annotated[str, AfterValidator(_family)]
    train: Table[str, Any] = FrozenDict()
    trial_of: ModelName | None = None


class Prune(Strict):
    """What is pruned and how: levels are shares of nodes removed; train changes a model's recipe for fine-tuning.

    criteria: names of scores; global-<name> ranks the nodes of all layers together. inputs: whether as large a share of
    what no layer computes goes too, of an mlp's inputs and of a cnn's flattened maps, one place at a time.
    schedules: all at once, level by level, or one after the other while the net is fine-tuned (gradual).
    recoveries: after pruning nothing; fine-tuning; the last epochs of the model's own recipe over again, as many as
    fine-tuning has, from the weights as they are (lr-rewind) or as they were before these epochs (rewind; Renda et al.
    2020); or fresh weights, trained for as many epochs in all, or for as many multiply-adds (Liu et al. 2019).
    margin: the accuracy that may be lost, on validation items, at the level that is chosen.
    """

    models: Several[str]
    criteria: Several[Criterion]
    levels: Annotated[tuple[Fraction, ...], Field(min_length=1), AfterValidator(_rising)]
    schedules: Several[Literal["gradual", "iterative", "one-shot"]] = ("one-shot",)
    recoveries: Several[Literal["finetune", "lr-rewind", "none", "rewind", "scratch-epochs", "scratch-madds"]]
    train: Table[str, Any] = FrozenDict()
    inputs: bool = False
    margin: NonNegative = 0.01

    @model_validator(mode="after")
    def _inputs_have_no_norm(self) -> "Prune":
        if self.inputs and (named := next((name for name in self.criteria if name.endswith("batch-norm")), None)):
            raise ValueError(f".inputs is true, but {named} cannot rank what no layer computes; drop one of them")
        return self


def pruned_name(model: str, criterion: str, schedule: str, recovery: str, level: float) -> str:
    """How claims name a pruned net."""
    return f"{model}:{criterion}:{schedule}:{recovery}:{level:g}"


class Compare(Strict):
    """What settles a claim: a metric and one of the forms below. `from` and `to` are epochs: start and end here.

    A pruned net is named by its model, criterion, schedule, recovery and level, as in mlp:taylor:one-shot:finetune:0.5.
    times: what the figure of `than` is multiplied by. bound: a number in the place of `than`. floor: a method that
    trains no net, as metrics.json names it (identity, pca-32, ridge), in the place of `than`; floor_metric: its figure
    to compare with, if that is another than `metric`.
    """

    metric: Metric
    higher: str | None = None
    lower: str | None = None
    than: str | None = None
    times: Positive = 1.0
    bound: float | None = None
    floor: str | None = None
    floor_metric: Metric | None = None
    margin: NonNegative = 0.0
    epoch: Count | None = None
    equal: tuple[str, str] | None = None
    over: Annotated[tuple[str, ...], Field(min_length=3)] | None = None
    of: str | None = None
    start: Annotated[Count | None, Field(alias="from")] = None
    end: Annotated[Count | None, Field(alias="to")] = None
    direction: Literal["rises", "falls"] | None = None

    @property
    def timed(self) -> bool:
        """Whether it compares seconds, on which no two runs agree: settled apart from all that can be proved again."""
        return self.metric.startswith("time.")

    @property
    def models(self) -> tuple[str, ...]:
        named = (self.higher, self.lower, self.than, *(self.equal or ()), *(self.over or ()), self.of)
        return tuple(model for model in named if model is not None)

    @model_validator(mode="after")
    def _one_form(self) -> "Compare":
        forms = ("higher than", "lower than", "higher bound", "lower bound", "higher floor", "lower floor")
        forms += ("equal margin", "over direction", "of from to direction")
        given = self.model_dump(by_alias=True, exclude_unset=True, exclude_none=True).keys() - {"metric"}
        extra = {"margin", "epoch", "floor_metric", "times"}
        form = next((form for form in forms if given >= set(form.split()) >= given - extra), None)
        needs = {"epoch": "than", "times": "than", "floor_metric": "floor"}
        lost = any(key in given and needs[key] not in given for key in needs)
        if not form or lost:
            allowed = "; ".join(form.replace(" ", " + ") for form in forms)
            raise ValueError(f" has {', '.join(sorted(given)) or 'no models'}; give metric and one of: {allowed}")
        if self.equal and not self.margin:
            raise ValueError(".margin is 0; give the difference that still counts as equal")
        if self.start and self.end and self.start >= self.end:
            raise ValueError(f".from is {self.start}; give an epoch before to ({self.end})")
        if len(set(self.models)) < len(self.models):
            raise ValueError(f" is between {' and '.join(self.models)}; give each model once")
        return self


class Claim(Strict):
    """What a source says, in our words, its catalogue row, and the comparison that settles it."""

    says: Text
    row: Row | None = None
    id: Name | None = None
    compare: Compare


class Experiment(Strict):
    """A question, what is measured to answer it, the claims to settle, the published figures, a note for the page."""

    asks: Text
    dataset: str
    seeds: Count | Several[Seed]
    models: FilledTable[ModelName, Case]
    claims: tuple[Claim, ...]
    published: Table[str, Table[Figure, float]]
    note: Text | None

    @property
    def seed_list(self) -> list[int]:
        return list(range(self.seeds)) if isinstance(self.seeds, int) else list(self.seeds)

    @property
    def _compared(self) -> list[tuple[str, Compare]]:
        return [(f".claims.{i}.compare", claim.compare) for i, claim in enumerate(self.claims)]

    @model_validator(mode="after")
    def _models_exist(self) -> "Experiment":
        named = [*self._naming(), (".published", self.published)]
        named += [(where, compare.models) for where, compare in self._compared]
        for where, model in ((where, model) for where, models in named for model in models):
            if model not in self.models and model not in self._other_nets():
                raise ValueError(f"{where} names {strict.shown(model)}, no model here; {nearest(model, self.models)}")
        return self

    def _naming(self) -> list[tuple[str, Iterable[str]]]:
        """Keys of a kind's own that name models."""
        return []

    def _other_nets(self) -> Iterable[str]:
        """What claims may name beside the models."""
        return ()


class Study(Experiment):
    """An experiment whose models are trained, and pruned or attacked if it says so."""

    train: Recipe
    models: FilledTable[ModelName, ModelEntry]
    prune: Prune | None
    attacks: Attacks | None = None

    def recipe(self, model: str) -> Recipe:
        """The study's recipe with the model's own changes."""
        return self.train.changed(self.models[model].train, f".models.{model}.train")

    def prune_recipe(self, model: str) -> Recipe:
        """The model's recipe with the changes for fine-tuning."""
        return self.recipe(model).changed(self.prune.train, ".prune.train")

    @property
    def pruned(self) -> tuple[str, ...]:
        return self.prune.models if self.prune else ()

    def recipes(self) -> list[tuple[str, Recipe]]:
        """Every recipe that the study trains by, with the key that it stands under."""
        own = [(f".models.{model}.train", self.recipe(model)) for model in self.models]
        own += [(f"{where}.pretrain", recipe.pretraining) for where, recipe in own if recipe.pretraining]
        return own + [(".prune.train", self.prune_recipe(model)) for model in self.pruned]

    @property
    def trials(self) -> dict[str, list[str]]:
        """What was tried in several configurations -> the models that are these."""
        found: dict[str, list[str]] = {}
        for model, entry in self.models.items():
            if entry.trial_of:
                found.setdefault(entry.trial_of, []).append(model)
        return found

    def _naming(self) -> list[tuple[str, Iterable[str]]]:
        return [(".prune.models", self.pruned), (".attacks.transfer", self.attacks.transfer if self.attacks else ())]

    def _other_nets(self) -> Iterable[str]:
        """Of each pruned net, as claims name it."""
        cut = self.prune
        ways = [cut.models, cut.criteria, cut.schedules, cut.recoveries, cut.levels] if cut else [()]
        return (pruned_name(*way) for way in itertools.product(*ways))

    @model_validator(mode="after")
    def _pruned_nets_can_be_trained_as_asked(self) -> "Study":
        """What would else show only when the dense nets are trained."""
        rewound = self.prune and next((way for way in self.prune.recoveries if way.endswith("rewind")), None)
        for model in self.pruned:
            own, tune = self.recipe(model), self.prune_recipe(model)
            if rewound and (own.patience or tune.epochs >= own.epochs):
                raise ValueError(
                    f".prune.recoveries holds {rewound}, which takes back {tune.epochs} epochs of {model}; give "
                    f"prune.train fewer epochs than the model has ({own.epochs}), and no patience"
                )
            if "gradual" in self.prune.schedules and tune.weight_average:
                raise ValueError(f".prune.schedules holds gradual, but {model} averages its weights; drop one of them")
        return self

    @model_validator(mode="after")
    def _trials_hold_out(self) -> "Study":
        for model in itertools.chain(*self.trials.values()):
            if not self.recipe(model).hold_out:
                raise ValueError(
                    f".models.{model} is a trial; it needs hold_out: true, to be chosen on validation items"
                )
        return self

    @model_validator(mode="after")
    def _epochs_exist(self) -> "Study":
        self.recipes()
        for where, compare in self._compared:
            for model, epoch in itertools.product(compare.models, (compare.epoch, compare.start, compare.end)):
                if epoch and model not in self.models:
                    raise ValueError(
                        f"{where} names epoch {epoch} of the pruned net {model}, of which no curve is kept"
                    )
                if epoch and not (recipe := self.recipe(model)).evaluates(epoch):
                    allowed = f"1, {recipe.epochs} or a multiple of {recipe.evaluate_every} between"
                    raise ValueError(f"{where} names epoch {epoch}, at which {model} is not evaluated; give {allowed}")
        return self


class Params(Strict):
    workers: Count = 1
    cluster: Annotated[str, AfterValidator(_scheduler)] | None = None
    compute: Compute
    datasets: FilledTable[Annotated[str, AfterValidator(_source)], Dataset]
    datasets_on_demand: Table[Annotated[str, AfterValidator(_source)], Dataset] = FrozenDict()
    noise: Noise
    studies: FilledTable[Name, Study]
    experiments: Table[Annotated[Name, AfterValidator(_experiment)], Experiment]

    @property
    def crew(self) -> dict[str, Any]:
        """Who does the jobs, as keywords of fan_out."""
        return {"workers": self.workers, "cluster": self.cluster, "threads": self.compute.threads}

    def study(self, name: str) -> Study:
        if name not in self.studies:
            raise AtelierError(f"params.yaml: there is no study {name}; {nearest(name, self.studies)}")
        return self.studies[name]

    def experiment(self, name: str) -> Experiment:
        if name not in self.experiments:
            raise AtelierError(f"params.yaml: there is no experiment {name}; {nearest(name, self.experiments)}")
        return self.experiments[name]

    def entry(self, name: str) -> Experiment:
        """A study or an experiment."""
        return self.experiment(name) if name in self.experiments else self.study(name)

    def page_stage(self, name: str) -> str:
        """The stage in dvc.yaml that writes the page of a study or an experiment."""
        self.entry(name)
        return f"{'experiment_report' if name in self.experiments else 'report'}@{name}"

    @property
    def reported(self) -> dict[str, Experiment]:
        """All that has a page under reports/studies."""
        return {**self.studies, **self.experiments}

    @property
    def every_dataset(self) -> dict[str, Dataset]:
        return {**self.datasets, **self.datasets_on_demand}

    def dataset(self, name: str) -> Dataset:
        if name not in self.every_dataset:
            raise AtelierError(f"params.yaml: there is no data set {name}; {nearest(name, self.every_dataset)}")
        return self.every_dataset[name]

    def dataset_key(self, name: str) -> str:
        """Where a data set's settings stand."""
        return f"{'datasets' if name in self.datasets else 'datasets_on_demand'}.{name}"

    @model_validator(mode="after")
    def _data_and_noise_exist(self) -> "Params":
        for key in self.datasets_on_demand:
            if key in self.datasets:
                raise ValueError(f".datasets_on_demand.{key} stands in datasets too; remove one")
        for key, dataset in self.every_dataset.items():
            for index, corruption in enumerate(dataset.train_noise):
                if corruption not in (known := self.noise.corruptions()):
                    where = f".{self.dataset_key(key)}.train_noise.{index} is {strict.shown(corruption)}"
                    raise ValueError(f"{where}, which is not in noise; {nearest(corruption, known)}")
        for key, entry in self.reported.items():
            if entry.dataset not in self.every_dataset:
                kind = "studies" if key in self.studies else "experiments"
                hint = nearest(entry.dataset, self.every_dataset)
                raise ValueError(f".{kind}.{key}.dataset is {strict.shown(entry.dataset)}; {hint}")
        for key in self.experiments:
            if key in self.studies:
                raise ValueError(f".experiments.{key} would share reports/studies/{key} with the study; rename one")
        for key, study in self.studies.items():
            if key.removesuffix("-pruned") in self.studies and key.endswith("-pruned"):
                raise ValueError(f".studies.{key} would share models/{key} with the pruned nets of another; rename it")
            stored = self.every_dataset[study.dataset].train_noise
            for where, recipe in study.recipes():
                if recipe.noise and recipe.noise.draw == "fixed" and recipe.noise.name not in stored:
                    place = f"{self.dataset_key(study.dataset)}.train_noise"
                    raise ValueError(
                        f".studies.{key}{where}.noise is {recipe.noise.name}, which is not stored: add it to "
                        f"{place} ({', '.join(stored) or 'empty'}) or give draw: fresh"
                    )
        return self


def load(path: Path | None = None, families: bool = True) -> Params:
    """Read and check everything; families=False leaves out their settings, which need torch.

    Raises AtelierError for the first fault: nothing is run on parameters that are not understood whole.
    """
    path = Path(path or paths.root() / "params.yaml")
    try:
        params = strict.checked(Params, trials.expanded(strict.read(path)))
    except ValueError as error:
        raise AtelierError(f"{path.name}: {str(error).removeprefix('.').lstrip()}") from None
    for study, content in params.studies.items() if families else ():
        for model, entry in content.models.items():
            where = f"{path.name}: studies.{study}.models.{model}"
            check_settings(entry.family, entry.settings, where)
            _check_recipe(entry.family, content.recipe(model), where)
    for name, content in params.experiments.items() if families else ():
        for model, entry in content.models.items():
            check_case(name, entry.settings, f"{path.name}: experiments.{name}.models.{model}")
    return params


def check_settings(family: str, settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings, with the types that the family's keywords declare; AtelierError at the first that does not fit."""
    from atelier import families

    given = _typed(_family_schema(family), settings, where, f"family {family}")
    families.check(family, given, where)
    return given


def _check_recipe(family: str, recipe: Recipe, where: str) -> None:
    """Raises AtelierError if the recipe asks for what the family does not do."""
    from atelier import families, fit

    if recipe.label_smoothing and not fit.learns_labels(families.load(family)):
        raise AtelierError(f"{where}: family {family} does not learn labels; label_smoothing is for those that do")
    if recipe.pretrain and not hasattr(families.load(family), "pretrain"):
        able = [name for name in families.names() if hasattr(families.load(name), "pretrain")]
        raise AtelierError(f"{where}: family {family} has no first training; pretrain is for {', '.join(able)}")


def check_case(experiment: str, settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The settings, with the types that the experiment's `measure` declares; AtelierError at the first amiss."""
    return _typed(_experiment_schema(experiment), settings, where, f"experiment {experiment}")


def _typed(schema: type[BaseModel], settings: Mapping[str, Any], where: str, owner: str) -> dict[str, Any]:
    for key in settings:
        if key not in schema.model_fields:
            own = [field for field in ModelEntry.model_fields if get_close_matches(key, [field], cutoff=0.7)]
            hint = nearest(key, [*schema.model_fields, *own])
            raise AtelierError(f"{where}.{strict.spelt(key)} is not a setting of {owner}; {hint}")
    try:
        typed = strict.checked(schema, strict.frozen(settings), where)
    except ValueError as error:
        raise AtelierError(str(error)) from None
    return {key: getattr(typed, key) for key in settings}


@functools.cache
def _family_schema(family: str) -> type[BaseModel]:
    from atelier import families

    model = families.load(family)
    return _schema(f"{family} settings", model, model.__init__)


@functools.cache
def _experiment_schema(name: str) -> type[BaseModel]:
    from atelier import experiments

    measure = experiments.load(name).measure
    return _schema(f"{name} settings", measure, measure)


def _schema(name: str, called: Callable, hinted: Callable) -> type[BaseModel]:
    """The keyword-only arguments of a call; the optimizer comes from the recipe."""
    hints = get_type_hints(hinted, include_extras=True)
    fields = {
        key: (hints.get(key, Any), ... if keyword.default is keyword.empty else keyword.default)
        for key, keyword in inspect.signature(called).parameters.items()
        if keyword.kind is keyword.KEYWORD_ONLY and key != "optimizer"
    }
    return create_model(name, __base__=Strict, **fields)
