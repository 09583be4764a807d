"""Which module of the package imports which, read from the source; no module is imported for it."""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "naturelm"


def modules() -> list[Path]:
    """All modules of the package but its own `__init__.py`."""
    return [path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"]


def relative(path: Path) -> str:
    """A module's path below the package."""
    return path.relative_to(PACKAGE).as_posix()


def part(path: Path) -> str:
    """The folder or loose module of the package that a module is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Dotted names of all modules and names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def own_imports(path: Path) -> set[str]:
    """Modules of this package that a file imports, as paths below the package."""
    found = set()
    for name in imports(path):
        pieces = name.split(".")
        while pieces[0] == "naturelm" and len(pieces) > 1:
            module = PACKAGE.joinpath(*pieces[1:])
            if module.with_suffix(".py").exists():
                found.add(relative(module.with_suffix(".py")))
                break
            if (module / "__init__.py").exists():
                found.add(relative(module / "__init__.py"))
                break
            pieces.pop()
    return found


def part_imports() -> dict[str, set[str]]:
    """Per folder or loose module, the others that it imports."""
    graph: dict[str, set[str]] = {}
    for path in modules():
        graph.setdefault(part(path), set()).update(part(PACKAGE / name) for name in own_imports(path))
    return {name: imported - {name} for name, imported in graph.items()}


def levels(graph: dict[str, set[str]]) -> dict[str, int]:
    """Per part, how many parts are one below the other under it: 0 for what imports no other part.

    Raises
    ------
    ValueError
        Parts import each other in a circle.
    """
    found: dict[str, int] = {}
    while len(found) < len(graph):
        ready = {name for name in graph.keys() - found.keys() if graph[name] <= found.keys()}
        if not ready:
            raise ValueError(
                f"{', '.join(sorted(graph.keys() - found.keys()))} import each other in a circle"
            )
        found.update({name: 1 + max((found[below] for below in graph[name]), default=-1) for name in ready})
    return found


def direct(graph: dict[str, set[str]]) -> dict[str, set[str]]:
    """The graph without imports that follow from others: of A → B → C and A → C, the last."""
    below: dict[str, set[str]] = {}
    for name in sorted(graph, key=levels(graph).__getitem__):
        below[name] = set(graph[name]).union(*(below[imported] for imported in graph[name]))
    return {
        name: imported - set().union(*(below[other] for other in imported))
        for name, imported in graph.items()
    }


def drawing(graph: dict[str, set[str]]) -> str:
    """The graph as SVG: each part above all that it imports; imports that follow from others are not drawn."""
    level = levels(graph)
    rows = [sorted(name for name in graph if level[name] == rank) for rank in range(max(level.values()) + 1)]
    width, height, box, gap = 880, 76, 26, 14
    place: dict[str, tuple[float, float]] = {}
    for rank, row in enumerate(rows):
        for number, name in enumerate(row):
            # Rows of odd rank are shifted, so that lines pass between the boxes.
            share = (number + 0.5 + (0.18 if rank % 2 else 0)) / len(row)
            place[name] = (share * width, (len(rows) - 1 - rank) * height + gap + box / 2)
    lines = [
        f'<path d="M{place[name][0]:.0f} {place[name][1] + box / 2:.0f} '
        f"C{place[name][0]:.0f} {place[name][1] + height / 2 + 8:.0f} "
        f"{place[below][0]:.0f} {place[below][1] - height / 2 - 8:.0f} "
        f'{place[below][0]:.0f} {place[below][1] - box / 2:.0f}"/>'
        for name, imported in sorted(direct(graph).items())
        for below in sorted(imported)
    ]
    boxes = [
        f'<rect x="{x - 48:.0f}" y="{y - box / 2:.0f}" width="96" height="{box}" rx="5"/>'
        f'<text x="{x:.0f}" y="{y + 4:.0f}">{name}</text>'
        for name, (x, y) in sorted(place.items())
    ]
    return (
        f'<svg class="import-graph" role="img" aria-label="What imports what" viewBox="0 0 {width} '
        f'{len(rows) * height}" xmlns="http://www.w3.org/2000/svg">\n' + "\n".join(lines + boxes) + "\n</svg>"
    )
