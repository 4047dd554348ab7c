"""A parser whose last line says what is wrong, and that refuses values for linked keys."""

import inspect
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import yaml
from jsonargparse import Namespace, _typehints
from lightning.pytorch.cli import LightningArgumentParser

from hepattn.training.configs import ConfigError, did_you_mean

OPTION = re.compile(r"(?:Option '(?P<a>[\w.+]+)' is not|does not accept option '(?P<b>[\w.+]+)')")
UNKNOWN_ARGUMENT = re.compile(r"unrecognized arguments: --(?P<a>[\w.+]+)")
PARSER_KEY = re.compile(r"Parser key \"(?P<key>[\w.+]+)\"")
CLASS_PATH = re.compile(r"class_path[= ]'(?P<path>[\w.]+)'")


class Parser(LightningArgumentParser):
    """Lightning's parser with short errors instead of a page of usage."""

    def parse_args(self, *args: Any, **kwargs: Any) -> Namespace:
        """Parse the command line; a change of class drops the options of the old class."""
        with _no_options_of_another_class():
            return super().parse_args(*args, **kwargs)

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Print the message, its useful line last, and exit with code 2."""
        if not self.exit_on_error:
            super().error(message, ex)
        line = self.summarise(message)
        details = "" if message in line else f"{message}\n"
        sys.stderr.write(f"{details}The options are listed by --help.\nerror: {line}\n")
        sys.exit(2)

    def summarise(self, message: str) -> str:
        """Say in one line which key is wrong and which one was probably meant.

        Args:
            message: Message of the parser, possibly long.
        """
        key = PARSER_KEY.search(message)
        place = key["key"] if key else ""
        unknown = OPTION.search(message) or UNKNOWN_ARGUMENT.search(message)
        if unknown is None:
            first, *rest = [line.strip(" -") for line in message.splitlines() if line.strip()]
            line = f"{place}: {rest[0]}" if key and rest else first
            none = "; give it, or name a config with --config"
            return line + none if line.endswith("Got value: None") else line
        option = next(group for group in unknown.groups() if group)
        class_path = CLASS_PATH.search(message)
        if class_path and "." not in option:
            parent, leaf = "", option
            known = list(constructor_options(class_path["path"]))
        else:
            parent, _, leaf = option.rpartition(".")
            known = [name for above, _, name in self._keys() if above == parent]
        hint = did_you_mean(leaf, known)
        if not hint and class_path:
            hint = f"; {class_path['path']} takes {', '.join(known)}"
        where = f"{place}: " if place and place != option else ""
        return f"{where}option {option!r} is not accepted{hint}"

    def _keys(self) -> Iterator[tuple[str, str, str]]:
        subcommands = self._subcommands_action
        parsers = [self, *(subcommands.choices.values() if subcommands else [])]
        for action in {action.dest: action for p in parsers for action in p._actions}.values():
            yield action.dest.rpartition(".")


@contextmanager
def _no_options_of_another_class() -> Iterator[None]:
    # By itself the parser keeps the options that both classes know, so that SGD would inherit
    # the weight decay that a config chose for AdamW. It offers no setting for that.
    keep_common = _typehints.discard_init_args_on_class_path_change

    def keep_none(parser_or_action: Any, previous: Any, value: Any) -> None:
        if previous and "init_args" in previous:
            old, new = (str(spec["class_path"]).rpartition(".")[2] for spec in (previous, value))
            if old != new:
                for key in list(previous["init_args"].keys()):
                    previous["init_args"].pop(key)
        keep_common(parser_or_action, previous, value)

    _typehints.discard_init_args_on_class_path_change = keep_none
    try:
        yield
    finally:
        _typehints.discard_init_args_on_class_path_change = keep_common


def constructor_options(class_path: str) -> Iterator[str]:
    """Names of the options of a class given by its path."""
    module_name, _, name = class_path.rpartition(".")
    try:
        yield from inspect.signature(getattr(import_module(module_name), name)).parameters
    except (ImportError, AttributeError, TypeError, ValueError):
        return


def refuse_linked_values(
    args: Sequence[str], config_paths: Sequence[Path], links: dict[str, str]
) -> None:
    """Stop if the user gives a value that a link is going to overwrite.

    The parser itself ignores such values silently where they sit inside ``init_args``.

    Args:
        args: Command line arguments.
        config_paths: Configs named in them.
        links: Source key to target key.

    Raises:
        ConfigError: Naming the key, where it was given and which key to set instead.
    """
    sources = [(str(path), Path(path).parent, _load(path.read_text())) for path in config_paths]
    for arg, following in zip(args, [*args[1:], ""], strict=False):
        if arg.startswith("--"):
            key, equals, value = arg[2:].partition("=")
            tree: Any = _load(value if equals else following)
            for part in reversed(key.rstrip("+").split(".")):
                tree = {part: tree}
            sources.append(("the command line", Path(), tree))
    for source_key, target in links.items():
        parts = [part for part in target.split(".") if part != "init_args"]
        for origin, folder, tree in sources:
            if _holds(tree, parts, folder):
                raise ConfigError(
                    f"{target} is given in {origin}, but it follows {source_key}; "
                    f"set {source_key} instead"
                )


def _load(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None  # the parser reports it


def _holds(tree: Any, parts: Sequence[str], folder: Path) -> bool:
    if not parts:
        return True
    if isinstance(tree, str) and tree.endswith((".yaml", ".yml")) and (folder / tree).is_file():
        file = folder / tree
        return _holds(_load(file.read_text()), parts, file.parent)
    if not isinstance(tree, dict):
        return False
    inside = tree.get("init_args")
    found = any(key.rstrip("+") == parts[0] for key in tree if isinstance(key, str))
    if found:
        key = next(k for k in tree if isinstance(k, str) and k.rstrip("+") == parts[0])
        return _holds(tree[key], parts[1:], folder)
    return isinstance(inside, dict) and _holds(inside, parts, folder)
