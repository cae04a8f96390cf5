"""A flag that would be ignored is an error that names it, its value, and what would make it count."""

from importlib import import_module

import pytest

from safe_sft.cli import recipe_arguments
from safe_sft.cli.command import options
from safe_sft.cli.main import COMMANDS, main

NEEDED = {
    "evaluate": "--model m",
    "merge": "--aligned a --tuned t",
    "repair": "m --output o",
    "importance": "--model m --output o",
    "init": "--model m --data d",
    "poison": "--input i --ratio 0.1 --output o.jsonl",
    "screen": "--model m --input i --output o",
    "train": "--output_dir o --model_name_or_path m --use_cpu true --bf16 false --report_to none",
}
#: Command, what is ignored, and what makes it count.
IGNORED = [
    ("evaluate", "--prompt_column q", "--prompts p.jsonl"),
    ("evaluate", "--prompt_column q --suite builtin-harmful p.txt", "--suite p.csv"),
    ("evaluate", "--allow_code_execution --utility gsm8k", "--utility code:f.jsonl"),
    ("evaluate", "--judge_labels A=refused", "--judge classifier:c"),
    ("evaluate", "--judge_batch_size 3 --judge api:x", "--judge guard:wildguard"),
    ("evaluate", "--judge_url http://x --judge refusal_phrases", "--judge api:x"),
    ("evaluate", "--judge_key_variable K", "--judge api:x"),
    ("evaluate", "--judge_max_cost 1.0", "--judge api:x"),
    ("evaluate", "--judge_prices 1.0 2.0", "--judge api:x"),
    ("evaluate", "--judge_concurrency 2", "--judge api:x"),
    ("evaluate", "--max_asr_increase 0.1", "--model n"),
    ("evaluate", "--max_utility_drop 0.1 --utility gsm8k", "--model n"),
    ("evaluate", "--max_utility_drop 0.1 --model n", "--utility gsm8k"),
    ("evaluate", "--suite advbench --labels l.jsonl", None),
    ("evaluate", "--limit 3 --labels l.jsonl", None),
    ("evaluate", "--max_task_loss_increase 0.1 --task_loss f.jsonl", "--model n"),
    ("evaluate", "--max_task_loss_increase 0.1 --model n", "--task_loss f.jsonl"),
    ("evaluate", "--max_over_refusal 0.1 --labels l.jsonl", None),
    ("repair", "--max_utility_drop 0.1", "--utility gsm8k"),
    ("repair", "--max_task_loss_increase 0.1", "--task_loss f.jsonl"),
    ("repair", "--rounds 3 --way merge", None),
    ("repair", "--learning_rate 0.1 --way merge", None),
    ("repair", "--safety_dataset s.jsonl --way merge", None),
    ("repair", "--halvings 3 --way train", None),
    ("merge", "--base b", "--method magmax"),
    ("merge", "--safe s", "--method safemerge"),
    ("merge", "--threshold 0.5", "--method safe_lora"),
    ("merge", "--weight 0.5 --method safe_lora", None),
    ("merge", "--task_file t.jsonl", "--sweep"),
    ("merge", "--prompts p.jsonl", "--sweep"),
    ("merge", "--max_asr 0.1", "--sweep"),
    ("merge", "--max_new_tokens 3", "--sweep"),
    ("merge", "--batch_size 3", "--sweep"),
    ("merge", "--overwrite --sweep", "--output o"),
    ("merge", "--push_to_hub --sweep", "--output o"),
    ("merge", "--max_shard_size 1GB --sweep", "--output o"),
    ("merge", "--hub_model_id me/m", "--push_to_hub --ignore_gate --output o"),
    ("merge", "--ignore_gate", "--push_to_hub --output o"),
    ("importance", "--lora_target_modules q_proj --adapter a", None),
    ("importance", "--lora_modules_to_save head --space adapter", None),
    ("importance", "--lora_target_modules q_proj", ""),
    ("importance", "--seed 3", "--estimator sampled"),
    ("importance", "--seed 3 --estimator mas", None),
    ("importance", "--decay 0.5", "--previous p"),
    ("init", "--overwrite", "--output o"),
    ("poison", "--trigger word", "--kind backdoor"),
    ("screen", "--overwrite", "--keep k.jsonl"),
    ("screen", "--overwrite", "--drop d.jsonl"),
    ("screen", "--judge_labels A=refused", "--judge classifier:c"),
    ("screen", "--judge_batch_size 3", "--judge guard:wildguard"),
    ("screen", "--judge_url http://x --judge refusal_phrases", "--judge api:x"),
    ("train", "--screen_threshold 1.0", "--screen report"),
    ("train", "--screen_clean c.jsonl", "--screen drop"),
    ("train", "--screen_max_flagged 0.2 --screen drop", "--screen fail"),
    ("train", "--poison_kind harmful", "--poison_ratio 0.1"),
    ("train", "--poison_dataset p.jsonl", "--poison_ratio 0.1"),
    ("train", "--safety_eval_store s --safety_eval false", "--safety_eval true"),
    ("train", "--dataset_config c", "--dataset_name d"),
    ("train", "--dataset_test_split held", "--eval_strategy epoch"),
    ("train", "--safety_dataset_config c", "--safety_dataset_name me/rows"),
    ("train", "--safety_dataset_split test", "--safety_dataset_name me/rows"),
    ("train", "--safety_eval_size 3", "--safety_eval_steps 5"),
    ("train", "--lora_r 4", "--use_peft true"),
    ("train", "--lora_target_modules all-linear", "--use_peft true"),
    ("train", "--lora_alpha 3", "--adapter_name_or_path a"),
    ("train", "--use_dora true", "--use_peft true"),
    ("train", "--use_bnb_nested_quant true", "--load_in_4bit true"),
]


def parsed(name, words):
    line = [*NEEDED[name].split(), *words.split()]
    if name == "train":
        return recipe_arguments.parse(line)
    module = import_module(f"safe_sft.cli.{name}")
    return options(name, None, module.add_arguments, module._RULES)(line)


@pytest.mark.parametrize(("name", "ignored", "counts"), [case for case in IGNORED if case[2] != ""])
def test_what_is_ignored_is_refused(name, ignored, counts, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, *NEEDED[name].split(), *ignored.split()])
    assert stopped.value.code == 2
    line = capsys.readouterr().err.splitlines()[-1]
    flag, *value = ignored.split(" --")[0].split()
    said = f"{flag} {' '.join(value)}".strip() if name != "train" else f"{flag.removeprefix('--')}="
    assert line.startswith(f"safe-sft {name}: error: `{said}")
    assert "is read only with" in line
    if counts is not None and name != "train":
        assert any(word.partition(":")[0] in line for word in counts.split())


@pytest.mark.parametrize(("name", "ignored", "counts"), [case for case in IGNORED if case[2] is not None])
def test_what_counts_is_taken(name, ignored, counts):
    parsed(name, f"{ignored} {counts}")


@pytest.mark.parametrize("name", NEEDED)
def test_defaults_are_taken(name):
    parsed(name, "")


def test_a_bound_that_no_suite_can_tell_is_refused_before_a_model_is_loaded(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", "./missing", "--suite", "builtin-harmless", "--max_asr", "0.1"])
    assert "`--max_asr 0.1` is read only with a suite of harmful requests" in capsys.readouterr().err


def test_every_flag_of_a_table_is_one_of_its_command():
    for name in set(COMMANDS) & set(NEEDED) - {"train"}:
        found = parsed(name, "")
        for rule in import_module(f"safe_sft.cli.{name}")._RULES:
            assert all(hasattr(found, flag) for flag in rule.flags.split())
    known = {action.dest for action in recipe_arguments.make_parser("train")._actions}
    assert all(set(rule.flags.split()) <= known for rule in recipe_arguments._RULES)
