"""Spans for OpenTelemetry: Prefect makes one a flow run and one a state, the instrumentations one a request.

Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector; its standard's other settings (`OTEL_SERVICE_NAME`,
`OTEL_EXPORTER_OTLP_HEADERS` …) count as well.
"""

import os

SETTING = "OTEL_EXPORTER_OTLP_ENDPOINT"


def set_up() -> None:
    """Make this process send spans, if it is asked for; before the first flow run begins.

    Raises:
        ImportError: it is asked for, but the packages of the extra `telemetry` are not there.
    """
    if not os.environ.get(SETTING):
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415 (an extra: not there for whom does not ask for it)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.instrumentation.botocore import BotocoreInstrumentor  # noqa: PLC0415
        from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor  # noqa: PLC0415
        from opentelemetry.instrumentation.threading import ThreadingInstrumentor  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise ImportError(
            f"{SETTING} is set, but {error.name} is not installed: install the extra `telemetry`, or unset it"
        ) from error
    if isinstance(trace.get_tracer_provider(), TracerProvider):
        return  # somebody else's counts, or this has been called before
    os.environ.setdefault("OTEL_SERVICE_NAME", "market-data")
    os.environ.setdefault("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", os.environ.get("PREFECT_API_URL", "/api/"))
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    HTTPXClientInstrumentor().instrument()
    ThreadingInstrumentor().instrument()
    BotocoreInstrumentor().instrument()  # type: ignore[no-untyped-call]
