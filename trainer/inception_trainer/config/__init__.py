"""The configuration of a training run: its keys, their limits and rules, and where it comes from.

:mod:`.training` is the whole; the sections are in :mod:`.model`, :mod:`.data`,
:mod:`.augmentation`, :mod:`.method`, :mod:`.modes` and :mod:`.places`, written with the words of
:mod:`.declare`. ``spec.training`` of the CRD is made from them. Nothing here needs torch, so a
wrong configuration is refused within a second.
"""
