"""What keeps the libraries that flows use from reporting to their makers."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["TELEMETRY_OFF", "silenced"]

TELEMETRY_OFF = {
    "DO_NOT_TRACK": "1",
    "OTEL_SDK_DISABLED": "true",
    # Agents
    "AGNO_TELEMETRY": "false",
    "BROWSER_USE_CLOUD_SYNC": "false",
    "BROWSER_USE_VERSION_CHECK": "false",
    "COMPOSIO_DISABLE_SENTRY": "true",
    "CREWAI_DISABLE_TELEMETRY": "true",
    "CREWAI_DISABLE_TRACKING": "true",
    "CREWAI_DISABLE_VERSION_CHECK": "true",
    "CREWAI_TRACING_ENABLED": "false",
    "EC_TELEMETRY": "false",  # Embedchain
    "GRAPHITI_TELEMETRY_ENABLED": "false",
    "HAYSTACK_TELEMETRY_ENABLED": "False",
    "LANGCHAIN_TRACING": "false",
    "LANGCHAIN_TRACING_V2": "false",
    "LANGSMITH_TRACING": "false",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it asks GitHub for prices when it is imported
    "LOGFIRE_SEND_TO_LOGFIRE": "false",
    "MEM0_TELEMETRY": "False",
    "OPENAI_AGENTS_DISABLE_TRACING": "1",  # traces hold inputs and outputs
    "PHI_MONITORING": "false",
    "TELEMETRY_DISABLED": "1",  # Cognee, Composio
    "TRACELOOP_TELEMETRY": "false",
    # What they are made with
    "ANONYMIZED_TELEMETRY": "False",  # Chroma, Browser Use
    "DEEPEVAL_TELEMETRY_OPT_OUT": "YES",
    "DISABLE_TELEMETRY": "true",  # Weaviate
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PHOENIX_TELEMETRY_ENABLED": "false",
    "RAGAS_DO_NOT_TRACK": "true",
    "SCARF_NO_ANALYTICS": "true",  # Unstructured
    "STREAMLIT_BROWSER_GATHER_USAGE_STATS": "false",
    "VLLM_NO_USAGE_STATS": "1",
}
"""What agent frameworks, and the libraries below them, read. `scripts/silence` sees whether they heed it."""


def silenced(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what is to be added to an environment; what somebody has set there stays as it is."""
    return {name: value for name, value in TELEMETRY_OFF.items() if name not in environment}
