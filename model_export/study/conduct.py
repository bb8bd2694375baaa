"""A study from plan to results: what is not in the results file yet is run, and each outcome kept as it comes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from model_export.statistics import estimate_statistics
from model_export.study.data import Data
from model_export.study.evidence import Evidence
from model_export.study.networks import build_trial_network
from model_export.study.plan import Study, distinct, plan_trials
from model_export.study.store import Header, open_results
from model_export.study.trials import Outcome, Trial
from model_export.study.workers import run_trials

NUM_TRIED = 64  # instances that a network is tried with before all else


@dataclass(frozen=True, kw_only=True)
class Watch:
    """Who wants to know how far it is: `begin` hears of the runs that are missing, `done` of each that is run."""

    begin: Callable[[Sequence[Trial]], None]
    done: Callable[[Trial], None]


def conduct(study: Study, data: Data, out: Path, *, jobs: int, watch: Watch | None = None) -> Evidence:
    """Run what is missing of `study` in the results file of the folder `out`, and return all of it.

    Raises:
        StudyInvalid: the folder holds another study, or a process died.
        NetworkInvalid, StatisticsInvalid: a network can not be studied.
    """
    trials = distinct(plan_trials(study))
    with open_results(out, make_header(study, data)) as results:
        missing = [trial for trial in trials if trial not in results.outcomes]
        if watch:
            watch.begin(missing)
        for outcome in _run(missing, study, data, jobs):
            results.add(outcome)
            if watch:
                watch.done(outcome.trial)
        found = {trial: results.outcomes[trial] for trial in trials}
    return Evidence(study=study, outcomes=found, chance=data.chance)


def _run(missing: Sequence[Trial], study: Study, data: Data, jobs: int) -> Iterator[Outcome]:
    if missing:
        yield from run_trials(missing, data, batch_size=study.settings.batch_size, jobs=min(jobs, len(missing)))


def make_header(study: Study, data: Data) -> Header:
    """What the results of this study have in common. A network of one's own is built and tried once for it.

    Raises:
        NetworkInvalid, StatisticsInvalid: it can not be studied.
    """
    return Header(
        data_name=data.name,
        data_sha256=data.sha256,
        batch_size=study.settings.batch_size,
        network_sha256=_digest_of_own(study, data) if ":" in study.single.network else "",
    )


def _digest_of_own(study: Study, data: Data) -> str:
    """SHA-256 over the layers and the first weights: a factory that was changed builds another network."""
    network = build_trial_network(study.trials(study.single, study.single.placement, study.settings.rates[0])[0], data)
    estimate_statistics(network, data.train.instances[:NUM_TRIED])  # what is wrong with it is said before the first run
    sha256 = hashlib.sha256(str(network).encode())
    for name, value in network.state_dict().items():
        sha256.update(name.encode())
        sha256.update(value.cpu().contiguous().numpy().tobytes())
    return sha256.hexdigest()
