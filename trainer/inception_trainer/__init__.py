"""Training of image classifiers on any accelerator, restartable at any moment.

Layers, each importing only those to its right::

    __main__ > cli > entry > session > engine > data, models, checkpoint, metrics > device, comm, plan > config > errors

Importing this package imports neither torch nor numpy.
"""

__version__ = "0.1.0"
