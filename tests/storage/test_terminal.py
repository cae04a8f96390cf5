"""Texts of others are shown as they are, and have no power over a terminal."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from safe_sft.storage.terminal import plain, shown, table


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("\x1b[31mred\x1b]8;;http://x\x07", r"\x1b[31mred\x1b]8;;http://x\x07"),
        ("a\rb\x00\x9b2J", r"a\rb\x00\x9b2J"),
        ("abc\u202egnp.exe", r"abc\u202egnp.exe"),
        ("two\nlines\tand é – 漢", "two\nlines\tand é – 漢"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_shown(text, seen):
    assert plain(text) == seen


@pytest.mark.parametrize(
    "text", ["[bold]x[/bold]", "[link=http://x]y", "[/]", "[95 %]", ":warning:", "\\[x]", "a\x1b[2J"]
)
def test_no_text_is_markup(text):
    screen = io.StringIO()
    made = table("h", text)
    made.add_row(text, "x")
    Console(file=screen, width=100, force_terminal=True).print(shown(text), made)
    lines = screen.getvalue()
    assert lines.count(plain(text)) == 3
    assert "\x1b[2J" not in lines
    assert "\x1b]8" not in lines


def test_a_terminal_without_the_character_ends_no_command():
    code = "from safe_sft.cli.command import command; command('demo', list, lambda _: print('\\u2013') or 0)([])"
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, timeout=120)
    assert (done.returncode, done.stdout) == (0, "\\u2013\n"), done.stderr
