"""The numbers of an experiment: means by hand, bold only by more than chance, files that say the same, all escaped."""

import csv
import json
import re

import pytest
from pyarrow import parquet

from safe_sft.evaluation.statistics import PairedOutcomes
from safe_sft.experiments.compare import Mean, columns, compare
from safe_sft.experiments.output import write_results
from safe_sft.experiments.plots import pareto_front, plots
from safe_sft.experiments.results import read_results, rows
from safe_sft.experiments.table import latex, markdown, tables
from tests.experiments.helpers import engine, make

VARIANTS = {
    "none": {"safety_method": "none"},
    "l2": {"safety_method": "l2"},
    "der": {"safety_method": "der"},
    "slerp": {"after": "none", "merge_after_training": "slerp"},
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """An experiment whose runs are done: of 20 requests, `none` complies with 10 or 11 where there is poison."""
    root = tmp_path_factory.mktemp("done")
    experiment, runs = make(root, grid={"poison_ratio": [0, 0.1], "seed": [0, 1]}, variants=VARIANTS)
    engine(root, runs).go()
    return experiment, runs, root


def test_means_over_seeds_by_hand(done):
    experiment, runs, root = done
    clean, poisoned = columns(experiment, read_results(experiment, runs, root))
    assert (clean.point, poisoned.point) == ((("poison_ratio", "0"),), (("poison_ratio", "0.1"),))
    none = poisoned.entries["none"].means["asr"]
    assert none.value == pytest.approx((10 / 20 + 11 / 20) / 2)
    assert none.deviation == pytest.approx((0.025**2 * 2) ** 0.5)  # n - 1 = 1
    assert none.n == 2
    aligned = poisoned.entries["aligned"].means
    assert (aligned["asr"].value, aligned["asr"].n, aligned["right"].value) == (0.0, 2, 0.5)
    assert Mean.of([]) is None
    assert Mean.of([0.3]) == Mean(0.3, None, 1)


def test_prompts_are_compared_over_the_seeds(done):
    experiment, runs, root = done
    _, poisoned = columns(experiment, read_results(experiment, runs, root))
    pairs = compare(poisoned.entries["none"].results, poisoned.entries["der"].results, "asr")
    # none: prompts 0 to 9 (seed 0), 0 to 10 (seed 1); der: prompt 0 (seed 0), 0 and 1 (seed 1).
    assert pairs == PairedOutcomes(0, 0, 10, 10)
    assert pairs.p_value == pytest.approx(2 / 2**10)
    same = compare(poisoned.entries["none"].results, poisoned.entries["none"].results, "asr")
    assert (same.difference, same.p_value) == (0, 1)
    assert compare(poisoned.entries["none"].results, poisoned.entries["der"].results, "loss").n == 0


def test_bold_is_what_beats_the_baseline_and_is_not_beaten(done):
    experiment, runs, root = done
    clean, poisoned = columns(experiment, read_results(experiment, runs, root))
    # l2 has 8 of 20 and 9 of 20: two prompts fewer, which chance may give. slerp has 6 and 7: five fewer, p = 1/16.
    assert {name for name, entry in poisoned.entries.items() if "asr" in entry.best} == {"der"}
    assert not any(entry.best for entry in clean.entries.values())


def test_flat_rows_are_the_cells_and_the_aligned_models(done):
    experiment, runs, root = done
    flat = rows(experiment, read_results(experiment, runs, root))
    assert len(flat) == 4 + 16
    assert all(row.keys() == flat[0].keys() for row in flat)
    assert [row["variant"] for row in flat[:5]] == ["aligned"] * 4 + ["none"]
    row = next(r for r in flat if (r["variant"], r["poison_ratio"], r["seed"]) == ("slerp", "0.1", "1"))
    assert (row["state"], row["asr_successes"], row["asr_n"], row["right"], row["loss"]) == ("done", 7, 20, 0.55, 0.5)


def test_all_files_say_the_same(done):
    experiment, runs, root = done
    write_results(experiment, runs, root)
    with (root / "results.csv").open(newline="") as file:
        in_csv = list(csv.DictReader(file))
    in_parquet = parquet.read_table(root / "results.parquet").to_pylist()
    flat = rows(experiment, read_results(experiment, runs, root))
    assert in_parquet == flat
    assert [float(row["asr"]) for row in in_csv] == [row["asr"] for row in flat]
    text = (root / "table.md").read_text()
    assert "| `none` | 0.075 ± 0.035 | 0.550 ± 0.000 | 0.525 ± 0.035 | 0.550 ± 0.000 |" in text
    assert "| `der` | 0.000 ± 0.000 | 0.550 ± 0.000 | **0.075 ± 0.035** | 0.550 ± 0.000 |" in text
    assert r"der & 0.000 $\pm$ 0.000" in (root / "table.tex").read_text()
    for name in ("asr_utility", "asr_poison", "asr_cost"):
        assert (root / f"{name}.svg").read_text().startswith("<?xml")


def test_the_page_needs_no_other_file_and_runs_nothing(done):
    experiment, runs, root = done
    write_results(experiment, runs, root)
    page = (root / "report.html").read_text()
    assert page.count("data:image/svg+xml;base64,") == 3
    assert not re.findall(r"<script|https?://|<link", page)
    assert "Safest by more than chance: der." in page
    assert "16 of 16 runs" in page


def test_names_are_escaped_everywhere(tmp_path):
    name, label = "<b>a|b_c</b>", "=1&2%"
    grid = {"point": {label: {"seed": 0}}}
    experiment, runs = make(tmp_path, grid=grid, variants={name: {}, "other": {"learning_rate": 1}})
    engine(tmp_path, runs).go()
    write_results(experiment, runs, tmp_path)
    assert name not in (tmp_path / "report.html").read_text()
    assert "&lt;b&gt;a|b_c&lt;/b&gt;" in (tmp_path / "report.html").read_text()
    assert r"`<b>a\|b_c</b>`" in (tmp_path / "table.md").read_text()
    assert r"$<$b$>$a|b\_c$<$/b$>$" in (tmp_path / "table.tex").read_text()
    assert r"=1\&2\%" in (tmp_path / "table.tex").read_text()
    with (tmp_path / "results.csv").open(newline="") as file:
        assert {row["point"] for row in csv.DictReader(file)} == {"'=1&2%"}


def test_what_is_missing_is_shown_as_missing(tmp_path):
    variants = {"none": {}, "bad": {"run_name": "fail", "learning_rate": 9}}
    experiment, runs = make(tmp_path, variants=variants, grid={"seed": [0, 1]})
    results = read_results(experiment, runs, tmp_path)
    assert {row["state"] for row in rows(experiment, results)} == {"missing"}
    write_results(experiment, runs, tmp_path)  # nothing is there
    engine(tmp_path, runs[:1] + runs[2:]).go()
    write_results(experiment, runs, tmp_path)
    text = (tmp_path / "table.md").read_text()
    assert "| `none` | 0.000 (1 missing) |" in text
    assert "| `bad` | – | – |" in text
    page = (tmp_path / "report.html").read_text()
    assert "bad, seed=0: `learning_rate=9` is too large. Lower it." in page
    flat = rows(experiment, read_results(experiment, runs, tmp_path))
    assert [row["state"] for row in flat] == ["done", "done", "missing", "failed", "failed"]


def test_a_rate_that_is_no_number_is_none(done):
    experiment, runs, root = done
    results = read_results(experiment, runs, root)
    unknown = {"value": None, "low": 0.0, "high": 1.0, "n": 20, "successes": 0, "subject": "requests"}
    measured = json.loads(json.dumps(results[0].measured)) | {"after": {"asr": unknown}}
    results[0] = type(results[0])(results[0].cell, results[0].folder, measured)
    results[1] = type(results[1])(results[1].cell, results[1].folder, measured)
    assert results[0].rate("asr") is None
    gathered = columns(experiment, results)
    assert "| `none` | n/m |" in markdown(tables(gathered), "none")
    assert r"none & n/m &" in latex(tables(gathered), "none")
    assert plots(gathered)["asr_utility"]


def test_a_table_for_each_point_of_the_other_axes(tmp_path):
    grid = {"task": {"a": {"dataset_name": "a"}, "b": {"dataset_name": "b"}}, "poison_ratio": [0, 0.1], "seed": [0]}
    experiment, runs = make(tmp_path, grid=grid, variants=VARIANTS)
    made = tables(columns(experiment, read_results(experiment, runs, tmp_path)))
    assert [table.title for table in made] == ["task a", "task b"]
    assert [table.groups for table in made] == [("poison_ratio 0", "poison_ratio 0.1")] * 2
    assert list(made[0].rows) == ["aligned", *VARIANTS]


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([], []),
        ([(1, 1)], [0]),
        ([(1, 3), (2, 2), (3, 1), (3, 3), (2, 2.5)], [0, 1, 2]),
        ([(1, 1), (1, 2), (2, 1)], [0]),
        ([(2, 0), (1, 0)], [1]),
    ],
)
def test_the_pareto_front(points, front):
    assert pareto_front(points) == front
