"""The command line: one thin subcommand for each stage, and track, verify, trace, ui, summary, check, decode."""

import argparse
import importlib
import sys

from atelier.errors import AtelierError, nearest

STAGES = {
    "download": "fetch a data set's files and check them",
    "add_noise": "split a data set and store its noisy versions",
    "train": "train every model of a study",
    "evaluate": "judge a study's models on clean and noisy items",
    "prune": "remove nodes from a study's models and fine-tune",
    "report": "write the page of a study or an experiment",
    "experiment": "measure what an experiment is about",
}


def main(arguments: list[str] | None = None) -> int:
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        return _run(command, options) or 0
    except AtelierError as error:
        print(f"atelier: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("atelier: interrupted; finished work is kept, run the same command to go on", file=sys.stderr)
        return 130


def _run(command: str, options: dict) -> int | None:
    if command in STAGES:
        return importlib.import_module(f"atelier.stages.{command}").main(options["name"])
    if command in ("catalogue", "code"):
        return importlib.import_module(f"atelier.stages.{command}").main()
    if command == "check":
        from atelier.params import load

        params = load()
        if options["study"]:
            print(params.page_stage(options["study"]))
        return 0
    if command == "ui":
        return importlib.import_module("atelier.track").ui(**options)
    return importlib.import_module(f"atelier.{command}").main(**options)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:
        if "invalid choice" in message:
            given = message.split("invalid choice: ")[1].split("'")[1]
            message = f"there is no command {given}; {nearest(given, self.commands)}"
        print(f"atelier: {message}", file=sys.stderr)
        sys.exit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="atelier", description="A bench for reproducible studies of neural network families.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for stage, text in STAGES.items():
        what = {"download": "dataset", "add_noise": "dataset", "experiment": "experiment"}.get(stage, "study")
        commands.add_parser(stage, help=text).add_argument("name", metavar=what.upper())
    commands.add_parser("code", help="digest the code that each study depends on")
    commands.add_parser("catalogue", help="gather the results of all studies")
    commands.add_parser("check", help="check params.yaml").add_argument(
        "--study", help="a study or experiment: print the stage of its page"
    )
    commands.add_parser("summary", help="print a study's results").add_argument("name", metavar="STUDY")
    track = commands.add_parser("track", help="mirror results into MLflow")
    track.add_argument("--follow", action="store_true", help="keep mirroring a running study's curves")
    track.add_argument("--study", help="only this study")
    verify = commands.add_parser("verify", help="run a study again in a clean copy and compare")
    verify.add_argument("study", metavar="STUDY")
    verify.add_argument("--keep", action="store_true", help="keep the copy")
    commands.add_parser("trace", help="run -> commit, params, outputs; output -> run").add_argument(
        "what", metavar="RUN-OR-FILE"
    )
    decode = commands.add_parser("decode", help="what the file of a compressed net holds, and what it answers")
    decode.add_argument("file", metavar="FILE")
    decode.add_argument("--dataset", help="judge it on the test items of this data set")
    commands.add_parser("ui", help="serve MLflow").add_argument("--port", type=int, default=5000)
    for command in (parser, *commands.choices.values()):
        command.commands = list(commands.choices)
    return parser


if __name__ == "__main__":
    sys.exit(main())
