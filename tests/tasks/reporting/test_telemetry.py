"""Spans and JSON logs, which are switched on by settings alone."""

import json
import os
import re
import subprocess
import sys

import pytest

from deployments.local.environment import CHECKOUT
from tests.support.receiver import receive
from tests.support.worlds import VENAL

pytestmark = pytest.mark.usefixtures("served", "store_url", "api")

# Keeps the spans in memory as well as sending them.
KEEP_SPANS = """
import json, sys
from opentelemetry import trace
from flows.market_data import market_data
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
kept = InMemorySpanExporter()
trace.get_tracer_provider().add_span_processor(SimpleSpanProcessor(kept))
market_data(int(sys.argv[1]), sys.argv[2])
spans = kept.get_finished_spans()
names = {span.context.span_id: span.name for span in spans}
print(json.dumps([(span.name, names.get(span.parent.span_id if span.parent else 0)) for span in spans]))
"""


def run_python(code: str, table_name: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program with a region and a table as its arguments."""
    command = [sys.executable, "-c", code, str(VENAL), table_name]
    return subprocess.run(command, cwd=CHECKOUT, env=os.environ | settings, capture_output=True, text=True, check=False)


def test_spans_of_states_and_requests(table_name: str) -> None:
    """With a collector's address, each state has a span, and below it each request to ESI or DynamoDB."""
    with receive() as collector:
        done = run_python(KEEP_SPANS, table_name, OTEL_EXPORTER_OTLP_ENDPOINT=collector.url)
    assert done.returncode == 0, done.stderr
    spans = {(name, parent) for name, parent in json.loads(done.stdout.splitlines()[-1])}
    (run_name,) = {name for name, parent in spans if parent is None}
    assert run_name.startswith("10000015 Venal")
    states = {name for name, parent in spans if parent == run_name}
    pages = {f"Fetch Pages {page}" for page in range(1, 8)}
    assert states >= pages | {"Get Page Count", "Build Iterator", "Aggregate", "Store Records: complete"}
    below = {name: {request for request, parent in spans if parent == name} for name in states}
    assert below["Get Page Count"] >= {"HEAD", "DynamoDB.GetItem"}
    assert all(below[name] == {"GET"} for name in pages)
    assert below[next(name for name in states if name.startswith("Store Records 1-"))] == {"DynamoDB.BatchWriteItem"}
    assert {path for path, _body in collector.posts} == {"/v1/traces"}


def test_no_span_unless_asked(table_name: str) -> None:
    """Without the setting, nothing of OpenTelemetry is set up."""
    code = "import sys, flows.market_data; print('opentelemetry.sdk.trace' in sys.modules)"
    assert run_python(code, table_name).stdout.split() == ["False"]


def test_missing_packages_are_named(table_name: str) -> None:
    """The setting without the extra is refused, with what to do."""
    code = "import sys; sys.modules['opentelemetry.sdk.trace'] = None; import flows.market_data"
    done = run_python(code, table_name, OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9")
    assert (
        "ImportError: OTEL_EXPORTER_OTLP_ENDPOINT is set, but opentelemetry.sdk.trace is not installed" in done.stderr
    )


def test_logs_are_json_if_asked(table_name: str) -> None:
    """Prefect's own setting makes each log line a JSON object."""
    code = "import sys; from flows.market_data import market_data; market_data(int(sys.argv[1]), sys.argv[2])"
    settings = {"PREFECT_LOGGING_HANDLERS_CONSOLE_FORMATTER": "json", "PREFECT_LOGGING_LEVEL": "INFO"}
    done = run_python(code, table_name, **settings)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    messages = [line["msg"] % tuple(line["args"] or ()) for line in lines]
    assert any(re.fullmatch(r"Fetch Pages ends after \d+\.\d\d s: 7 of 7 pages", message) for message in messages)
    assert {line["flow_name"] for line in lines if line["name"] == "prefect.flow_runs"} == {"market-data"}
