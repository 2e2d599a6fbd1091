"""`python -m cluster.cli` is `orrery`."""

import sys

from cluster.cli.main import main

sys.exit(main())
