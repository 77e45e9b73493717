"""The fleet: all jobs of some namespaces, what became of them, and where their time went."""

from __future__ import annotations

from grafana_foundation_sdk.builders.dashboard import Dashboard

from monitoring.boards.parts import (
    STATE_COLOURS,
    About,
    Panel,
    Query,
    board,
    coloured_states,
    figure,
    filled,
    firing,
    graph,
    job_link,
    spread,
    states,
    table,
    unit,
)
from monitoring.boards.queries import (
    OF_JOB,
    events,
    growth,
    growth_in_view,
    job,
    of_namespaces,
    operator,
    per,
    state_number,
)

JOB_BOARD = "inception-job"


def fleet() -> Dashboard:
    """The dashboard to begin with: which jobs there are, and a link to each."""
    made = board(
        "inception-fleet",
        "Inception: fleet",
        "All InceptionTraining jobs: their states, alerts, outcomes, restarts and goodput.",
        ["namespace", "job"],
    )
    sections = {
        "": [*_now(), *_jobs()],
        "Where the time goes": _time(),
        "Ends and restarts": _ends(),
    }
    return filled(made, sections)


def _now() -> list[Panel]:
    spent = job("goodput_seconds_total", 'cause!="suspended"')
    productive = job("goodput_seconds_total", 'cause="productive"')
    ratio = f"sum({growth_in_view(productive)}) / sum({growth_in_view(spent)})"
    return [
        figure(
            About("Jobs by state", "How many of the chosen jobs are in each state now."),
            Query(per("sum", ["state"], job("state")), "{{state}}"),
            width=10,
            colours=STATE_COLOURS,
        ),
        figure(
            About(
                "Goodput",
                "Share of the jobs' time, over the range of this dashboard and without suspended "
                "jobs, that went into steps not done before.",
                "percentunit",
            ),
            Query(ratio),
            width=4,
            limits=((None, "red"), (0.5, "yellow"), (0.8, "green")),
        ),
        figure(
            About("Speed", "Training samples per second over all chosen jobs that run."),
            Query(f"sum({job('samples_per_second')})"),
        ),
        figure(
            About(
                "Longest wait",
                "How long the job has waited that the operator has not looked at for longest.",
                "s",
            ),
            Query(f"max({operator('queue_oldest_age_seconds')})"),
            width=6,
            limits=((None, "green"), (60, "red")),
        ),
        firing('namespace=~"$namespace"', width=24),
    ]


def _jobs() -> list[Panel]:
    info = per("max", (*OF_JOB, "accelerator", "model"), job("info"))
    return [
        table(
            About(
                "Jobs",
                "Each job with its state and figures as the operator last read them. The name "
                "leads to the dashboard of the job.",
            ),
            [
                ("", info),
                ("state", state_number()),
                ("progress", per("max", OF_JOB, job("progress_ratio"))),
                ("top-1", per("max", OF_JOB, job("accuracy_ratio", 'k="1"'))),
                ("goodput", per("max", OF_JOB, job("goodput_ratio"))),
                ("restarts", per("sum", OF_JOB, job("restarts"))),
                ("samples/s", per("max", OF_JOB, job("samples_per_second"))),
            ],
            height=10,
            overrides={
                "name": [job_link(JOB_BOARD, "name")],
                "state": coloured_states(),
                "progress": [unit("percentunit")],
                "top-1": [unit("percentunit")],
                "goodput": [unit("percentunit")],
            },
        ),
        states(),
    ]


def _time() -> list[Panel]:
    def seconds(histogram: str) -> str:
        return growth(operator(f"{histogram}_seconds_bucket"))

    by_cause = per("sum", ["cause"], growth(job("goodput_seconds_total")))
    return [
        graph(
            About(
                "Time of all jobs by cause",
                "Seconds of the chosen jobs in each step of the graph, by what they went to "
                "(docs/goodput.md).",
                "s",
            ),
            Query(by_cause, "{{cause}}"),
            width=24,
            stacked=True,
        ),
        spread("Wait in a queue", "Of jobs that waited for Kueue.", seconds("job_queued")),
        spread(
            "Time to running",
            "From when pods are wanted until the ranks run, at a start or a resume.",
            seconds("job_time_to_running"),
        ),
        spread(
            "Detection", "From a failure until it is acted on.", seconds("job_failure_detection")
        ),
        spread(
            "Recovery",
            "From the end of an attempt to the first step of the next one.",
            seconds("job_recovery"),
        ),
        spread(
            "Time to a new step",
            "From the start of a job, or from a failure, to the first step not done before.",
            seconds("job_time_to_new_step"),
        ),
    ]


def _ends() -> list[Panel]:
    ended = events(of_namespaces("job_outcomes_total"))
    restarted = events(of_namespaces("restarts_total"))
    return [
        graph(
            About("Jobs that ended", "In each step of the graph, by outcome and reason."),
            Query(per("sum", ["outcome", "reason"], ended), "{{outcome}}: {{reason}}"),
            width=8,
            stacked=True,
        ),
        graph(
            About("Restarts by cause", "In each step of the graph, by their root cause."),
            Query(per("sum", ["reason"], restarted), "{{reason}}"),
            width=8,
            stacked=True,
        ),
        graph(
            About("Restarts by profile", "In each step of the graph, by accelerator profile."),
            Query(per("sum", ["profile"], restarted), "{{profile}}"),
            width=8,
            stacked=True,
        ),
    ]
