"""`make demo` and `make test` on a bare Debian: debootstrap's smallest, make, git, Python and certificates, no more.

    python3 .ci/fresh.py trixie            # as a user without root or sudo, then as root; one line per result
    python3 .ci/fresh.py trixie --keep     # leaves the system there to look at

At the end the user tries once more what needs fonts and a browser, which root has installed by then. Needs root,
debootstrap and room for 20 GB in the temporary folder. The system lives in a mount and process namespace of its own, so
nothing of it outlives this script, however it ends. Settings of proxies, indexes and certificates are passed on; uv's
cache is lent, so that little is downloaded twice.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = "make,git,python3,ca-certificates"
CERTIFICATES = Path("/usr/local/share/ca-certificates")
PASSED_ON = re.compile(r"(?i)(https?|no|all)_proxy|(PIP|UV)_\w*(INDEX|CERT|TLS|TIMEOUT)\w*|SSL_CERT_FILE")
CACHE = "var/cache/uv"
USERS = {"user": "/home/user", "root": "/root"}
WITH_PACKAGES = "tests/test_html.py tests/test_render_jobs.py tests/test_make_ocr.py tests/test_synth_fonts.py"
# Mounts that nothing outside sees and that end with the last process; processes that end with the first.
APART = ("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child")
# Runs as the first process of the namespaces; $1 is the system's folder. pivot_root rather than chroot: in a chroot the
# kernel gives an ordinary user no namespaces, which browsers and the tests of confinement need.
ENTER = """set -e
mount --bind "$1" "$1" && cd "$1"
mount -t proc proc proc && mount -t sysfs -o ro sysfs sys && mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmpfs dev/shm
pivot_root . mnt && umount -l mnt && cd /
shift && exec "$@"
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suite", help="of Debian: stable, trixie, bookworm, ...")
    parser.add_argument("--mirror", metavar="URL", help="default: debootstrap's own")
    parser.add_argument("--only", choices=("user", "root"), help="default: both, the user first")
    parser.add_argument("--args", default="-rsfE", help="for pytest, default: %(default)s")
    parser.add_argument("--keep", action="store_true", help="leave the system where it is")
    args = parser.parse_args()
    if reason := _cannot():
        sys.exit(f"error: make fresh {reason}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    system = Path(tempfile.mkdtemp(prefix="gristmill-fresh-"))
    system.chmod(0o755)
    try:
        ok = try_suite(system, args)
    finally:
        if args.keep:
            print(f"kept: {system}")
        else:
            _remove(system)
    sys.exit(0 if ok else 1)


def _cannot() -> str:
    if os.geteuid() != 0:
        return "needs root: it makes a whole system"
    if not shutil.which("debootstrap"):
        return "needs debootstrap: apt-get install debootstrap"
    if subprocess.run([*APART, "true"], capture_output=True).returncode:
        return "needs namespaces, which this machine or container does not give"
    return ""


def _remove(system: Path) -> None:
    """Remove the system; what was stopped in the middle may still be writing for a moment."""
    for _ in range(100):
        shutil.rmtree(system, ignore_errors=True)
        if not system.exists():
            return
        time.sleep(0.1)
    sys.exit(f"error: {system} cannot be removed")


def try_suite(system: Path, args) -> bool:
    """Make the system and run the two commands in it; print one line per result."""
    began = time.monotonic()
    command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", args.suite, str(system)]
    command += [args.mirror] if args.mirror else []
    made = subprocess.run([*APART, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode:
        sys.exit(f"error: debootstrap of {args.suite} failed:\n{made.stdout[-2000:]}")
    _lend(system)
    if not inside(system, "root", "update-ca-certificates && useradd --create-home user"):
        sys.exit(f"error: nothing runs in the {args.suite} system; --keep leaves it there to look at")
    print(f"{args.suite}  a bare system  {time.monotonic() - began:.0f} s", flush=True)
    good = True
    for user in (args.only,) if args.only else USERS:
        _copy_checkout(system / USERS[user][1:] / "gristmill", system, user)
        for target in ("demo", "test"):
            good &= _try(system, user, target, args.args, args.suite)
    if not args.only:
        good &= _try(system, "user", "test", f"{args.args} {WITH_PACKAGES}", args.suite)
    return good


def _try(system: Path, user: str, target: str, flags: str, suite: str) -> bool:
    began, log = time.monotonic(), system / f"{user}-{target}.log"
    more = f" ARGS={flags!r}" if target == "test" else ""
    done = inside(system, user, f"cd {USERS[user]}/gristmill && make {target}{more}", log)
    lines = log.read_text(errors="replace").splitlines()
    for line in lines if done else [line for line in lines if line.startswith(("FAILED", "ERROR"))] + lines[-60:]:
        if not done or line.startswith(("missing: ", "SKIPPED")):
            print(f"    {line}")
    last = next((line for line in reversed(lines) if " passed" in line or line.startswith("Done in")), "")
    verdict = "ok    " if done else "FAILED"
    seconds = f"{time.monotonic() - began:.0f} s"
    print(f"{suite}  {user}  make {target}  {verdict}  {seconds}  {last.strip('= ')}", flush=True)
    return done


def inside(system: Path, user: str, command: str, log: Path | None = None) -> bool:
    """Run a shell command in the system as one of USERS; whether it ended well."""
    passed = [f"{key}={value}" for key, value in os.environ.items() if PASSED_ON.fullmatch(key)]
    environment = [f"HOME={USERS[user]}", f"USER={user}", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
                   f"UV_CACHE_DIR=/{CACHE}", "UV_LINK_MODE=copy", *passed]  # fmt: skip
    become = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--no-new-privs"]
    words = ["env", "-i", *environment, *(become if user != "root" else []), "sh", "-c", command]
    with open(log or os.devnull, "w") as out:
        done = subprocess.run(
            [*APART, "sh", "-c", ENTER, "sh", str(system), *words],
            stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    return done.returncode == 0


def _lend(system: Path) -> None:
    """Give the system this machine's own certificates and the contents of uv's cache, by hard links where it can."""
    for file in CERTIFICATES.glob("*.crt"):
        shutil.copy(file, system / str(CERTIFICATES)[1:])
    cache = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv")
    linked = cache.is_dir() and not subprocess.run(
        ["cp", "--archive", "--link", str(cache), str(system / CACHE)], capture_output=True
    ).returncode  # fmt: skip
    if not linked:
        shutil.rmtree(system / CACHE, ignore_errors=True)
        (system / CACHE).mkdir()
    for parent, _, files in os.walk(system / CACHE):  # anyone may add to it; what is lent can only be read
        os.chmod(parent, 0o777)
        for file in files:
            if file.startswith(".") or file.endswith((".lock", ".TAG")):  # uv's own marks, which it opens to write
                os.unlink(os.path.join(parent, file))


def _copy_checkout(target: Path, system: Path, user: str) -> None:
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    for file in subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")[:-1]:
        if (ROOT / file).exists():
            (target / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, target / file)
    inside(system, "root", f"chown -R {user}: /{target.relative_to(system)}")


if __name__ == "__main__":
    main()
