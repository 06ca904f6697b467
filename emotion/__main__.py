"""List the verbs, or run one: python -m emotion [VERB KEY=VALUE ...]."""

import runpy
import sys
from difflib import get_close_matches

from emotion.config.compose import VERBS
from emotion.config.help import help_or_version, overview


def main() -> None:
    """Run `emotion VERB ...` as `python -m emotion.VERB ...`; without a verb, list them."""
    verb, arguments = next(iter(sys.argv[1:]), "--help"), sys.argv[2:]
    if verb in VERBS:
        sys.argv[1:] = arguments
        runpy.run_module(f"emotion.{verb}", run_name="__main__", alter_sys=True)
    elif verb in ("--help", "-h", "--version"):
        from emotion.cli import report_errors

        with report_errors():  # the reader of the output, such as head, may exit
            print(overview() if verb != "--version" else help_or_version("", [verb]), flush=True)
    else:
        meant = " or ".join(get_close_matches(verb, VERBS))
        print(
            f"error: emotion has no verb {verb}{f'; did you mean {meant}?' if meant else '.'}\n\n{overview()}",
            file=sys.stderr,
        )
        sys.exit(2)


if __name__ == "__main__":
    main()
