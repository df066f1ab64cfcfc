"""Which browser is taken, and what is said where there is none."""

import platform
import re

import pytest

from renderers import browsers


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that puts a program at a path of a machine without any browser."""

    def put(path: str, prints: str = "Chromium 1.0", status: int = 0) -> str:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"#!/bin/sh\necho {prints}\nexit {status}\n")
        file.chmod(0o755)
        return str(file)

    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(tmp_path / "playwright"))
    monkeypatch.setattr(browsers, "SNAP", str(tmp_path / "snap" / "chrome"))
    monkeypatch.setattr(browsers, "MAC", ())
    browsers.starts.cache_clear()
    return put


def test_the_order_is_chromium_chrome_a_snaps_and_playwrights_newest(machine):
    rising = [
        machine("playwright/chromium-900/chrome-linux/chrome"),
        machine("playwright/chromium-1200/chrome-linux64/chrome"),
        machine("snap/chrome"),
        machine("bin/google-chrome", "Google Chrome 1.0"),
        machine("bin/chromium"),
    ]
    assert list(browsers.candidates()) == [*reversed(rising[1:]), rising[0]]
    assert browsers.find_browser() == rising[-1]


def test_a_browser_that_is_named_is_the_one(machine, monkeypatch):
    machine("bin/chromium")
    own = machine("opt/own")
    monkeypatch.setenv("CHROMIUM", own)
    assert browsers.find_browser() == own
    assert browsers.find_browser(machine("opt/flag")).endswith("opt/flag")
    monkeypatch.setenv("CHROMIUM", machine("opt/broken", status=1))
    with pytest.raises(FileNotFoundError, match=r"opt/broken \(\$CHROMIUM\) is no browser that starts"):
        browsers.find_browser()


def test_a_script_that_only_says_what_to_install_is_passed_over(machine):
    machine("bin/chromium-browser", "Command requires the chromium snap to be installed.", 1)
    machine("bin/chromium", "not a browser 1.0")
    chrome = machine("bin/google-chrome", "Google Chrome 1.0")
    assert browsers.find_browser() == chrome


@pytest.mark.parametrize(
    ("system", "type_this"),
    [("debian", "apt-get install chromium"), ("ubuntu", "sudo snap install chromium"), ("arch", "install Chromium")],
)
def test_without_a_browser_it_says_what_to_type(machine, monkeypatch, system, type_this):
    monkeypatch.setattr(platform, "freedesktop_os_release", lambda: {"ID": system})
    if system != "arch":
        machine("bin/apt-get")
    with pytest.raises(FileNotFoundError, match=rf"no browser found .*: {re.escape(type_this)}.*\$CHROMIUM"):
        browsers.find_browser()
