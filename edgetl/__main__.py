"""``python -m edgetl``, where Python looks for modules in the working directory first: what lies there is data."""

import os
import sys

try:
    if sys.path[:1] == [os.getcwd()]:  # noqa: PTH109, whatever is imported here could come from that directory
        del sys.path[0]
except OSError:  # the working directory is gone
    pass

from edgetl.cli import main

main()
