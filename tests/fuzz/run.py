"""Look for texts that a parser does not stand, guided by the code that they reach.

    python tests/fuzz/run.py TARGET [--seconds 600] [--corpus FOLDER]

A text that is found is left in FOLDER as ``crash-…``; give it a line in the corpus of
tests/support/fuzz_targets.py once the parser is mended.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import atheris  # type: ignore[import-not-found]

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "operator"), str(ROOT / "tests" / "support")]

with atheris.instrument_imports(include=["inception_operator", "prometheus_client.parser"]):
    from fuzz_targets import CORPUS, TARGETS


def main() -> None:
    """Fuzz one target."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--corpus", type=Path, required=True)
    options = parser.parse_args()
    folder: Path = options.corpus / options.target
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(CORPUS[options.target]):
        (folder / f"known-{number}").write_bytes(text)
    arguments = [
        sys.argv[0],
        str(folder),
        f"-max_total_time={options.seconds}",
        f"-artifact_prefix={options.corpus}/crash-{options.target}-",
        "-max_len=20000",
        "-timeout=60",
        "-print_final_stats=1",
        "-verbosity=0",
    ]
    atheris.Setup(arguments, TARGETS[options.target])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
