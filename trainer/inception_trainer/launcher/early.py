"""Obeys SIGTERM while the launcher's modules are still being imported."""

import os
import signal

from .exitcodes import ExitCode


def obey_sigterm() -> None:
    """End this process with 75 on SIGTERM, until ``main`` does it in an orderly way."""
    # To PID 1 of a container the kernel delivers no signal that has no handler, and the kubelet
    # sends it once: a pod deleted now would go on, and train, until its grace period is over.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(ExitCode.STOPPED))
