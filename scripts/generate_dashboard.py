#!/usr/bin/env python3
"""Write `deploy/grafana/dashboard.json`: one line here is one panel there."""

import json
import sys
from pathlib import Path
from typing import Any, NamedTuple

DOCUMENT = Path(__file__).resolve().parent.parent / "deploy" / "grafana" / "dashboard.json"
#: Grafana's grid.
WIDTH, COLUMNS, HEIGHT = 24, 3, 7
#: On every metric: the replicas that were chosen above.
CHOSEN = 'instance=~"$instance"'
WINDOW = "[$__rate_interval]"


class Panel(NamedTuple):
    """One graph: queries by the legend of their series."""

    title: str
    unit: str
    queries: dict[str, str]
    help: str = ""


def rate(metric: str, by: str = "", where: str = "") -> str:
    """Return how much a counter grows a second."""
    chosen = f"{where},{CHOSEN}" if where else CHOSEN
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({metric}{{{chosen}}}{WINDOW}))"


def quantile(share: float, metric: str, by: str = "") -> str:
    """Return a quantile of a histogram."""
    grouped = f"le, {by}" if by else "le"
    return f"histogram_quantile({share}, sum by ({grouped}) (rate({metric}_bucket{{{CHOSEN}}}{WINDOW})))"


def now(metric: str, by: str = "") -> str:
    """Return a gauge, added up over the replicas."""
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} ({metric}{{{CHOSEN}}})"


def share(part: str, whole: str) -> str:
    """Return a part of a whole, 0 while there is nothing."""
    return f"({part} or vector(0)) / ({whole} > 0) or vector(0)"


REQUESTS, SECONDS = "gateway_requests_total", "gateway_request_duration_seconds"
CALLS, CALL_SECONDS = "gateway_thingsboard_calls_total", "gateway_thingsboard_call_duration_seconds"
TB = "gateway_thingsboard_"

ROWS: dict[str, list[Panel]] = {
    "What callers see": [
        Panel("Requests", "reqps", {"{{status}}": rate(REQUESTS, "status")}),
        Panel(
            "Server errors",
            "percentunit",
            {
                "of all requests": share(rate(REQUESTS, where='status=~"5.."'), rate(REQUESTS)),
                "broken off": share(rate("gateway_cut_answers_total"), rate(REQUESTS)),
            },
        ),
        Panel(
            "Time until the answer begins",
            "s",
            {"p50": quantile(0.5, SECONDS), "p99": quantile(0.99, SECONDS)},
        ),
        Panel("Requests by route", "reqps", {"{{method}} {{route}}": rate(REQUESTS, "method, route")}),
        Panel("p99 by route", "s", {"{{method}} {{route}}": quantile(0.99, SECONDS, "method, route")}),
        Panel(
            "Requests by key",
            "reqps",
            {"{{key_id}} {{outcome}}": rate("gateway_key_requests_total", "key_id, outcome")},
        ),
        Panel("Under way", "short", {"requests and streams": now("gateway_requests_in_flight")}),
        Panel(
            "Points",
            "short",
            {"{{upstream}} {{direction}} a second": rate("gateway_points_total", "upstream, direction")},
        ),
        Panel("Versions", "short", {"{{version}}": f"count by (version) (gateway_build_info{{{CHOSEN}}})"}),
    ],
    "ThingsBoard": [
        Panel("Calls", "reqps", {"{{kind}} {{outcome}}": rate(CALLS, "kind, outcome")}),
        Panel(
            "Time of a call",
            "s",
            {
                "p50 {{kind}}": quantile(0.5, CALL_SECONDS, "kind"),
                "p99 {{kind}}": quantile(0.99, CALL_SECONDS, "kind"),
            },
        ),
        Panel(
            "Failed calls",
            "percentunit",
            {
                "of all calls": share(
                    rate(CALLS, where='outcome=~"timeout|reset|unreachable|garbled|failed"'), rate(CALLS)
                )
            },
        ),
        Panel(
            "Retries and breaker",
            "short",
            {
                "{{upstream}} retries a second": rate(f"{TB}retries_total", "upstream"),
                "{{upstream}} workers with an open breaker": now(f"{TB}breaker_open", "upstream"),
                "{{upstream}} openings a second": rate(f"{TB}breaker_openings_total", "upstream"),
            },
        ),
        Panel(
            "Calls in hand",
            "short",
            {
                "{{upstream}} in flight": now(f"{TB}calls_in_flight", "upstream"),
                "{{upstream}} waiting": now(f"{TB}queue_length", "upstream"),
                "{{upstream}} commands": now(f"{TB}commands_in_flight", "upstream"),
            },
        ),
        Panel(
            "Waits for a turn",
            "s",
            {"mean wait": share(rate(f"{TB}queue_wait_seconds_total"), rate(f"{TB}queue_waits_total"))},
        ),
        Panel(
            "Refused turns",
            "reqps",
            {"{{upstream}} {{reason}}": rate(f"{TB}queue_refusals_total", "upstream, reason")},
        ),
        Panel(
            "Rate limit of ThingsBoard",
            "short",
            {
                "{{upstream}} 429 a second": rate(f"{TB}rate_limit_answers_total", "upstream"),
                "{{upstream}} pace, calls a second": now(f"{TB}pace_calls_per_second", "upstream"),
                "{{upstream}} workers at a pace": now(f"{TB}rate_limited", "upstream"),
            },
            help="A pace of 0 is none: ThingsBoard has refused nothing lately.",
        ),
        Panel(
            "Calls saved",
            "reqps",
            {
                "{{role}}": rate(f"{TB}shared_reads_total", "role"),
                "latest values: {{result}}": rate("gateway_latest_cache_requests_total", "result"),
            },
            help="Identical reads at the same time share a call.",
        ),
    ],
    "Limits and keys": [
        Panel(
            "Security events",
            "reqps",
            {"{{event}} {{reason}}": rate("gateway_security_events_total", "event, reason")},
        ),
        Panel(
            "Keys that do not count", "reqps", {"{{reason}}": rate("gateway_refused_keys_total", "reason")}
        ),
        Panel(
            "Key file",
            "short",
            {
                "keys in use": f"max (gateway_keys{{{CHOSEN}}})",
                "broken": f"max (gateway_key_file_broken{{{CHOSEN}}})",
                "reloads": rate("gateway_key_reloads_total"),
                "faults": rate("gateway_key_file_faults_total"),
            },
        ),
        Panel(
            "Redis",
            "short",
            {
                "workers without it": now("gateway_redis_down"),
                "failures a second": rate("gateway_redis_failures_total"),
                "counted locally a second": rate("gateway_redis_counted_locally_total"),
            },
        ),
        Panel(
            "Rate limit windows",
            "short",
            {
                "in memory": now("gateway_rate_limit_windows"),
                "forgotten a second": rate("gateway_rate_limit_evictions_total"),
            },
        ),
    ],
    "Live data": [
        Panel(
            "Readers",
            "short",
            {"streams": now("gateway_streams"), "channels": now("gateway_live_channels")},
        ),
        Panel("Events", "reqps", {"{{kind}}": rate("gateway_live_events_total", "kind")}),
        Panel(
            "Delivered",
            "reqps",
            {
                "events to readers": rate("gateway_live_frames_total"),
                "readers dropped": rate("gateway_live_dropped_readers_total"),
            },
        ),
        Panel(
            "ThingsBoard's feed",
            "short",
            {
                "{{upstream}} sockets": now(f"{TB}live_connected", "upstream"),
                "{{upstream}} devices": now(f"{TB}live_devices", "upstream"),
            },
        ),
        Panel(
            "Connections of the feed",
            "reqps",
            {
                "{{upstream}} opened": rate(f"{TB}live_connections_total", "upstream"),
                "{{upstream}} failed": rate(f"{TB}live_failures_total", "upstream"),
            },
        ),
    ],
    "Processes": [
        Panel(
            "CPU",
            "short",
            {"{{instance}}": rate("process_cpu_seconds_total", "instance")},
            help="Cores.",
        ),
        Panel(
            "Memory of a worker",
            "bytes",
            {
                "{{instance}}": f"process_resident_memory_bytes{{{CHOSEN}}} / gateway_workers{{{CHOSEN}}}",
            },
        ),
        Panel(
            "Open files",
            "short",
            {
                "{{instance}}": now("process_open_fds", "instance"),
                "{{instance}} limit": f"process_max_fds{{{CHOSEN}}} * gateway_workers{{{CHOSEN}}}",
            },
        ),
        Panel(
            "Event loop lag",
            "s",
            {"p99 {{instance}}": quantile(0.99, "gateway_event_loop_lag_seconds", "instance")},
        ),
        Panel(
            "Shed requests",
            "reqps",
            {"{{instance}}": rate("gateway_shed_requests_total", "instance")},
            help="Refused because the workers' CPU is asked for more than it can do.",
        ),
        Panel("Workers", "short", {"{{instance}}": now("gateway_workers", "instance")}),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana imports it."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        place = {"h": 1, "w": WIDTH, "x": 0, "y": top}
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "gridPos": place, "panels": []})
        top += 1
        for number, panel in enumerate(row):
            width = WIDTH // COLUMNS
            line, column = divmod(number, COLUMNS)
            place = {"h": HEIGHT, "w": width, "x": column * width, "y": top + line * HEIGHT}
            panels.append(graph(len(panels) + 1, panel, place))
        top += -(-len(row) // COLUMNS) * HEIGHT
    return {
        "uid": "thingsboard-gateway",
        "title": "ThingsBoard gateway",
        "tags": ["thingsboard", "gateway"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "timezone": "",
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [DATA_SOURCE, INSTANCE]},
        "panels": panels,
    }


SOURCE = {"type": "prometheus", "uid": "${datasource}"}
DATA_SOURCE = {"name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus"}
INSTANCE = {
    "name": "instance",
    "label": "Replica",
    "type": "query",
    "datasource": SOURCE,
    "query": "label_values(gateway_build_info, instance)",
    "refresh": 2,
    "multi": True,
    "includeAll": True,
    "allValue": ".+",
    "current": {"text": "All", "value": "$__all"},
}


def graph(number: int, panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    """Return one panel."""
    targets = [
        {"refId": chr(ord("A") + position), "datasource": SOURCE, "expr": query, "legendFormat": legend}
        for position, (legend, query) in enumerate(panel.queries.items())
    ]
    return {
        "id": number,
        "type": "timeseries",
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
        "targets": targets,
    }


def text() -> str:
    """Return what the file holds."""
    return json.dumps(dashboard(), indent=1) + "\n"


if __name__ == "__main__":
    DOCUMENT.write_text(text(), "utf-8")
    sys.stdout.write(f"✅ wrote {DOCUMENT.name}\n")
