import os
from pathlib import Path

import pytest

from hepattn.simulate.shards import available_cpus, run_tasks, whole_file


def test_a_process_that_is_killed_is_an_error_with_a_remedy() -> None:
    with pytest.raises(RuntimeError, match=r"num_workers=2 processes ended .*take fewer"):
        list(run_tasks(os._exit, [(1,), (1,)], 2))


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_error_of_a_task_is_passed_on(num_workers: int) -> None:
    with pytest.raises(ValueError, match="invalid literal for int"):
        list(run_tasks(int, [("no",), ("no",)], num_workers))


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def write(text: str, *, fail: bool) -> None:
        with whole_file(tmp_path / "file") as part:
            part.write_text(text)
            if fail:
                raise KeyboardInterrupt

    write("old", fail=False)
    with pytest.raises(KeyboardInterrupt):
        write("new", fail=True)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


def test_only_cpus_that_the_process_may_use_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5}, raising=False)
    assert available_cpus() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cpus() == 1
