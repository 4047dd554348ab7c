"""The README of a folder of weights: what the network is, how it is loaded, how good it is."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hepattn.deploy.description import classes, features
from hepattn.training.load import LoadedRun

MAX_ROWS = 30


def model_card(
    loaded: LoadedRun, environment: Mapping[str, Any], figures: Mapping[str, Any]
) -> str:
    """Describe weights in Markdown, with the header that model hubs read.

    Args:
        loaded: The run that they come from.
        environment: Content of ``environment.json``: classes, versions and the source.
        figures: Content of ``metrics.json``; empty where there is none.
    """
    experiment, source = environment["experiment"], environment["source"]
    module = experiment["module"].rpartition(".")[2]
    num_parameters = sum(p.numel() for p in loaded.module.parameters())
    lines = [
        "---",
        "library_name: hepattn",
        "tags: [high-energy-physics]",
        "---",
        "",
        f"# {source['run']}",
        "",
        f"`{module}` ({experiment['module']}) with {num_parameters:,} parameters, from "
        f"`{source['file']}` of the run `{source['run']}`.",
        "",
        "```python",
        "from hepattn.deploy.weights import from_pretrained",
        "",
        'module = from_pretrained("path/to/this/folder").module',
        "```",
        "",
        *_contract(loaded),
        *_table("Figures of its last test", list(_scalars(figures))),
        *_table("Made with", list(_provenance(environment))),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _contract(loaded: LoadedRun) -> Iterator[str]:
    """Which raw columns the network takes and which classes it knows."""
    found = features(loaded)
    groups = found if isinstance(found, dict) else {"columns": found}
    for name, group in groups.items():
        if group:
            yield f"- {name}: {', '.join(feature['name'] for feature in group)}"
    if names := classes(loaded):
        yield f"- classes: {', '.join(names)}"
    yield ""


def _scalars(figures: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Names and values of single numbers, at any depth of mappings."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _scalars(value, f"{above}{name}.")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{above}{name}", f"{value:.5g}" if isinstance(value, float) else str(value)


def _provenance(environment: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "Python", str(environment.get("python"))
    for name, version in (environment.get("versions") or {}).items():
        if version is not None:
            yield name, version
    if git := environment.get("git"):
        yield "commit", git["commit"] + (" and changes" if git["dirty"] else "")
    for name in ("seed", "data"):
        if environment.get(name) is not None:
            yield name, str(environment[name])


def _table(title: str, rows: Sequence[tuple[str, str]]) -> Iterator[str]:
    if not rows:
        return
    yield from (f"## {title}", "", "| | |", "|---|---|")
    yield from (f"| {name} | {value} |" for name, value in rows[:MAX_ROWS])
    if len(rows) > MAX_ROWS:
        yield f"\n{len(rows) - MAX_ROWS} more are in `metrics.json`."
    yield ""
