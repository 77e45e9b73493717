"""The command line for users: ``kubectl inception``, and the same as ``inceptionctl``."""
