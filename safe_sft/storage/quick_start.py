"""The line of a card that loads its model from the Hub: the one thing of it that a push changes."""

import json
import re

from .terminal import plain

_QUICK_START = re.compile(r'(pipeline\("text-generation", model=)("(?:[^"\\]|\\.)*")')
#: A name that the Hub takes.
_REPOSITORY = re.compile(r'"(?:[\w-][\w.-]*/)?[\w-][\w.-]{0,95}"', re.ASCII)


def with_repository(card: str, repo: str) -> str:
    """Let the quick start of `card` load `repo`.

    Args:
        card: text of a model card.
        repo: name of the repository on the Hub.
    """
    return _QUICK_START.sub(lambda match: match[1] + json.dumps(plain(repo), ensure_ascii=False), card)


def without_repository(card: str) -> str:
    """Leave the repository out of the quick start of `card`; what is no name of one stays.

    Args:
        card: text of a model card.
    """
    return _QUICK_START.sub(lambda match: f'{match[1]}""' if _REPOSITORY.fullmatch(match[2]) else match[0], card)
