"""Options by name: the content of a file, or the rule that it breaks."""

from pathlib import Path

import pytest

from hepattn.nn.normalise import Feature
from hepattn.training.configs import ConfigError
from hepattn.training.shipped import read_shipped


def read(folder: Path, text: str) -> tuple[Feature, ...]:
    (folder / "mine.yaml").write_text(text)
    return read_shipped("mine", tuple[Feature, ...], folder, "data.features")


def test_a_file_holds_what_its_text_says(tmp_path: Path) -> None:
    text = '# a comment\n- name: "two\n\n    lines"\n- {name: y, clip: [-1, 1]}\n'
    assert read(tmp_path, text) == (Feature("two\nlines"), Feature("y", clip=(-1.0, 1.0)))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("- {name: x, scale: 0}", "scale=0 would erase it; leave the feature out"),
        ("- {name: x, scal: 2}", "Option 'scal' is not accepted"),
        ("- {name: x, transform: lgo}", "Got value: lgo"),
        ("- {name: x", "expected ',' or '}'"),
        ("", "Got value: {}"),
    ],
)
def test_a_file_that_does_not_fit_names_the_rule(tmp_path: Path, text: str, rule: str) -> None:
    with pytest.raises(ConfigError, match=r"mine.yaml does not fit data.features") as error:
        read(tmp_path, text)
    assert rule in str(error.value)


def test_errors_that_are_not_of_the_file_are_not_hidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Feature) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Feature, "__post_init__", broken)
    with pytest.raises(ZeroDivisionError):
        read(tmp_path, "- {name: x}")
