"""OpenTelemetry spans: one per flow run and state from Prefect, one per request from the instrumentations.

Off unless `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector. The standard settings (`OTEL_SERVICE_NAME`,
`OTEL_EXPORTER_OTLP_HEADERS` …) apply.
"""

import os

SETTING = "OTEL_EXPORTER_OTLP_ENDPOINT"


def set_up() -> None:
    """Make this process send spans if a collector is set. Call it before the first flow run.

    Raises:
        ImportError: a collector is set, but the extra `telemetry` is not installed.
    """
    if not os.environ.get(SETTING):
        return
    try:
        from opentelemetry import trace  # noqa: PLC0415 (an optional extra)
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
        return  # set up by another program, or by an earlier call
    os.environ.setdefault("OTEL_SERVICE_NAME", "market-data")
    os.environ.setdefault("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", os.environ.get("PREFECT_API_URL", "/api/"))
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    HTTPXClientInstrumentor().instrument()
    ThreadingInstrumentor().instrument()
    BotocoreInstrumentor().instrument()  # type: ignore[no-untyped-call]
