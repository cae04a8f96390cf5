"""Which names and texts are taken for secrets, and which are not."""

import logging
import pickle

import pytest

from safe_sft import SafeSFTConfig
from safe_sft.cli.quiet import hide_secrets
from safe_sft.cli.recipe_arguments import make_parser
from safe_sft.storage.secrets import clean_text, cleaned, may_be_secret, without_secrets

# Put together here, so that no text of this file looks like a token.
HF, AWS, OPENAI = "hf_" + "a1B2" * 8, "AKIA" + "A1B2C3D4E5F6G7H8", "sk-" + "proj-a1B2c3D4e5F6g7H8"
GITHUB, SLACK = "ghp_" + "a1B2" * 9, "xoxb-" + "123456789012-abc"


SECRET = """hub_token HF_TOKEN token WANDB_API_KEY apiKey key AWS_SECRET_ACCESS_KEY password db_passwd
MY_CREDENTIALS creds auth basic-auth Authorization PGPASSWORD SESSION_COOKIE access_tokens"""
PLAIN = """eos_token pad_token_id max_new_tokens tokenizer_name author monkey bypass key_mapping judge_key_variable
query_key_value average_tokens_across_devices passes keyboard"""


@pytest.mark.parametrize("name", SECRET.split())
def test_names_of_secrets(name):
    assert may_be_secret(name)
    assert without_secrets([{"kept": 1, "nested": {name: "x"}}]) == [{"kept": 1, "nested": {}}]


@pytest.mark.parametrize("name", PLAIN.split())
def test_names_of_no_secrets(name):
    assert not may_be_secret(name)
    assert without_secrets({name: "x"}) == {name: "x"}


def test_of_all_arguments_of_a_recipe_only_tokens_of_the_hub_are_secrets():
    flags = {action.dest for action in make_parser("train")._actions}
    assert {name for name in flags if may_be_secret(name)} == {"hub_token"}


@pytest.mark.parametrize("token", [HF, AWS, OPENAI, GITHUB, SLACK], ids=lambda token: token[:4])
def test_tokens_are_known_by_their_look(token):
    assert clean_text(f"the server said: {token}, no") == "the server said: ***, no"
    assert without_secrets({"note": f"use {token}", token: [token]}) == {"note": "use ***", "***": ["***"]}


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("postgres://me:pa@ss@host:5432/db", "postgres://***@host:5432/db"),
        ("https://host:8080/a@b", "https://host:8080/a@b"),
        ("Authorization: Bearer abcdefgh12", "Authorization: Bearer ***"),
        ("kwargs={'token': 'planted', 'dtype': 'float32'}", "kwargs={'token': '***', 'dtype': 'float32'}"),
        ("unknown argument --hub_token=planted", "unknown argument --hub_token=***"),
        ("`eos_token='<end>'` and `hub_token=None`", "`eos_token='<end>'` and `hub_token=None`"),
        ("Write one `key: value` a line; the task-arithmetic of sk-learn", None),
    ],
)  # fmt: skip
def test_texts(text, clean):
    assert clean_text(text) == (text if clean is None else clean)


def test_what_the_environment_holds_is_known(monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "an-opaque-value")
    monkeypatch.setenv("SOME_SETTING", "a-plain-value")
    monkeypatch.setenv("SHORT_TOKEN", "true")
    assert clean_text("true: an-opaque-value, a-plain-value") == "true: ***, a-plain-value"


def test_categories_are_no_settings():
    assert cleaned({"Credential theft": {"asr": 0.5}, "password": HF}) == {
        "Credential theft": {"asr": 0.5},
        "password": "***",
    }


def test_arguments_are_pickled_and_logged_without_secrets(tmp_path):
    given = {"token": "planted-1", "dtype": "float32"}
    args = SafeSFTConfig(str(tmp_path), use_cpu=True, hub_token="planted-2", model_init_kwargs=given)
    assert b"planted" not in pickle.dumps(args)
    assert "planted" not in args.to_json_string()
    back = pickle.loads(pickle.dumps(args))
    assert (back.hub_token, back.model_init_kwargs, back.eos_token) == (None, {"dtype": "float32"}, None)
    assert args.model_init_kwargs == given
    assert args.hub_token == "planted-2"


def test_logs(caplog):
    before = logging.getLogRecordFactory()
    try:
        hide_secrets()
        logging.getLogger("of.a.library").warning("asked with %s", HF)
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.messages == ["asked with ***"]
