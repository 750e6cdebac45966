"""A study's page: the question, the answer, then what the answer rests on."""

from collections.abc import Collection, Sequence
from typing import Any

from atelier import assess
from atelier.params import Experiment, Study
from atelier.report import attacks, figures, tables
from atelier.report import claims as settling
from atelier.report.results import Results

HOW_TO_READ = (
    "Figures are means over seeds with 95 % intervals of Student's t, and differences are paired by seed; "
    "– is a figure that does not exist."
)
EXAMPLES = "Surest mistakes of the classifiers; items as they are, as seen and as rebuilt by the nets that reconstruct."
VERBS = {
    settling.HOLDS: ("holds", "hold"),
    settling.FAILS: ("does not hold", "do not hold"),
    settling.UNDECIDED: ("is undecided", "are undecided"),
}
Entries = Sequence[dict[str, Any]]
MANY = 8  # claims, beyond which an answer counts them


def page(
    results: Results,
    study: Study,
    entries: Entries,
    pictures: dict[str, str],
    examples: bool,
) -> str:
    """index.md. `pictures` is file name -> caption under figures/; `examples`: whether evaluate drew examples.png."""
    name, seeds = results.study, f"seed{'s' * (len(results.seeds) > 1)} {', '.join(map(str, results.seeds))}"
    sections = [
        f"# {study.asks}",
        f"**Answer.** {answer(entries, results.floors) if entries else _choice(results, study)}",
        study.note or "",
        f"Study `{name}` on {results.dataset}, {seeds}. {HOW_TO_READ}",
        tables.main(results, study.published),
        *_section("Chosen on validation items", tables.trials(results, study.trials)),
        *_claims(entries),
        _picture("trends.png", pictures),
        _picture("headline.png", pictures),
        _picture("learning-curves.png", pictures),
        f"![{EXAMPLES}](examples.png)\n\n*{EXAMPLES}*" if examples else "",
        *_measures(results),
        *_weights(results, pictures),
        *_section("Under noise", tables.noise(results, "accuracy"), _picture("noise.png", pictures)),
        *_attacks(results, pictures),
        *_differences(results),
        *_classes(results, pictures),
        *_reconstruction(results, pictures),
        *_families(results, pictures),
        *_pruning(results, pictures),
        *_section("Recipe", tables.recipe(results)),
        *_again(name),
        *_cost(results),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def experiment(
    results: Results, entry: Experiment, entries: Entries, pictures: dict[str, str], about: dict[str, Any]
) -> str:
    """index.md of an experiment. `about`: what its measures mean, its own text, and its pictures under measured/."""
    name, seeds = results.study, f"seed{'s' * (len(results.seeds) > 1)} {', '.join(map(str, results.seeds))}"
    sections = [
        f"# {entry.asks}",
        f"**Answer.** {answer(entries, results.floors)}",
        entry.note or "",
        f"Experiment `{name}` on {results.dataset}, {seeds}. {HOW_TO_READ}",
        *_section("Measured", tables.everything(results), about["measures"]),
        *(_picture(file, about["pictures"], "measured") for file in about["pictures"]),
        *_claims(entries),
        _picture("headline.png", pictures),
        _picture("trends.png", pictures),
        about["text"],
        *_cost(results),
        *_again(name),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _choice(results: Results, study: Study) -> str:
    """The answer of a study without claims: what validation items choose, if it has trials."""
    found = tables.chosen(results, study.trials)
    told = [f"of {len(c.values)} trials of {c.name} they choose {c.best} ({c.judged} {c.figure})" for c in found]
    return f"Validation items decide: {'; '.join(told)}." if told else answer(())


def answer(entries: Entries, floors: Collection[str] = ()) -> str:
    """One sentence made from the verdicts alone. Of many claims the first and those that do not hold are quoted.

    floors: names of the methods that train no net, with which claims may compare.
    """
    if not entries:
        return "This study makes no claim, so there is no verdict; its figures are below."
    told, many = [], len(entries) > MANY
    for verdict, (singular, plural) in VERBS.items():
        found = [e for e in entries if e["verdict"] == verdict]
        shown = [e for e in found if not many or verdict == settling.FAILS or e is entries[0]]
        named = [f"“{e['says']}”{_found(e, floors)}" for e in shown]
        if many and shown and (left := len(found) - len(shown)):
            named.append(f"{left} other{'s' * (left > 1)}")
        said = " and ".join(filter(None, [", ".join(named[:-1]), *named[-1:]]))
        verb = singular if len(found) == 1 else plural
        if many and found:
            told.append(f"{len(found)} of {len(entries)} claims {verb}" + (f": {said}" if said else ""))
        elif found:
            told.append(f"{said} {verb}")
    return "; ".join(told) + "."


def _found(entry: dict[str, Any], floors: Collection[str]) -> str:
    """What a verdict rests on: the figure itself where a number or a floor is its measure, the difference elsewhere."""
    metric, estimate, ends = entry["metric"], entry["estimate"], entry["ci95"]
    if estimate is None:
        return ""
    alone = entry["kind"] == "greater" and set(entry["models"][1:]) <= set(floors)
    if not alone:
        return f" ({tables.with_unit(metric, estimate, True)}{_ends(metric, ends, True)})"
    figure, bound = entry["compared"]
    if ends:
        lower = (figure - bound) * estimate < 0  # the estimate is then the bound less the figure
        ends = [bound - end for end in reversed(ends)] if lower else [bound + end for end in ends]
    return f" ({tables.with_unit(metric, figure)}{_ends(metric, ends)} against {tables.with_unit(metric, bound)})"


def _ends(metric: str, ci95: Sequence[float] | None, signed: bool = False) -> str:
    return "" if ci95 is None else " " + tables.interval(metric, ci95, signed)


def _section(title: str, *bodies: str) -> list[str]:
    """A heading and what stands under it; nothing where there is nothing."""
    known = [body for body in bodies if body]
    return [f"## {title}", *known] if known else []


def _again(name: str) -> list[str]:
    up_to_date = f"make study STUDY={name}     # brings everything up to date"
    proof = f"make verify STUDY={name}    # proves it: runs all of it again and compares the bytes"
    return _section("Run it again", f"```\n{up_to_date}\n{proof}\n```")


def _cost(results: Results) -> list[str]:
    apart = "Seconds differ from run to run, so they and the claims about them are kept apart"
    return _section("Cost", f"{apart}: [times]({_times(results)}).")


def _picture(file: str, pictures: dict[str, str], folder: str = "figures") -> str:
    return f"![{pictures[file]}]({folder}/{file})\n\n*{pictures[file]}*" if file in pictures else ""


def _times(results: Results) -> str:
    return f"../../timings/{results.study}.md"


def _claims(entries: Entries) -> list[str]:
    rule = (
        "Compared: means, in the order in which the claim names them. An estimate is positive where it speaks for its "
        "claim; for equality it is the first model less the second, for a trend the slope from one model to the next, "
        "which may rise though a single step falls. A claim holds, or does not, only if the whole interval lies on one "
        "side of the margin; an interval that touches it leaves the claim undecided."
    )
    return _section("Claims", tables.verdicts(entries), rule) if entries else []


def _measures(results: Results) -> list[str]:
    body = tables.measures(results)
    note = (
        "Gap: how much worse test is than train. accuracy: the share of items whose most probable class is right. "
        "accuracy_rounded: the share of elements of the rounded probabilities that equal the one-hot label, which "
        "some sources call accuracy; a net sure of nothing scores 1 − 1/classes in it. nll: mean negative "
        "log-likelihood; penalised: with the penalty on the weights, what such a net minimises. ece: expected "
        "calibration error. mae: on inputs corrupted as in training."
    )
    return _section("Training, held-out and test items", body, note) if body else []


def _weights(results: Results, pictures: dict[str, str]) -> list[str]:
    body = tables.weights(results)
    folded = tables.folded("Weights: their norm, and how many are nearly 0", body) if body else ""
    return [_picture("weights.png", pictures), folded]


def _attacks(results: Results, pictures: dict[str, str]) -> list[str]:
    if not attacks.attacked(results):
        return []
    drawn = (_picture(file, pictures) for file in attacks.plans(results))
    return _section("Under attack", attacks.NOTE, attacks.matrix(results), attacks.checks(results), *drawn)


def _differences(results: Results) -> list[str]:
    """Those of headline metrics open, if they are few; the others fold."""
    headlines = {results.headline(model) for model in results.models}
    bodies = []
    for metrics in (sorted(set(results.differences) & headlines), sorted(set(results.differences) - headlines)):
        pairs = sum(len(results.differences[metric]) for metric in metrics)
        if pairs:
            body, title = tables.differences(results, metrics), f"{', '.join(metrics)}: {pairs} differences"
            bodies.append(body if pairs <= 15 and headlines & set(metrics) else tables.folded(title, body))
    note = "Paired by seed; apart: the interval leaves out 0. Intervals are for single pairs, not corrected for many."
    return _section("Differences between models", note, *bodies) if bodies else []


def _classes(results: Results, pictures: dict[str, str]) -> list[str]:
    body = tables.per_class(results)
    note = "F1 (precision, recall) in percent on the test set, means over seeds."
    return _section("Class by class", note, body, _picture("confusion.png", pictures)) if body else []


def _reconstruction(results: Results, pictures: dict[str, str]) -> list[str]:
    body = tables.reconstruction(results)
    note = "Distance from the clean test items, in pixel units of [0, 1]; the floors are methods that train no net."
    return _section("Reconstruction", note, body, _picture("reconstruction-noise.png", pictures)) if body else []


def _families(results: Results, pictures: dict[str, str]) -> list[str]:
    """Figures and pictures that only some families have, and what their judges say of them."""
    judges = [judge for judge in map(assess.load, results.families) if judge]
    notes = [" ".join((judge.assess.__doc__ or "").split()) for judge in judges]
    drawn = [_picture(file, pictures) for file in figures.of_families(results)]
    return _section("More of these families", tables.own_measures(results), *notes, *drawn)


def _pruning(results: Results, pictures: dict[str, str]) -> list[str]:
    """The chosen points open, all points folded."""
    note = (
        "Level: the share of nodes removed. ✓: the highest level of its kind at which validation items show no more "
        "loss than the study allows; [params.yaml](../../../params.yaml) says under `prune` how much that is, and how "
        "nets are fine-tuned; a mean absolute error may grow by 5 %. Brackets hold shares of the dense net. "
        "Differences are paired by seed: with the dense net; with nets of the same shape from fresh weights, trained "
        "for as many epochs as the dense net and its fine-tuning together (scratch-epochs), or for as many "
        "multiply-adds as the dense net takes in so many epochs, no fewer than pruning took (scratch-madds); and "
        f"with a net whose nodes were drawn by lot (random). Latency: see the [times]({_times(results)})."
    )
    bodies = [_picture("frontier.png", pictures), _picture("layers.png", pictures)]
    for model, entry in results.models.items():
        groups = [g for g in results.pruned if g["model"] == model]
        chosen = [g for g in groups if g["chosen"]]
        if groups:
            every = tables.folded(f"All {len(groups)} points", tables.pruning(groups, entry["exact"]))
            shown = [tables.pruning(chosen, entry["exact"])] if chosen else []
            bodies += [f"### {model}", *shown, _picture(f"pruning-{model}.png", pictures), every]
    return _section("Pruning", note, *bodies) if results.pruned else []
