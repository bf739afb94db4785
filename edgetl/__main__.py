"""Where the program begins, as ``edgetl`` and as ``python -m edgetl``."""

import os
import sys


def main() -> None:
    """Run a command and exit, by an interrupt while modules are still imported too."""
    try:
        from edgetl.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    try:
        # With -m, Python looks for modules in the working directory first. What lies there is data.
        if sys.path[:1] == [os.getcwd()]:  # noqa: PTH109
            del sys.path[0]
    except OSError:  # the working directory is gone
        pass
    main()
