"""Baselines: nginx, HAProxy and Caddy as plain reverse proxies with a key check, where they are installed."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from benchmarks.processes import HOST, Child, Children, free_port, wait_until_ready
from benchmarks.stub_thingsboard import TOKEN

#: Where Debian keeps servers, which is not always on the PATH of a user.
FOLDERS = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"))
PATH = "/api/v1/tb/devices"
UPSTREAM_PATH = "/api/tenant/deviceInfos"

NGINX = """
daemon off; pid {folder}/nginx.pid; worker_processes 1; error_log {folder}/nginx-error.log; {user}
events {{ worker_connections 1024; }}
http {{
  access_log {folder}/nginx-access.log; keepalive_requests 100000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  upstream thingsboard {{ server {host}:{upstream}; keepalive 64; keepalive_requests 100000000; }}
  server {{
    listen {host}:{port};
    location = {path} {{
      if ($http_x_api_key != "{key}") {{ return 401; }}
      proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header X-API-Key "";
      proxy_set_header X-Authorization "Bearer {token}"; proxy_buffers 8 16k;
      proxy_pass http://thingsboard{upstream_path}$is_args$args;
    }}
  }}
}}
"""
HAPROXY = """
global
  maxconn 1000
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  option httplog
  http-reuse always
frontend callers
  bind {host}:{port}
  http-request deny deny_status 401 unless {{ req.hdr(X-API-Key) -m str {key} }}
  http-request del-header X-API-Key
  http-request set-path {upstream_path}
  http-request set-header X-Authorization "Bearer {token}"
  default_backend thingsboard
backend thingsboard
  server thingsboard {host}:{upstream}
"""
CADDY = """
{{
  admin off
  auto_https off
  log {{
    output file {folder}/caddy.log
  }}
}}
http://{host}:{port} {{
  log {{
    output file {folder}/caddy-access.log
  }}
  @known header X-API-Key {key}
  handle @known {{
    rewrite {path} {upstream_path}
    reverse_proxy {host}:{upstream} {{
      header_up X-Authorization "Bearer {token}"
      header_up -X-API-Key
    }}
  }}
  respond 401
}}
"""


def _nginx(program: str, file: Path) -> tuple[str, ...]:
    return (program, "-p", str(file.parent), "-c", str(file))


def _haproxy(program: str, file: Path) -> tuple[str, ...]:
    return (program, "-db", "-f", str(file))


def _caddy(program: str, file: Path) -> tuple[str, ...]:
    return (program, "run", "--adapter", "caddyfile", "--config", str(file))


Command = Callable[[str, Path], tuple[str, ...]]
PROXIES: dict[str, tuple[str, Command]] = {
    "nginx": (NGINX, _nginx),
    "haproxy": (HAPROXY, _haproxy),
    "caddy": (CADDY, _caddy),
}


def start_installed(children: Children, upstream: int, key: str) -> tuple[dict[str, Child], list[str]]:
    """Start those that are here; returns them and the names of those that are not."""
    started, missing = {}, []
    for name, (template, command) in PROXIES.items():
        program = shutil.which(name, path=FOLDERS)
        if program is None:
            missing.append(name)
            continue
        port = free_port()
        file = children.folder / f"{name}.conf"
        text = template.format(
            folder=children.folder,
            host=HOST,
            port=port,
            path=PATH,
            upstream=upstream,
            upstream_path=UPSTREAM_PATH,
            key=key,
            token=TOKEN,
            # Its worker would otherwise become another user, who may not write here.
            user="user root;" if os.geteuid() == 0 else "",
        )
        file.write_text(text, "ascii")
        child = children.start(name, command(program, file), port=port)
        wait_until_ready(child, PATH, {"X-API-Key": key})
        started[name] = child
    return started, missing
