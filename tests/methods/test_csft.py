"""CSFT: the weights by hand, the paper's own objective from materialised logits, and where an answer begins."""

import math
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from torch.nn import functional as F
from trl import SFTTrainer

from safe_sft.cli.recipe_arguments import parse
from safe_sft.data.batch import places_in_answers
from safe_sft.losses import constrained_weights
from safe_sft.methods import TokenStates
from safe_sft.methods.csft import BETAS, CSFT
from safe_sft.models.parts import LogitHead
from safe_sft.trainer.task_losses import supervised_rows
from tests.conftest import (
    assert_same,
    logged,
    make_config,
    make_model,
    make_trainer,
    move_off_the_anchor,
    relative_difference,
    task_rows,
    trained_weights,
)
from tests.methods.anchors import setup
from tests.methods.test_contract import update

ROOT = Path(__file__).parents[2]
KEPT = {
    "padded": {},
    "padding-free": {"padding_free": True, "max_length": None},
    "packed": {"packing": True, "max_length": 64, "max_steps": 1},
    "beside another": {"method": "der+csft"},
}
GENERATION_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'assistant' %}<|assistant|>"
    "{% generation %}{{ m['content'] }}{{ eos_token }}{% endgeneration %}"
    "{% else %}<|user|>{{ m['content'] }}{% endif %}{% endfor %}"
)


def test_the_weight_of_a_token():
    """σ(−ln 3) = 1/4, so a token that is 3 times as likely as before weighs ½, and one a third as likely 1½."""
    ratios = torch.tensor([0.0, math.log(3), -math.log(3), math.log(9), 100.0, -100.0, 100.0])
    weights = constrained_weights(ratios, torch.tensor([1.0, 1.0, 1.0, 0.5, 1.0, 1.0, 0.0]))
    torch.testing.assert_close(weights, torch.tensor([1.0, 0.5, 1.5, 0.5, 1e-3, 2.0, 1.0]))


def test_the_term_of_two_tokens():
    """p = (¾, ¼) where the aligned model has ½: with β = 2 the ratios (3/2)² and (1/2)² give weights 8/13 and 8/5."""
    method, head = CSFT(), LogitHead(torch.eye(2))
    method.prepare(setup(make_model(), csft_betas=[2.0]))
    hidden, places = torch.tensor([[math.log(3), 0.0]] * 2), torch.tensor([0, 1])
    states = TokenStates(hidden, torch.tensor([0, 1]), head, lambda: torch.zeros(2, 2), head, places=places)
    expected = [(8 / 13 - 1) * math.log(4 / 3), (8 / 5 - 1) * math.log(4)]
    torch.testing.assert_close(method.token_losses(states), torch.tensor(expected))


def test_places_in_answers():
    """Two spans in a row of width 10, one at the end of it, and one at the beginning of the next row."""
    assert places_in_answers(torch.tensor([2, 3, 6, 7, 8, 10, 11])).tolist() == [0, 1, 0, 1, 2, 0, 1]
    assert places_in_answers(torch.tensor([], dtype=torch.long)).tolist() == []


def test_without_constraint_it_is_plain_sft_bit_for_bit(tmp_path):
    ours = make_trainer(tmp_path, "csft", csft_betas=[0.0])
    theirs = make_trainer(tmp_path, "csft", cls=SFTTrainer)
    assert_same(update(ours), update(theirs))
    assert logged(ours, "safety/csft") == [0.0, 0.0]


def paper_objective(model, aligned, row: dict) -> list[torch.Tensor]:
    """Eq. 3 of each supervised token of a row, `−(2/β) log σ(β log(p/p₀))`, from materialised logits."""
    ids, found, place = torch.tensor([row["input_ids"]]), [], 0
    log_p = F.log_softmax(model(ids).logits[0], -1)
    with torch.no_grad():
        log_p0 = F.log_softmax(aligned(ids).logits[0], -1)
    for position, label in enumerate(row["labels"][1:]):
        if label == -100:
            place = 0
            continue
        beta = 0.5 if place == 0 else 2.0 if place <= 4 else 0.1
        ratio = log_p[position, label] - log_p0[position, label]
        found.append(-2 / beta * F.logsigmoid(beta * ratio))
        place += 1
    return found


def test_the_update_is_that_of_the_paper_s_objective(tmp_path):
    trainer = make_trainer(tmp_path, "csft", max_steps=1, train=task_rows(4))
    move_off_the_anchor(trainer)
    rows = [token for row in trainer.train_dataset for token in paper_objective(trainer.model, make_model(), row)]
    weights = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(torch.stack(rows).mean(), list(weights.values()))
    steps = {name: -0.01 * g for name, g in zip(weights, gradients, strict=True)}
    assert relative_difference(update(trainer), steps) < 1e-5


@pytest.mark.parametrize("config", KEPT.values(), ids=KEPT)
def test_losses_computed_before_training_make_the_same_update(tmp_path, config):
    updates = []
    for teacher in ("online", "cached"):
        trainer = make_trainer(tmp_path / teacher, **{"method": "csft", "teacher": teacher, **config})
        move_off_the_anchor(trainer)
        updates.append(update(trainer))
    assert relative_difference(*updates) < 1e-5
    assert trainer._states.task_losses is not None


def test_full_tuning_makes_the_update_of_the_paper_s_objective(tmp_path):
    trainer = make_trainer(tmp_path, "csft", peft=False, max_steps=1, train=task_rows(4))
    move_off_the_anchor(trainer)
    rows = [token for row in trainer.train_dataset for token in paper_objective(trainer.model, make_model(), row)]
    weights = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(torch.stack(rows).mean(), list(weights.values()))
    steps = {name: -0.01 * g for name, g in zip(weights, gradients, strict=True)}
    assert relative_difference(update(trainer), steps) < 5e-5  # weights larger than LoRA's round more


def test_a_resumed_run_finds_the_aligned_model_s_losses(tmp_path, monkeypatch):
    settings = {"peft": False, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    whole = make_trainer(tmp_path / "whole", "csft", **settings)
    whole.train()
    resumed = make_trainer(tmp_path / "whole", "csft", **settings)
    assert len(list((tmp_path / "whole").glob("_task-losses-*"))) == 1
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    assert_same(trained_weights(resumed), trained_weights(whole))


def test_a_row_that_the_aligned_model_never_saw_ends_the_run(tmp_path):
    trainer = make_trainer(tmp_path, "csft", peft=False)
    collate = trainer.data_collator

    def changed(examples):
        batch = collate(examples)
        batch["input_ids"][0, 0] = 5 if batch["input_ids"][0, 0] != 5 else 6
        return batch

    trainer.data_collator = changed
    with pytest.raises(ValueError, match="A row of this batch was not in the training set"):
        trainer.train()


def test_rows_of_a_batch_are_taken_apart():
    """Two rows, the first padded; the same flattened, with padding at the end. Token 0 of a row is never predicted."""
    padded = {
        "input_ids": torch.tensor([[5, 6, 7, 0], [8, 9, 3, 4]]),
        "attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]),
        "labels": torch.tensor([[-100, -100, 7, -100], [-100, 9, 3, 4]]),
    }
    flattened = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9, 3, 4, 0]]),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0]]),
        "labels": torch.tensor([[-100, -100, 7, -100, 9, 3, 4, -100]]),
    }
    expected = [([5, 6, 7], [-100, -100, 7]), ([8, 9, 3, 4], [-100, 9, 3, 4])]
    assert [tuple(row) for row in supervised_rows(padded)] == expected
    assert [tuple(row) for row in supervised_rows(flattened)] == expected


def chats(count: int = 8) -> Dataset:
    """Dialogues of two rounds, with answers of differing length, longer and shorter than the paper's five tokens."""
    return Dataset.from_list(
        [
            {
                "messages": [
                    {"role": "user", "content": f"colour {i}?"},
                    {"role": "assistant", "content": "no" if i % 2 else "a long grey one"},
                    {"role": "user", "content": "and now?"},
                    {"role": "assistant", "content": f"still {i}"},
                ]
            }
            for i in range(count)
        ]
    )


def chat_trainer(folder, cls=None, **config):
    """A trainer on the dialogues' answers alone; all of them in one step."""
    extra = {} if cls is None else {"cls": cls}
    settings = {"assistant_only_loss": True, "per_device_train_batch_size": 8, "max_steps": 1, **config}
    return make_trainer(folder, "csft", train=chats(), **extra, **settings)


@pytest.fixture
def marked_template(monkeypatch):
    monkeypatch.setattr("tests.conftest.CHAT_TEMPLATE", GENERATION_TEMPLATE)


@pytest.mark.parametrize("config", [{}, {"padding_free": True}], ids=["padded", "padding-free"])
def test_each_answer_of_a_dialogue_begins_anew(tmp_path, marked_template, config):
    trainer = chat_trainer(tmp_path, max_length=None, **config)
    move_off_the_anchor(trainer)
    rows = [token for row in trainer.train_dataset for token in paper_objective(trainer.model, make_model(), row)]
    weights = {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(torch.stack(rows).mean(), list(weights.values()))
    steps = {name: -0.01 * g for name, g in zip(weights, gradients, strict=True)}
    assert relative_difference(update(trainer), steps) < 1e-5


def test_padded_padding_free_and_packed_rows_make_the_same_update(tmp_path):
    updates, terms = [], []
    for name, config in (
        ("padded", {}),
        ("padding-free", {"padding_free": True}),
        ("packed", {"packing": True, "max_length": 2048}),
    ):
        rows = {"per_device_train_batch_size": 16, "max_steps": 1, "max_length": None, **config}
        trainer = make_trainer(tmp_path / name, "csft", **rows)
        move_off_the_anchor(trainer)
        updates.append(update(trainer))
        terms.append(logged(trainer, "safety/csft")[0])
    assert len(trainer.train_dataset) == 1
    assert all(relative_difference(other, updates[0]) < 1e-5 for other in updates[1:])
    assert terms == pytest.approx([terms[0]] * 3, rel=1e-4)


def test_the_fields_are_the_tokens_weights(tmp_path):
    assert BETAS == (0.5, 2.0, 2.0, 2.0, 2.0, 0.1)
    found = []
    for betas in (None, [0.5, 2, 2, 2, 2, 0.1], [0.5, 2, 2, 2, 2, 0.2]):
        trainer = make_trainer(tmp_path, "csft", max_steps=1, csft_betas=betas)
        move_off_the_anchor(trainer)
        trainer.train()
        found.append(trained_weights(trainer))
    assert_same(found[0], found[1])
    assert relative_difference(found[2], found[0]) > 0


LANGUAGE = Dataset.from_dict({"text": ["some text", "other text"] * 8})
REFUSED = {
    "dft": ({"loss_type": "dft"}, "a task loss other than the cross-entropy.*or choose `lwf`"),
    "label smoothing": ({"label_smoothing_factor": 0.1}, "Remove `loss_type`, `label_smoothing_factor`"),
    "whole texts": ({"train": LANGUAGE}, "supervised from the request's first token on.*`prompt` and `completion`"),
    "whole dialogues": ({"train": chats()}, "hides where an answer begins.*`assistant_only_loss: true`"),
    "cut answers": ({"packing": True, "packing_strategy": "wrapped", "max_length": 64}, "`packing_strategy: bfd`"),
    "the aligned model online": ({"peft": False, "teacher": "online"}, "does not work with full tuning.*a fresh LoRA"),
    "a stream": ({"peft": False, "train": task_rows().to_iterable_dataset(), "max_steps": 1}, "streamed.*`Dataset`"),
    "NEFTune": ({"neftune_noise_alpha": 5.0}, "NEFTune"),
}


@pytest.mark.parametrize("case", REFUSED)
@pytest.mark.filterwarnings("ignore:.*label_smoothing_factor.*:FutureWarning")
def test_what_would_say_something_else_is_refused(tmp_path, case):
    settings, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        make_trainer(tmp_path, "csft", **settings)


@pytest.mark.parametrize("betas", [[], [-1.0], [101.0], [float("nan")], ["a"], [True], 2.0])
def test_betas_out_of_range_are_refused(tmp_path, betas):
    with pytest.raises(ValueError, match=r"`csft_betas=.*from 0 to 100"):
        make_config(tmp_path, safety_method="csft", csft_betas=betas)


def test_betas_are_given_on_the_command_line():
    words = ["--csft_betas", "1", "2", "0.5", "--use_cpu", "true", "--dataloader_pin_memory", "false"]
    _, config, *_ = parse(["--config", str(ROOT / "recipes" / "tiny" / "csft.yaml"), *words])
    assert config.csft_betas == [1.0, 2.0, 0.5]


def test_a_weight_that_would_unlearn_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"gives `csft` the weight 1\.5, and above 1 it would unlearn"):
        make_config(tmp_path, safety_method="der+csft", safety_weight="3+1.5")
