"""Draws `docs/architecture.svg`, the package's layers, from the code: `python docs/architecture.py`.

The layers are written here, and nowhere else. The rest is read from `safe_sft/`: its subpackages (rooms), what
each is for, and which others it imports. The tests compare the picture with the code.
"""

import ast
from functools import cache
from graphlib import TopologicalSorter
from html import escape
from pathlib import Path
from textwrap import wrap

PACKAGE = Path(__file__).parents[1] / "safe_sft"
PICTURE = Path(__file__).with_name("architecture.svg")
#: Lower layers first; a file imports from its own layer or a lower one.
LAYERS = (
    ("storage", "models", "losses", "data", "version"),
    ("importance", "replay", "evaluation", "evidence"),
    ("methods", "hub", "screening"),
    ("config", "merging"),
    ("trainer", "planning"),
    ("run", "demo", "repair"),
    ("experiments", "integrations"),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
FILES = {
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}

_WIDTH, _BOX, _GAP, _LAYER, _LINE, _MARGIN = 1120, 132, 20, 172, 17, 20


def room_of(module: str) -> str:
    """Return the subpackage (the "room") of `safe_sft.room.file`, or the file itself where it lies at the root."""
    return module.split(".")[1]


@cache
def imported(module: str) -> frozenset[str]:
    """The files of the package that `module` imports, wherever in it; a name of a package counts as the package."""
    path, found = FILES[module], set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            names = {f"{source}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else source for name in names}
    return frozenset(found & FILES.keys()) - {module}


def room_imports() -> dict[str, set[str]]:
    """Return which rooms each room imports."""
    graph: dict[str, set[str]] = {room: set() for room in LEVEL}
    for module in FILES:
        if "." in module:
            graph[room_of(module)] |= {room_of(n) for n in imported(module) if "." in n} - {room_of(module)}
    return graph


def direct_imports() -> dict[str, set[str]]:
    """The same, without those that follow from others: what `a` imports through `b` is not drawn from `a`."""
    graph, reached = room_imports(), {}
    for room in TopologicalSorter(graph).static_order():
        reached[room] = graph[room].union(*(reached[other] for other in graph[room]))
    return {
        room: {other for other in others if not any(other in reached[third] for third in others)}
        for room, others in graph.items()
    }


def summary(room: str) -> str:
    """Return what a room is for: the first line of its docstring."""
    text = ast.get_docstring(ast.parse(FILES[f"safe_sft.{room}"].read_text(encoding="utf-8"))) or ""
    return text.split("\n")[0].replace("`", "")


def picture() -> str:
    """The layers as SVG."""
    boxes = {room: box for level in range(len(LAYERS)) for room, box in _boxes(level).items()}
    pairs = [(room, other) for room, others in direct_imports().items() for other in sorted(others)]
    height = len(LAYERS) * _LAYER - (_LAYER - _BOX) + 2 * _MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif">',
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" '
            'orient="auto"><path d="M0 0 8 4 0 8z" fill="#6b7280"/></marker></defs>',
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
            *(_arrow(boxes[room], boxes[other]) for room, other in pairs),
            *(_room(room, box) for room, box in boxes.items()),
            "</svg>\n",
        ]
    )


def _boxes(level: int) -> dict[str, tuple[float, float, float]]:
    """Left edge, top and width of each room of a layer."""
    rooms = LAYERS[level]
    width = min(340.0, (_WIDTH - 2 * _MARGIN - _GAP * (len(rooms) - 1)) / len(rooms))
    left = (_WIDTH - width * len(rooms) - _GAP * (len(rooms) - 1)) / 2
    top = _MARGIN + (len(LAYERS) - 1 - level) * _LAYER
    return {room: (left + i * (width + _GAP), top, width) for i, room in enumerate(rooms)}


def _room(room: str, box: tuple[float, float, float]) -> str:
    left, top, width = box
    name = f"{room}/" if FILES[f"safe_sft.{room}"].name == "__init__.py" else f"{room}.py"
    lines = [
        f'<text x="{left + 12:.0f}" y="{top + 44 + i * _LINE:.0f}" font-size="13" fill="#374151">{escape(line)}</text>'
        for i, line in enumerate(wrap(summary(room), int(width / 7.8)))
    ]
    return "\n".join(
        [
            f'<rect x="{left:.0f}" y="{top:.0f}" width="{width:.0f}" height="{_BOX}" rx="8" fill="#f3f4f6" '
            'stroke="#9ca3af"/>',
            f'<text x="{left + 12:.0f}" y="{top + 24:.0f}" font-size="16" font-weight="bold">{name}</text>',
            *lines,
        ]
    )


def _arrow(source: tuple[float, float, float], target: tuple[float, float, float]) -> str:
    """From the lower edge of a box to the upper edge of one below; sideways within a layer."""
    (left, top, width), (other, below, other_width) = source, target
    if top == below:
        right = left < other
        start = (left + width if right else left, top + _BOX / 2)
        end = (other if right else other + other_width, below + _BOX / 2)
        curve = f"L{end[0]:.0f} {end[1]:.0f}"
    else:
        start, end = (left + width / 2, top + _BOX), (other + other_width / 2, below)
        bend = (end[1] - start[1]) / 2
        curve = f"C{start[0]:.0f} {start[1] + bend:.0f} {end[0]:.0f} {end[1] - bend:.0f} {end[0]:.0f} {end[1]:.0f}"
    return (
        f'<path d="M{start[0]:.0f} {start[1]:.0f} {curve}" fill="none" stroke="#6b7280" stroke-width="1.4" '
        'marker-end="url(#tip)"/>'
    )


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
