"""The line of a card that loads its model from the Hub: the one thing of it that a push changes."""

import json
import re

from .terminal import plain

_QUICK_START = re.compile(r'(pipeline\("text-generation", model=)"(?:[^"\\]|\\.)*"')


def with_repository(card: str, repo: str) -> str:
    """Let the quick start of `card` load `repo`.

    Args:
        card: text of a model card.
        repo: name of the repository on the Hub.
    """
    return _QUICK_START.sub(lambda match: match[1] + json.dumps(plain(repo), ensure_ascii=False), card)
