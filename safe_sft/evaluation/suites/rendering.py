"""What a model is shown: a case's messages through the chat template, and the beginning of its answer."""

from transformers import PreTrainedTokenizerBase

from ...data.tokenization import fold_system_prompt, prompt_token_ids, shows_system_prompts
from .suite import Case


def case_token_ids(tokenizer: PreTrainedTokenizerBase, case: Case) -> list[int]:
    """Token ids of a case that waits for its answer, `prefill` included.

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
