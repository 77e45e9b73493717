"""``python -m inception_trainer``: see :mod:`inception_trainer.cli`."""

import sys

if __name__ == "__main__":
    if sys.argv[1:2] == ["launch"]:
        from .launcher.early import obey_sigterm

        obey_sigterm()
    # Only now: on a busy node this import takes a second.
    from .cli import main

    sys.exit(main())
