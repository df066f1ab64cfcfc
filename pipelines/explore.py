#!/usr/bin/env python
"""Look inside output folders in a browser: the funnel with thresholds that move, rows as pictures, packs.

Every row's scores are in the ledgers, so that the page counts what another threshold would have kept, shows the rows at
its edge, and writes the command that does it. DIR is a cleaned or stage folder, or any folder above such ones, local or
an fsspec URL. Nothing is written, nothing but this machine is listened to, and the address printed holds a key.
"""

import argparse
import asyncio
import secrets
import sys
from pathlib import Path

if __name__ == "__main__":  # run as a script: the checkout's root, not pipelines/, holds the packages
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from aiohttp import web

from pipelines.engine import job
from pipelines.explorer.answers import Session
from pipelines.explorer.folders import open_folders
from pipelines.explorer.server import application

_EXAMPLE = "python pipelines/explore.py demo/cleaned demo/stage2"
_HOST = "127.0.0.1"


def main() -> None:
    args = make_parser().parse_args()
    session, token = Session(open_folders(args.folder, args.catalog), args.memory), secrets.token_urlsafe(24)
    try:
        asyncio.run(_serve(session, token, args.port))
    except KeyboardInterrupt:
        print()


async def _serve(session: Session, token: str, port: int) -> None:
    runner = web.AppRunner(application(session, token), access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, _HOST, port).start()
        print(f"{len(session.opened)} folders; open this in a browser, Ctrl-C ends:")
        print(f"http://{_HOST}:{runner.addresses[0][1]}/?token={token}", flush=True)
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=f"example:\n  {_EXAMPLE}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", nargs="+", metavar="DIR", help="output folders, or folders that hold some")
    parser.add_argument("--port", type=int, default=0, metavar="P", help="default: one that is free")
    parser.add_argument("--catalog", metavar="FILE", help="where rules of your own come from; default: catalog.yaml")
    parser.add_argument(
        "--memory", type=int, default=1200, metavar="MB", help="for rows; where more are, a sample; default: 1200"
    )
    return parser


if __name__ == "__main__":
    job.main(main)
