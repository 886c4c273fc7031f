"""``python -m dft_search``: the same as the ``dft-search`` command."""

from dft_search.cli.app import main

if __name__ == "__main__":
    main()
