"""Code run in a process of its own, and what it cost."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_NUMBERS = """
import json, resource
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps([used.ru_utime + used.ru_stime, used.ru_maxrss / 1024]))
"""


def run(code: str, environment: Mapping[str, str] | None = None, **names) -> subprocess.CompletedProcess:
    """Run code in a process of its own."""
    words = [sys.executable, "-c", code.format(**names)]
    given = os.environ | {"PYTHONPATH": str(_ROOT)} | (environment or {})
    return subprocess.run(words, cwd=_ROOT, env=given, capture_output=True, text=True)


def measured(code: str, environment: Mapping[str, str] | None = None, **names) -> dict[str, float]:
    """Run code in a process of its own; return its wall and CPU seconds and its peak memory in MB."""
    began = time.monotonic()
    done = run(code + _NUMBERS, environment, **names)
    if done.returncode:
        raise RuntimeError(done.stderr)
    cpu, memory = json.loads(done.stdout.splitlines()[-1])
    return {"seconds": round(time.monotonic() - began, 1), "CPU s": round(cpu, 1), "MB": round(memory)}
