"""Mode Train, and what the other modes use of it.

``build`` puts a training together and runs it: ``setup`` (log, sinks, accelerator), ``resume`` (the
checkpoint), ``network``. ``loop`` then does one ``step`` after the other on the ``batches`` of this
rank, with the rate of ``schedule``, and evaluates (``evaluation``) and saves (``state``).
``results`` has what is reported of it.
"""
