"""The command line, but the last checkpoint of every trial stays, so that benchmarks can compare trained weights."""

import sys
from unittest.mock import patch

from dft_search.cli.app import main
from dft_search.search.session import StudySession

if __name__ == "__main__":
    with patch.object(StudySession, "_tidy", lambda session: None):
        sys.exit(main())
