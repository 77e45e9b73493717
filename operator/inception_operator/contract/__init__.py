"""Names, types and wire formats that the operator shares with the API server, its launchers and its
users.
"""
