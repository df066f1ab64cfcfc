"""The sandbox of the PDF parser, from inside: a hostile program in its place can compute and answer."""

import json
import os
import re
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pymupdf
import pytest

from corpus.bugs import Bug
from pipelines import render_pdf
from pipelines.engine import job
from renderers import answers, confine, landlock, pdf_process, seccomp, sentry
from renderers.pdf_process import Limits, PdfProcess

ROOT = Path(__file__).resolve().parent.parent

DEADLY = ("use another call convention (x32)",)  # the kernel ends the process
FILES = ("read", "append", "truncate", "unlink", "rename", "chmod")


@pytest.fixture
def play(tmp_path, monkeypatch):
    """A folder open to everybody, sockets that answer, a fellow process: what a captured parser would like to reach."""
    monkeypatch.setattr(pdf_process, "WORKER", "tests.hostile_parser")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.owner() == tmp_path.owner() and str(folder) not in ("/", "/tmp"):
            folder.chmod(0o777)
    for name in FILES:
        (tmp_path / name).write_text("data")
    (tmp_path / "mount").mkdir()
    fellow = subprocess.Popen(["sleep", "100"], user=confine.NOBODY if os.geteuid() == 0 else None)
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        unix.bind(str(tmp_path / "socket")), unix.listen()
        abstract.bind(f"\0gristmill-{os.getpid()}"), abstract.listen()
        yield {
            "folder": str(tmp_path), "parent": os.getpid(), "fellow": fellow.pid, "tcp": tcp.getsockname()[1],
            "unix": str(tmp_path / "socket"), "abstract": f"\0gristmill-{os.getpid()}", "without": DEADLY,
        }  # fmt: skip
    fellow.kill()
    fellow.wait()


def one_page() -> bytes:
    made = pymupdf.open()
    made.new_page().insert_text((40, 60), "enough characters for a page that is kept")
    return made.tobytes()


def outcomes(play: dict, sandbox: bool = True) -> dict[str, str]:
    with PdfProcess(sandbox=sandbox) as process:
        (answer,) = process.render(json.dumps(play).encode())
    assert answer.kind == "report", answer
    return json.loads(answer.detail)


def test_a_captured_parser_can_do_nothing_but_compute_and_answer(play):
    before = sorted(os.listdir(play["folder"]))
    found = outcomes(play)
    assert len(found) == 69
    assert [name for name, outcome in found.items() if outcome == "done"] == []
    assert sorted(os.listdir(play["folder"])) == before
    assert {Path(play["folder"], name).read_text() for name in FILES} == {"data"}


def test_the_same_program_gets_far_without_the_sandbox(play):
    """The attempts are real: each of these does work where nothing is locked."""
    found = outcomes(play | {"without": (*DEADLY, "survive the job (PDEATHSIG)", "mount")}, sandbox=False)
    assert sum(outcome == "done" for outcome in found.values()) > 40
    assert found["read a file of the job"] == found["change a file's mode"] == found["connect by TCP"] == "done"
    assert found["remove a file"] == found["signal the job"] == found["connect to a Unix socket"] == "done"


def test_another_convention_of_calls_ends_the_process(play):
    with PdfProcess() as process:
        (answer,) = process.render(json.dumps(play | {"only": DEADLY[0]}).encode())
    assert answer.kind == "crash" and "SIGSYS" in answer.detail


def test_every_wall_stands_while_pages_are_rendered():
    with PdfProcess() as process:
        list(process.render(one_page()))
        status = Path(f"/proc/{process._process.pid}/status").read_text()
        limits = Path(f"/proc/{process._process.pid}/limits").read_text()
        files = os.listdir(f"/proc/{process._process.pid}/fd")
    assert re.search(r"Seccomp:\s2\n", status) and re.search(r"NoNewPrivs:\s1\n", status)
    assert re.search(r"Threads:\s1\n", status) and len(files) == 4
    if os.geteuid() == 0:
        assert re.search(r"CapEff:\s0+\n", status) and re.search(r"Groups:\s*\n", status)
    assert re.search(rf"Uid:\s({confine.NOBODY}\s){{4}}", status.replace("\n", "\t")) or os.geteuid() != 0
    for name in ("file size", "core file size", "processes", "open files"):
        assert re.search(rf"Max {name} +0 +0 ", limits), name
    assert process.walls["Landlock"] == landlock.version()


@pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")
def test_landlock_alone_closes_files_and_signals(tmp_path):
    (tmp_path / "file").write_text("data")
    code = (
        "import os, sys; from renderers import confine, landlock\n"
        "confine.limit_process(1 << 40); landlock.lock()\n"
        "path = sys.argv[1]\n"
        "for attempt in (lambda: open(path), lambda: os.unlink(path), lambda: os.kill(os.getppid(), 0)):\n"
        "    try: attempt(); print('done')\n"
        "    except PermissionError: print('refused')\n"
    )
    ran = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], cwd=ROOT, capture_output=True, text=True)
    refused = 3 if landlock.version() >= 6 else 2
    assert ran.stdout.split() == ["refused"] * refused + ["done"] * (3 - refused), ran.stderr


def test_a_network_namespace_leaves_its_user_able_to_open_another():
    """Chromium's sandbox is made of namespaces; an unmapped user may not open any."""
    code = (
        "import ctypes; from renderers import confine\n"
        "confine.become_nobody(); ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)\n"  # the owner of its /proc again
        "print(confine.drop_network() and confine.may_open_namespaces())"
    )
    if not sentry.allowed("/bin/true", "/tmp").sandboxed:
        pytest.skip("this system allows no user namespaces")
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "True\n", ran.stderr


def test_a_wall_that_cannot_be_built_stops_the_job_and_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(pdf_process, "WORKER", "tests.refused_parser")
    (tmp_path / "a.pdf").write_bytes(one_page())
    command = ["render_pdf", "--dataset", "common-crawl-pdf", "--input", str(tmp_path / "a.pdf"), "--workers", "0"]
    monkeypatch.setattr(sys, "argv", [*command, "--output", str(tmp_path / "out")])
    with pytest.raises(SystemExit, match="one thread: 2 threads.*--unsandboxed"):
        job.main(render_pdf.main)
    assert not list((tmp_path / "out").glob("*.tar"))
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--unsandboxed"])
    job.main(render_pdf.main)
    assert list((tmp_path / "out").glob("*.tar"))


def test_an_aborting_parser_is_reported_by_its_signal(monkeypatch):
    monkeypatch.setattr(pdf_process, "WORKER", "tests.hostile_parser")
    with PdfProcess() as process:
        (answer,) = process.render(json.dumps({"abort": True}).encode())
    assert answer.kind == "crash" and "SIGABRT" in answer.detail


def test_the_parser_imports_nothing_that_starts_threads():
    code = "import sys, renderers.pdf_worker; print(sys.modules.keys() & {'pyarrow', 'torch', 'ray', 'pandas'})"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout == "set()\n", ran.stderr


def test_an_import_behind_the_locks_is_our_mistake_and_stops_the_job(monkeypatch):
    monkeypatch.setattr(pdf_process, "WORKER", "tests.hostile_parser")
    with PdfProcess() as process, pytest.raises(Bug, match="No module named 'wave'"):
        list(process.render(json.dumps({"import": "wave"}).encode()))


def test_cpu_time_ends_a_parser_that_computes_for_ever(monkeypatch):
    monkeypatch.setattr(pdf_process, "WORKER", "tests.hostile_parser")
    with PdfProcess(limits=Limits(page_seconds=0.5)) as process:
        (answer,) = process.render(json.dumps({"spin": True}).encode())
    assert answer.kind == "timeout" and "CPU" in answer.detail


def test_a_parser_that_computes_for_ever_dies_with_a_job_that_is_killed():
    code = (
        "import os; from renderers import pdf_process\n"
        "pdf_process.WORKER = 'tests.hostile_parser'\n"
        "process = pdf_process.PdfProcess(limits=pdf_process.Limits(page_seconds=200)); process._start()\n"
        "print(process._process.pid, flush=True); list(process.render(b'{\"spin\": true}'))"
    )
    job = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE)
    worker = psutil.Process(int(job.stdout.readline()))
    while worker.cpu_times().user < 1:  # it has the document, and will not look at its socket again
        time.sleep(0.05)
    job.kill()
    job.wait()
    worker.wait(timeout=10)


VALUES = dict.fromkeys(answers._OF_PAGES, 1)
PAGE = {
    "size": [30, 20], "values": VALUES, "verdict": None, "language": "en", "digest": "0" * 32, "hidden": 0,
    "windows": [{
        "box": [0, 0, 30, 20], "tokens": 9, "covered": 0, "values": dict.fromkeys(answers._OF_WINDOWS, 1),
        "verdict": None, "lines": [["text", [0.5] * 8]],
    }],
}  # fmt: skip
LINE = PAGE["windows"][0]
NONSENSE = [
    None, [], 7, {}, PAGE | {"size": [30]}, PAGE | {"size": "ab"}, PAGE | {"size": [-1, 5]}, PAGE | {"windows": [7]},
    PAGE | {"values": {"blank": 1}}, PAGE | {"values": VALUES | {"forged": 1}},
    PAGE | {"values": VALUES | {"blank": 1.5}}, PAGE | {"verdict": ["forged", 1, 1]},
    PAGE | {"verdict": ["blank", 1, None]}, PAGE | {"language": "\ud800"}, PAGE | {"language": "e" * 41},
    PAGE | {"digest": ["0"]}, PAGE | {"hidden": True}, PAGE | {"hidden": 1 << 40}, PAGE | {"windows": []},
    *(PAGE | {"windows": [LINE | change]} for change in (
        {"box": [0, 0, 31, 20]}, {"box": [5, 0, 5, 20]}, {"tokens": 1.5}, {"covered": -1}, {"values": {}},
        {"verdict": ["forged", 1, 1]}, {"lines": [["text", [0.5] * 7]]},
        {"lines": [["text", [float("inf")] * 8]]}, {"lines": [["text", [float("nan")] * 8]]},
        {"lines": [["text", ["0"] * 8]]}, {"lines": [[7, [0.5] * 8]]}, {"lines": [["\udfff", [0.5] * 8]]},
    )),
    {"failed": "Not A Kind", "detail": ""}, {"failed": "crash"}, {"failed": "crash", "detail": "x" * 20_000},
]  # fmt: skip


@pytest.mark.parametrize("answer", NONSENSE, ids=range(len(NONSENSE)))
def test_an_answer_that_is_none_of_ours_is_refused(answer):
    answers.check("page", PAGE, [b"jpeg"])
    with pytest.raises(answers.Nonsense):
        answers.check("page", answer, [b"jpeg"])


def framed(text: bytes, blobs: bytes = b"") -> str:
    return (struct.pack(">II", len(text), len(blobs)) + text + blobs).hex()


@pytest.mark.parametrize("said, kind", [
    (framed(b'{"pages":"7","blobs":[]}'), "crash"), (framed(b"[1]"), "crash"), (framed(b'{"pages":7}'), "crash"),
    (framed(b"not JSON"), "crash"), (framed(b"[" * 100_000), "crash"), (framed(b"\xff"), "crash"),
    (framed(b'{"pages":1,"blobs":[-1,5]}', b"four"), "crash"), (framed(b'{"pages":1,"blobs":["4"]}', b"four"), "crash"),
    (framed(b'{"pages":1,"blobs":7}'), "crash"), (struct.pack(">II", 1 << 31, 0).hex(), "too_much_output"),
], ids=range(10))  # fmt: skip
def test_whatever_a_captured_parser_says_costs_its_document_and_no_more(monkeypatch, said, kind):
    with PdfProcess(limits=Limits(page_seconds=5)) as process:
        monkeypatch.setattr(pdf_process, "WORKER", "tests.hostile_parser")
        (answer,) = process.render(json.dumps({"say": said, "spin": True}).encode())
        assert (answer.number, answer.kind) == (None, kind)
        monkeypatch.undo()
        assert len(list(process.render(one_page()))) == 1


@pytest.mark.parametrize("pages", [-1, "7", 1.5, True, 1 << 70, None])
def test_a_number_of_pages_is_a_number(pages):
    answers.check("open", {"pages": 3}, [])
    with pytest.raises(answers.Nonsense):
        answers.check("open", {"pages": pages}, [])


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_lets_through_the_calls_that_the_kernel_headers_name(machine):
    header, pattern = HEADERS[machine]
    if not Path(header).exists():
        pytest.skip(f"no {header}")
    numbers = {name: int(number) for name, number in re.findall(pattern, Path(header).read_text())}
    program = seccomp._program(machine, 77)
    for name in ("futex", "madvise", "munmap", "exit_group", "getpid"):
        assert decide(program, machine, numbers[name], [9] * 6) == ALLOW, name
    for name in ("openat", "execve", "socket", "kill", "ptrace", "unlinkat", "clone", "clone3", "ioctl", "write"):
        assert decide(program, machine, numbers[name], [0] * 6) == REFUSE, name
    assert {number for number in range(600) if decide(program, machine, number, [0, 0, 0, 0, 0, 0]) == ALLOW} <= {
        numbers[name] for name in seccomp._ALLOWED
    }
    assert decide(program, machine, numbers["mmap"], [0, 1, 3, 0, 0, 0]) == ALLOW
    assert decide(program, machine, numbers["mmap"], [0, 1, 7, 0, 0, 0]) == REFUSE
    assert decide(program, machine, numbers["tgkill"], [77, 78, 6]) == ALLOW
    assert decide(program, machine, numbers["tgkill"], [1, 1, 6]) == REFUSE
    assert decide(program, machine, numbers["sendto"], [3, 1, 1, 0, 1, 16]) == REFUSE
    assert decide(program, "other", numbers["futex"], [0] * 6) == KILL


def test_a_machine_without_a_table_is_refused():
    with pytest.raises(OSError, match="riscv64"):
        seccomp._program("riscv64", 1)


ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050001, 0x80000000
HEADERS = {
    "x86_64": ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", r"#define __NR_(\w+) (\d+)"),
    "aarch64": ("/usr/include/asm-generic/unistd.h", r"#define __NR(?:3264)?_(\w+) (\d+)"),
}


def decide(program, machine: str, number: int, arguments: list[int]) -> int:
    """Run a filter as the kernel would; arguments are small, so that their lower halves are all there is."""
    audit = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}.get(machine, 0)
    data = {0: number, 4: audit} | {16 + 8 * place: value for place, value in enumerate(arguments)}
    at, held = 0, 0
    while True:
        code, if_true, if_false, operand = program[at]
        at += 1
        if code == 0x06:
            return operand
        if code == 0x20:
            held = data.get(operand, 0)
        else:
            test = {0x15: held == operand, 0x35: held >= operand, 0x45: held & operand}[code]
            at += if_true if test else if_false
