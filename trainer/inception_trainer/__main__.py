"""``python -m inception_trainer``: see :mod:`inception_trainer.cli`."""

import sys

from inception_trainer.cli import main

if __name__ == "__main__":
    sys.exit(main())
