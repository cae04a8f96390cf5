"""Keeps secrets out of what is written and printed: what may be one by its name, and what is one by its look.

A name may be that of a secret where it speaks of a token, key, password, credential or the like. A text is cleaned of
tokens of known forms, of passwords in addresses, and of what the environment holds under such a name.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Any

#: What stands in place of a secret.
HIDDEN = "***"

_NAME = re.compile(
    r"secret|passw|passphrase|credential|api_?key|authori[sz]|authenticat|bearer|token(?!s|i[sz]|_(?:id|type|index))"
    r"|(?:access|api|auth|hf|hub|refresh)_tokens|(?:^|_)(?:keys?|auth|pass|pwd|creds?|cookies?|dsn)(?:_|$)"
)
_NO_SECRET = re.compile(
    r"(?:eos|bos|pad|unk|sep|cls|mask|image|audio|video|special|stop|new|per)_token$|^key_mapping$|_key_variable$"
    r"|^(?:keys_to_ignore|ignore_keys)|query_key|key_value"
)
_VARIABLES = {"env", "environment"}
#: Tokens that are known by their look: of the Hub, OpenAI, GitHub, GitLab, AWS, Slack and Google; signed ones; keys.
_TOKEN = re.compile(
    r"(?<![A-Za-z0-9])(?:(?:hf|api_org)_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{16,}"
    r"|github_pat_\w{20,}|glpat-[\w-]{16,}|(?:AKIA|ASIA)[A-Z0-9]{12,}|xox[abeoprs]-[\w-]{10,}|AIza[\w-]{30,}"
    r"|eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]+)"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|$)",
    re.DOTALL,
)
_IN_ADDRESS = re.compile(r"(?<=://)[^\s/@:\"']*:[^\s/\"']+(?=@)")
_BEARER = re.compile(r"(?i)(?<=\bbearer )[\w.~+/=-]{8,}")
#: `name=value` and `'name': 'value'`, as settings are shown in messages.
_PAIR = re.compile(
    r"""(?<!\w)(?P<name>[A-Za-z_]\w*)(?P<sign>=|["']\s*:\s*)(?P<quote>["']?)(?P<value>[^\s"'`,}]{4,})"""
)
#: A shorter value may be a word that means something else, too.
_SHORTEST = 8


def may_be_secret(name: str) -> bool:
    """Tell whether what stands under a name may be a secret.

    Args:
        name: name of a setting or of a variable.

    Example:
        >>> [may_be_secret(name) for name in ("hub_token", "MY_CREDENTIALS", "apiKey", "eos_token", "max_new_tokens")]
        [True, True, True, False, False]
    """
    name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|[^A-Za-z0-9]+", "_", name).lower()
    return bool(_NAME.search(name)) and not _NO_SECRET.search(name)


def without_secrets(value: Any) -> Any:
    """Leave out of settings what may be a secret by its name, all variables of `env`, and clean the texts.

    Args:
        value: mappings and lists of plain values, nested; anything else is returned as it is.

    Example:
        >>> without_secrets({"lr": 0.1, "model_init_kwargs": {"token": "abc"}, "env": {"PORT": "80"}})
        {'lr': 0.1, 'model_init_kwargs': {}}
    """
    return _cleaned(value, _cleaner(), by_name=True)


def cleaned(value: Any) -> Any:
    """Clean the texts of plain data, whatever the names are: those of categories, say, are no settings.

    Args:
        value: a text, or mappings and lists of plain values, nested.
    """
    return _cleaned(value, _cleaner(), by_name=False)


def clean_text(text: str, also: Iterable[str | None] = ()) -> str:
    """Return a text with `***` in place of each secret that is known by its look or its value.

    Args:
        text: the text, such as an error message.
        also: further secrets that must not appear.

    Example:
        >>> clean_text("postgres://me:pass@host/db refused hf_abcdefghijklmnopqrst")
        'postgres://***@host/db refused ***'
    """
    return _hidden(text, _cleaner(also))


def _cleaner(also: Iterable[str | None] = ()) -> re.Pattern[str] | None:
    """Make the pattern of the secrets that this process knows; None where it knows none."""
    values = {value for name, value in os.environ.items() if may_be_secret(name) and not os.path.exists(value)}
    hub = sys.modules.get("huggingface_hub")  # knows the token of `hf auth login`; not imported for that
    values |= {hub.get_token() or ""} if hub is not None else set()
    known = {value.strip() for value in values if len(value.strip()) >= _SHORTEST} | {text for text in also if text}
    return re.compile("|".join(map(re.escape, sorted(known, key=len, reverse=True)))) if known else None


def _cleaned(value: Any, known: re.Pattern[str] | None, *, by_name: bool) -> Any:
    if isinstance(value, str):
        return _hidden(value, known)
    if isinstance(value, Mapping):
        kept = {k: v for k, v in value.items() if not (by_name and _is_left_out(k, v))}
        return {_cleaned(k, known, by_name=by_name): _cleaned(v, known, by_name=by_name) for k, v in kept.items()}
    if type(value) in (list, tuple, set):
        return type(value)(_cleaned(item, known, by_name=by_name) for item in value)
    return value


def _is_left_out(name: Any, value: Any) -> bool:
    if str(name).lower() in _VARIABLES:
        return isinstance(value, Mapping)
    return may_be_secret(str(name)) and not _says_nothing(value)


def _says_nothing(value: Any) -> bool:
    """Tell whether a value is too plain for a secret: nothing, a truth value, or a small number."""
    return value is None or isinstance(value, (bool, float)) or (isinstance(value, int) and abs(value) < 1000)


def _hidden(text: str, known: re.Pattern[str] | None) -> str:
    if known is not None:
        text = known.sub(HIDDEN, text)
    for pattern in (_TOKEN, _IN_ADDRESS, _BEARER):
        text = pattern.sub(HIDDEN, text)
    return _PAIR.sub(_hidden_pair, text)


def _hidden_pair(found: re.Match[str]) -> str:
    plain = found["value"].lower() in ("none", "true", "false") or found["value"].startswith(HIDDEN)
    if plain or not may_be_secret(found["name"]):
        return found[0]
    return f"{found['name']}{found['sign']}{found['quote']}{HIDDEN}"
