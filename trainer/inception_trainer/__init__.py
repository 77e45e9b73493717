"""Training of image classifiers on any accelerator, restartable at any moment.

Floors, each importing only those below it::

    cli                           the commands
    entry                         one rank of a run
    modes                         Evaluate, Benchmark, Infer, Export, Preflight
    train                         mode Train: build, loop, step
    sinks                         where a run reports to
    weights                       files of weights, in and out
    reporting                     records, progress, output folder
    checkpoint                    checkpoints in folders and object stores
    data, models, device          samples, networks, the accelerator
    config                        the configuration, checked
    comm, stores, storage, errors small things that all of them use, log too

``launcher`` and ``preload`` stand beside them: the launcher starts ranks and imports none of this.
Importing this package imports neither torch nor numpy.
"""

__version__ = "0.1.0"
