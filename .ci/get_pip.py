"""Put pip into this interpreter's virtual environment: Debian's Python has no ensurepip unless root installs a package.

pip's own wheel runs as it is, so the one that the index calls the newest is fetched, checked against the index's
digest, and installs itself.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urljoin
from urllib.request import urlopen

INDEX = "https://pypi.org/pypi/pip/json"


def main() -> None:
    with urlopen(INDEX, timeout=60) as reply:
        wheel = next(file for file in json.load(reply)["urls"] if file["packagetype"] == "bdist_wheel")
    with urlopen(urljoin(INDEX, wheel["url"]), timeout=60) as reply:
        data = reply.read()
    if hashlib.sha256(data).hexdigest() != wheel["digests"]["sha256"]:
        sys.exit(f"error: {wheel['filename']} is not what {INDEX} announces; try again, or install python3-venv")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / wheel["filename"]
        path.write_bytes(data)
        command = [sys.executable, f"{path}/pip", "install", "--quiet", "--no-index", str(path)]
        sys.exit(subprocess.run(command).returncode)


if __name__ == "__main__":
    main()
