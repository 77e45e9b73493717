"""The Inception training operator: turns InceptionTraining into slots, attempts, and a status that
says why.
"""

__version__ = "0.1.0"
