#!/usr/bin/env python
"""Rebuild report.html and report.json of an output folder, finished or not, from its ledgers and shards."""

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from corpus.folder import OutputFolder
from pipelines.engine import job
from pipelines.engine.report import print_funnel, write_report


def main() -> None:
    folder = OutputFolder(make_parser().parse_args().folder)
    print_funnel(write_report(folder))
    print(f"\nreport: {folder.url}/report.html")


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog="example:\n  python pipelines/report.py demo/cleaned",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", metavar="DIR", help="output folder of any job: a local path or an fsspec URL")
    return parser


if __name__ == "__main__":
    job.main(main)
