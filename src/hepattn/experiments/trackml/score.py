"""Score a TrackML submission as the challenge does."""

from collections.abc import Sequence
from pathlib import Path

import jsonargparse
import numpy as np
import torch

from hepattn.data import DataError
from hepattn.data.trackml import open_events, read_submission
from hepattn.metrics.tracking import trackml_score


def score(submission: str | Path, data: str | Path) -> dict[str, float]:
    """Score each event of a submission.

    Args:
        submission: File of columns ``event_id,hit_id,track_id`` with every hit of every event.
        data: Folder, zip or store of the events, with truth.

    Returns:
        The score of each event, in [0, 1], by its name.

    Raises:
        DataError: If the submission and the events do not match, or an event has no truth or no
            weight.
    """
    scores = {}
    for event, track in read_submission(submission, open_events(data)):
        if "particle_id" not in event.hits:
            raise DataError.of(
                f"{data}: {event.name}",
                "truth",
                found="none",
                expected="the particle and the weight of each hit",
                remedy=f"a score needs {event.name}-truth.csv[.gz]",
            )
        columns = (track, event.hits["particle_id"], event.hits["weight"])
        try:
            scores[event.name] = trackml_score(*map(torch.from_numpy, columns))
        except ValueError as error:
            raise DataError(f"{data}: {event.name}: {error}") from error
    return scores


def main(args: Sequence[str] | None = None) -> None:
    """Print the scores from the command line: ``SUBMISSION DATA``.

    Args:
        args: The arguments; those of the process by default.
    """
    try:
        scores = jsonargparse.auto_cli(score, args=None if args is None else list(args))
    except ValueError as error:
        raise SystemExit(f"error: {error}") from error
    for name, value in scores.items():
        print(f"{name}  {value:.5f}")
    print(f"mean of {len(scores)} events: {np.mean(list(scores.values())):.5f}")


if __name__ == "__main__":
    main()
