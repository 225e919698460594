"""The plots of docs/performance.md."""

from pathlib import Path

import matplotlib as mpl
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmarks.cases import (
    CONCURRENCIES,
    FLOW,
    FORGE,
    IDIOMATIC,
    LATENCIES_MS,
    PLAIN,
    QUIET,
    SIZES,
    UNSEEN,
    Case,
    Kind,
    Results,
    Span,
)
from benchmarks.states import FLOW_RUN

LABELS = {
    PLAIN: "plain script",
    FLOW: "market-data",
    QUIET: "market-data, no heartbeats",
    UNSEEN: "market-data, no heartbeats, unseen",
    IDIOMATIC: "a task a page",
}
COLOURS = {PLAIN: "#6b7280", FLOW: "#2563eb", QUIET: "#0d9488", UNSEEN: "#84cc16", IDIOMATIC: "#d97706"}
LINES: dict[Kind, str] = {"first fill": "-", "steady state": "--"}


def draw_plots(results: Results, folder: Path) -> None:
    """Draw all plots as PNG files."""
    mpl.use("agg")
    folder.mkdir(parents=True, exist_ok=True)
    draw_sizes(results, folder / "performance-sizes.png")
    draw_latency(results, folder / "performance-latency.png")
    draw_spans(results, folder / "performance-states.png")


def draw_sizes(results: Results, file: Path) -> None:
    """Draw seconds, CPU and memory over pages."""
    _, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    figures = {"seconds": "seconds", "cpu_seconds": "CPU seconds", "peak_bytes": "peak memory, MiB"}
    for ax, (name, title) in zip(axes, figures.items(), strict=True):
        for contestant in LABELS:
            for kind in LINES:
                draw_size(ax, results, contestant, kind, name)
        ax.set(title=title, xlabel="pages", xscale="log", yscale="log", xticks=SIZES, xticklabels=SIZES)
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    axes[0].legend(fontsize="small")
    save(file)


def draw_size(ax: Axes, results: Results, contestant: str, kind: Kind, figure: str) -> None:
    """Draw one contestant's medians over pages, with the spread where there is more than one measure."""
    found = [result for pages in SIZES if (result := results.find(contestant, Case(kind, pages)))]
    if not found:
        return
    unit = 1024**2 if figure == "peak_bytes" else 1
    medians = [max(result.median(figure) / unit, 0.01) for result in found]
    low = [middle - max(min(result.values(figure)) / unit, 0.01) for middle, result in zip(medians, found, strict=True)]
    high = [max(result.values(figure)) / unit - middle for middle, result in zip(medians, found, strict=True)]
    ax.errorbar(
        [result.case.pages for result in found],
        medians,
        yerr=[[max(0.0, by) for by in low], [max(0.0, by) for by in high]],
        fmt=f"o{LINES[kind]}",
        markersize=3,
        capsize=2,
        color=COLOURS[contestant],
        label=f"{LABELS[contestant]}, {kind}",
    )


def draw_latency(results: Results, file: Path) -> None:
    """Draw seconds over concurrency, a panel for each latency."""
    figure, axes = plt.subplots(1, len(LATENCIES_MS), figsize=(13, 4), layout="constrained")
    figure.suptitle(f"{FORGE} pages, first fill, seconds over fetch_concurrency")
    for ax, latency_ms in zip(axes, LATENCIES_MS, strict=True):
        for contestant in (PLAIN, FLOW):
            found = {
                at_once: result.median()
                for at_once in CONCURRENCIES
                if (result := results.find(contestant, Case("first fill", FORGE, latency_ms, at_once)))
            }
            ax.plot(found.keys(), found.values(), "o-", color=COLOURS[contestant], label=LABELS[contestant])
        ax.set(title=f"{latency_ms} ms added to each answer", xlabel="pages in flight", ylim=(0, None))
        ax.grid(alpha=0.3)
    axes[0].legend()
    save(file)


def draw_spans(results: Results, file: Path) -> None:
    """Draw when each state was at work, a panel a case."""
    panels = max(1, len(results.spans))
    _, axes = plt.subplots(panels, 1, figsize=(11, 2.4 * panels), layout="constrained", squeeze=False)
    for ax, (name, spans) in zip(axes[:, 0], results.spans.items(), strict=False):
        draw_states(ax, [span for span in spans if span.state != FLOW_RUN])
        ax.axvline(spans[-1].ended, color="black", linewidth=1)
        ax.set(title=name, xlabel="seconds after the flow run's start; the line is its end", xlim=(0, None))
    save(file)


def draw_states(ax: Axes, spans: list[Span]) -> None:
    """Draw one bar a state, the first on top."""
    ax.barh(
        [f"{span.state} ({span.task_runs})" for span in spans],
        [span.ended - span.begun for span in spans],
        left=[span.begun for span in spans],
        color=COLOURS[FLOW],
    )
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)


def save(file: Path) -> None:
    """Write the figure that was drawn last."""
    plt.savefig(file, dpi=110)
    plt.close()
