"""Ends any Python program with 0 as soon as argparse has taken its options: on the path first, and
nothing else of the program runs.
"""

import argparse
import os

_parse = argparse.ArgumentParser.parse_args


def _parse_and_end(parser: argparse.ArgumentParser, *arguments: object) -> None:
    _parse(parser, *arguments)  # type: ignore[call-overload]
    print("taken", flush=True)
    os._exit(0)


argparse.ArgumentParser.parse_args = _parse_and_end  # type: ignore[method-assign,assignment]
