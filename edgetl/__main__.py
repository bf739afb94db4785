"""The entry point of ``edgetl`` and of ``python -m edgetl``."""

import os
import sys


def main() -> None:
    """Run a command and exit."""
    try:  # around the import too: an interrupt may come while modules are still imported
        from edgetl.cli import main as run

        run()
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    try:
        # With -m, Python looks for modules in the working directory first, where data lie.
        if sys.path[:1] == [os.getcwd()]:  # noqa: PTH109
            del sys.path[0]
    except OSError:  # the working directory is gone
        pass
    main()
