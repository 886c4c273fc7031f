"""The profile in a process of its own: ``python -m dft_search.layers OUT`` with ``{"recipe": ...}`` on standard input.

For a driver that holds no model. Writes what ``profile_recipe`` finds, without gradients, to the file OUT.
"""

import json
import sys
from pathlib import Path

from dft_search.config import Document, RequestError, build
from dft_search.config.files import write_json
from dft_search.layers.profile import profile_recipe
from dft_search.training.recipe import Recipe


def main() -> int:
    """Exit code 0, or 2 with the problems on standard error."""
    try:
        recipe = build(Recipe, Document("recipe", None, json.load(sys.stdin)), ("recipe",))
        write_json(Path(sys.argv[1]), profile_recipe(recipe, gradients=False))
    except RequestError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
