"""The resident launcher: PID 1 of a worker pod.

It keeps torch imported in a fork server, starts the ranks of each attempt from there and says why
they ended. Nothing here imports torch except ``forkserver``, ``agent`` and ``rank``, which run in
processes of their own.
"""
