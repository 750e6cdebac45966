"""code: src/atelier + which family each model is of -> code.json, on which the stages that compute depend."""

from atelier import code, files, params, paths


def main() -> None:
    files.write_json(paths.root() / "code.json", code.of_stages(params.load(families=False)))
