"""Laws of rows, over rows that nobody would write: the text is in what the model sees, or an error names the row."""

from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from safe_sft.data import read_safety_rows, tokenize_row
from safe_sft.data.tokenization import prompt_token_ids
from safe_sft.data.values import check_training_rows
from tests.conftest import make_tokenizer

LAWS = settings(max_examples=100, deadline=None, derandomize=True)
TEXTS = st.one_of(st.text(st.characters(codec="utf-8", exclude_categories=("Cc",)), max_size=12), st.just("bad"))
ODD = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(allow_nan=False), st.just(""), st.just([]))
ROLES = st.sampled_from(["system", "user", "assistant", "assistant", "user", ""])
TURNS = st.fixed_dictionaries({}, optional={"role": ROLES | ODD, "content": TEXTS | ODD, "name": TEXTS})
VALUES = st.one_of(TEXTS, ODD, st.lists(TURNS, max_size=3))
ROWS = st.one_of(
    st.fixed_dictionaries({"prompt": TEXTS}, optional={"completion": TEXTS}),
    st.fixed_dictionaries({}, optional={"prompt": VALUES, "completion": VALUES, "messages": VALUES, "tools": VALUES}),
    ODD,
)
TOKENIZER = make_tokenizer()


def texts_of(side):
    """The texts of a prompt or an answer."""
    if isinstance(side, str):
        return [side]
    return [turn["content"] for turn in side or () if isinstance(turn.get("content"), str)]


@LAWS
@given(row=ROWS)
def test_a_safety_row_is_in_what_is_rendered_or_is_named(row):
    try:
        (read,) = read_safety_rows([row])
        ids = prompt_token_ids(TOKENIZER, read.prompt) if read.completion is None else None
        ids = ids or tokenize_row(TOKENIZER, read).input_ids
    except ValueError as error:
        said = str(error)
        assert "Row 0" in said or "chat template" in said
        return
    shown = TOKENIZER.decode(ids)
    for text in [*texts_of(read.prompt), *texts_of(read.completion)]:
        assert text.strip() in shown


@LAWS
@given(
    rows=st.lists(st.fixed_dictionaries({"prompt": TEXTS | st.none(), "completion": TEXTS | st.none()}), min_size=1)
)
def test_training_rows_all_hold_words_or_the_first_that_does_not_is_named(rows):
    dataset = Dataset.from_list(rows)
    faulty = [i for i, row in enumerate(rows) if not all(text and text.strip() for text in row.values())]
    try:
        check_training_rows(dataset, "text", "mine")
    except ValueError as error:
        assert any(f"Row {index} of 'mine'" in str(error) for index in faulty)  # noqa: PT017
    else:
        assert not faulty
