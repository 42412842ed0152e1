"""``python -m fastmeta``."""

import sys

from fastmeta.cmd.main import main

sys.exit(main())
