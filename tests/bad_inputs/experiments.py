"""Files of experiments that cannot be run: grids, variants, stages, and where their results would go."""

from .table import Bad

EXPERIMENT = "experiment --config {here}/grid.yaml"
NONE = "variants: {none: {safety_method: none}}\n"

#: What an experiment's file says, beside the recipe that it extends.
ROWS = [
    Bad(f"experiment: {id}", f"{EXPERIMENT}{words}", names, remedy, {"grid.yaml": text})
    for id, words, text, names, remedy in [
        ("no variants", "", "grid: {seed: [0]}\n", "`variants: null`", "Write one such as"),
        ("no list of values", "", "variants: {none: {}}\ngrid: {seed: 0}\n", "`seed: 0`", "`seed: [value, value]`"),
        ("a merge of nothing", "", "variants: {m: {after: none}}\n", "`after: none`", "Choose from"),
        ("no measuring", "", "extends: recipe.yaml\nvariants: {none: {}}\n", "`safety_eval: False`", "Every run is measured"),
        ("an unknown field", "", "variants: {none: {safety_methodd: none}}\n", "`safety_methodd`", "Did you mean"),
        ("a value out of range", "", "variants: {er: {safety_method: er, replay_ratio: 0}}\n", "`replay_ratio=0`", "from 0.001"),
        ("a field that is not read", "", "variants: {l2: {safety_method: l2, replay_ratio: 1}}\n", "`replay_ratio=1`", "Remove it"),
        ("an axis of nothing", "", "variants: {none: {}}\ngrid: {sead: [0]}\n", "`sead`", "Did you mean"),
        ("data that are missing", "", "variants: {none: {}}\ndataset_name: none.jsonl\n", "none.jsonl", "Check the path"),
        ("an output that is a file", " --output {good}/task.jsonl", "variants: {none: {}}\n", "{good}/task.jsonl", "Choose another"),
        ("no stages", "", "variants: {none: {}}\nstages: [gsm9k]\n", "gsm9k", "Write 2 to 20 names"),
        ("an anchor of nothing", "", "variants: {none: {}}\nanchor: last\n", "`anchor: last`", "without `stages`"),
        ("no pairs for Slurm", " --slurm gpu", "variants: {none: {safety_method: none}}\n", "'gpu'", "Write pairs such as"),
        ("a value of another type", "", f"{NONE}model_name_or_path: a/b\ngrid: {{seed: [0, one]}}\n", "'none, seed=one' of '{here}/grid.yaml'", "invalid int value: 'one'"),
        ("a weight of another type", "", "model_name_or_path: a/b\nvariants: {none: {}, m: {after: none, merge_after_training: linear, merge_weight: half}}\n", "'m' of '{here}/grid.yaml'", "'half'"),
        ("a value twice, written in two ways", "", f"{NONE}grid: {{seed: [0, 0.0]}}\n", "`seed: [0, 0.0]`", "Keep one"),
        ("two variants alike", "", "variants: {a: {safety_method: l2, safety_weight: 1}, b: {safety_weight: 1.0, safety_method: l2}}\n", "`a` and `b` with the same settings", "Change or remove one"),
        ("two points alike", "", f"{NONE}grid: {{seed: {{x: {{seed: 1}}, y: {{seed: 1}}}}}}\n", "`x` and `y` with the same settings", "Change or remove one"),
        ("a field in two axes", "", f"{NONE}grid: {{a: {{x: {{seed: 0}}}}, b: {{y: {{seed: 1}}}}}}\n", "sets `seed` in `a` and in `b`", "Remove it from one"),
        ("a point of nothing", "", f"{NONE}grid: {{a: {{x: null}}}}\n", '`a: {"x": null}`', "Write one `name:"),
        ("a point that extends", "", f"{NONE}grid: {{a: {{x: {{extends: b.yaml}}}}}}\n", "`a: x` of '{here}/grid.yaml' sets `extends`", "Write it beside `grid`"),
        ("a variant with an environment", "", "variants: {none: {env: {A: b}}}\n", "The variant `none` of '{here}/grid.yaml' sets `env`", "Write it beside `grid`"),
        ("a stage with an environment", "", f"{NONE}stages: {{a: {{env: {{A: b}}}}, b: {{seed: 1}}}}\n", "sets `env`", "Write it beside `grid`"),
        ("a variant without a name", "", "variants: {'': {safety_method: none}}\n", "has an empty name", "Give it one"),
        ("too many runs", "", f"{NONE}grid: {{seed: {list(range(101))}, max_steps: {list(range(1, 101))}}}\n", "'{here}/grid.yaml' has 10100 runs", "at most 10000"),
        ("two settings that go together in no run", "", "model_name_or_path: a/b\ngrid: {poison_ratio: [0, 0.9]}\nvariants: {none: {safety_method: none}, mix: {safety_method: none, task: sst2, safety_mix_ratio: 0.1, safety_dataset_name: safety-tuned-llamas}}\ntask: sst2\n", "'mix, poison_ratio=0.9'", "Lower one of them"),
        ("an exclusion of nothing", "", f"{NONE}grid: {{seed: [0]}}\nexclude: [{{seed: 1}}]\n", "`seed: 1`", "`exclude: []`"),
        ("no model", " --dry_run", NONE, "`model_name_or_path` is missing", "Set it beside `grid`"),
        ("a model that is missing", " --dry_run", f"{NONE}model_name_or_path: ./nowhere\n", "./nowhere", "Check the path"),
        ("a model that is missing in an axis", "", f"{NONE}grid: {{model_name_or_path: [./nowhere]}}\n", "./nowhere", "Check the path"),
        ("an adapter that is missing", "", f"{NONE}model_name_or_path: a/b\nadapter_name_or_path: ./nowhere\n", "./nowhere", "Check the path"),
        ("a secret that runs would lack", "", f"{NONE}model_name_or_path: a/b\nmodel_init_kwargs: {{token: abcdefgh}}\n", "`model_init_kwargs` holds what may be a secret", "set HF_TOKEN"),
        ("a variable that is none", "", f"{NONE}env: {{'A=B': c}}\n", "'A=B'", "Write one such as"),
        ("an output in a model", " --output {good}/model/runs", "extends: recipe.yaml\nsafety_eval: true\nvariants: {none: {safety_method: none}}\n", "{good}/model", "Choose another folder"),
        ("a key of Slurm twice", " --slurm hours=1,hours=2", NONE, "`hours` twice", "Keep one"),
        ("hours that are none", " --slurm hours=long", "variants: {none: {safety_method: none}}\n", "`hours=long`", "above 0"),
    ]
]  # fmt: skip
