"""The resident launcher: PID 1 of a worker pod.

It keeps torch imported in a fork server, starts the ranks of each attempt from there and says why
they ended. ``main`` is the loop, ``state`` decides, ``assignment`` and ``report`` are what the
operator writes and reads; ``forkserver``, ``agent`` and ``rank`` run in processes of their own, and
only there torch is imported. ``hang_monitor`` finds ranks that hang.

Everything here works with the standard library of Python 3.10 alone and imports nothing else of
this package, because ``install`` copies the folder into images of others.
"""
