"""Turns a request into what a model is shown: chat template, messages, and a forced beginning of the answer."""

from transformers import PreTrainedTokenizerBase

from ...data.tokenization import fold_system_prompt, prompt_token_ids, shows_system_prompts
from .suite import Case


def case_token_ids(tokenizer: PreTrainedTokenizerBase, case: Case) -> list[int]:
    """Return the token ids of a request up to where its answer goes on, `prefill` included.

    Args:
        tokenizer: the model's tokenizer. Without a chat template, messages become paragraphs of one text; where its
            template has no place for a system prompt, that goes to the head of the first user turn.
        case: the request.
    """
    turns = case.turns
    if not tokenizer.chat_template:
        paragraphs = [turn["content"] for turn in turns] + ([case.prefill] if case.prefill else [])
        return prompt_token_ids(tokenizer, "\n\n".join(paragraphs))
    if turns[0]["role"] == "system" and not shows_system_prompts(tokenizer):
        turns = fold_system_prompt(turns)
    ids = prompt_token_ids(tokenizer, turns)
    return ids + tokenizer(case.prefill, add_special_tokens=False)["input_ids"] if case.prefill else ids
