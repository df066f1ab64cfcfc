"""From raw data to a trained model: one recipe, one command; and every job of this checkout by its name."""

import argparse
import os
import sys

from pipelines.recipe import jobs

_EPILOG = """\
examples:
  gristmill plan recipes/demo.yaml
  gristmill run recipes/demo.yaml --set stages.1.train.steps=40
  gristmill status demo
  gristmill clean_laion --help
"""


def main(argv: list[str] | None = None) -> int:
    given = sys.argv[1:] if argv is None else argv
    if given and given[0] in jobs.NAMES:
        os.execv(sys.executable, [sys.executable, *jobs.words_of(given[0]), *given[1:]])
    args = make_parser().parse_args(given)
    if args.command == "schema":
        from pipelines.recipe.schema import text_of

        print(text_of(args.of), end="")
        return 0
    return _status(args.root) if args.command == "status" else _recipe(args)


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="gristmill", description=f"{__doc__}\n\n{jobs.listing()}", epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", title="commands")
    for name, says in (("run", "do what a recipe says, or what is left of it"),
                       ("plan", "check a recipe, and say what would be done")):  # fmt: skip
        command = commands.add_parser(name, help=says, description=says)
        command.add_argument("recipe", metavar="RECIPE", help="see docs/recipes.md")
        command.add_argument("--set", action="append", default=[], metavar="KEY.KEY=VALUE", help="change the recipe")
        if name == "run":
            command.add_argument("--ray", metavar="ADDRESS", help="a cluster, where independent steps run side by side")
            command.add_argument("--workers", type=int, metavar="N", help="of every job; 0: in its own process, no Ray")
    status = commands.add_parser("status", help="say how far a run is", description="say how far a run is")
    status.add_argument("root", metavar="ROOT", help="a recipe's output")
    schema = commands.add_parser("schema", help="print the JSON Schema of recipes or catalogs, for editors")
    schema.add_argument("of", choices=("recipe", "catalog"))
    commands.add_parser("JOB", help="any command of the lists above")
    return parser


def _status(root: str) -> int:
    from pipelines.recipe.page import print_status

    try:
        print_status(root)
    except FileNotFoundError:
        print(f"error: {root} is no root of a recipe: it has no plan.json", file=sys.stderr)
        return 1
    return 0


def _recipe(args: argparse.Namespace) -> int:
    from pipelines.recipe.plan import make_plan, print_plan
    from pipelines.recipe.read import WrongRecipe
    from pipelines.recipe.run import StepFailed, run
    from pipelines.recipe.state import Busy

    try:
        plan = make_plan(args.recipe, args.set)
        if args.command == "plan":
            print_plan(plan)
        else:
            run(plan, args.ray, args.workers)
    except WrongRecipe as error:
        count = str(error).count("\n") + 1
        print(f"{error}\n{count} problem{'s' * (count > 1)}; nothing was done", file=sys.stderr)
        return 1
    except (StepFailed, Busy) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from there", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
