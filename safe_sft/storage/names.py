"""The files by which it is known what a folder holds; importing them costs nothing."""

#: The card of a folder, which the Hub shows.
CARD = "README.md"
IMPORTANCE_FILE = "importance.safetensors"
#: Of a teacher cache: written last, once all parts are there.
TEACHER_INDEX = "index.json"
#: Patterns of all files of a teacher cache.
TEACHER_FILES = (TEACHER_INDEX, "part-*.safetensors")


def teacher_part(number: int) -> str:
    """File of a part of a teacher cache."""
    return f"part-{number:05d}.safetensors"
