"""Where a link of a model's folder leads; this module imports nothing heavy."""

from pathlib import Path


def outside_target(folder: Path, path: Path) -> Path | None:
    """Return what a path in a folder leads to, if that lies outside of it; links of the Hub's cache stay inside.

    Args:
        folder: folder of a model. In the Hub's cache, that is `snapshots/COMMIT`, whose files are links to `blobs`.
        path: path in the folder.
    """
    home, target = folder.resolve(), path.resolve()
    homes = [home, home.parent.parent / "blobs"] if home.parent.name == "snapshots" else [home]
    return None if any(target.is_relative_to(inside) for inside in homes) else target
