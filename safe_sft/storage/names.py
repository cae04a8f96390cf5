"""Names of the files that tell what a folder holds; this module imports nothing heavy."""

from fnmatch import fnmatchcase

#: The card of a folder, which the Hub shows.
CARD = "README.md"
#: Every measured answer of a run, with its verdict; the underscore keeps it from the Hub.
MEASURED_ANSWERS = "_answers.jsonl"
#: The same of an evaluation.
ANSWERS = "answers.jsonl"
#: Folder beside a model with the importance that it was trained with, for the stage after; never pushed, either.
OWN_IMPORTANCE = "_importance"
IMPORTANCE_FILE = "importance.safetensors"
#: The index of a teacher cache, written last, once all parts are there.
TEACHER_INDEX = "index.json"
#: Patterns of all files of a teacher cache.
TEACHER_FILES = (TEACHER_INDEX, "part-*.safetensors")
#: The folder of what a run or an evaluation can be held to, and the signature of that folder, beside it.
EVIDENCE, SIGNATURE = "evidence", "evidence.sig"
#: The folder of results that the Hub shows on a model's page.
EVAL_RESULTS = ".eval_results"

#: Never uploaded unless asked for: what resumes a run rather than uses its model, caches, pickles, unfinished files.
LEFT_OUT = (
    "_*",
    "*/_*",
    "checkpoint-*",
    "optimizer*",
    "scheduler*",
    "rng_state*",
    "training_args.bin",
    "*.pt",
    "*.pth",
    "*.pkl",
    "partial-*",
    "*.tmp",
    ".*",
)


def teacher_part(number: int) -> str:
    """Return the file name of a part of a teacher cache."""
    return f"part-{number:05d}.safetensors"


def left_out(path: str) -> bool:
    """Return whether a file of a model's folder stays behind when the folder is uploaded.

    Args:
        path: path of the file in the folder, with `/`; that of a folder ends with one.

    Example:
        >>> [left_out(path) for path in ("checkpoint-3/", "a/_b", ".cache/x", ".eval_results/x.yaml", "config.json")]
        [True, True, True, False, False]
    """
    if path == EVAL_RESULTS or path.startswith(f"{EVAL_RESULTS}/"):
        return False
    return any(fnmatchcase(path, pattern) for pattern in LEFT_OUT)
