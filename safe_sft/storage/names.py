"""Names of the files that tell what a folder holds; this module imports nothing heavy."""

#: The card of a folder, which the Hub shows.
CARD = "README.md"
#: Every measured answer of a run, with its verdict; the underscore keeps it from the Hub.
MEASURED_ANSWERS = "_answers.jsonl"
#: Folder beside a model with the importance that it was trained with, for the stage after; never pushed, either.
OWN_IMPORTANCE = "_importance"
IMPORTANCE_FILE = "importance.safetensors"
#: The index of a teacher cache, written last, once all parts are there.
TEACHER_INDEX = "index.json"
#: Patterns of all files of a teacher cache.
TEACHER_FILES = (TEACHER_INDEX, "part-*.safetensors")


def teacher_part(number: int) -> str:
    """Return the file name of a part of a teacher cache."""
    return f"part-{number:05d}.safetensors"
