"""The configuration of nginx as the door, in place of server/gateway/.

It is for a consortium whose IT prefers nginx. nginx checks TLS, certificate, path, size and rate; whether certificate,
node key and admission agree it asks `python -m server.gateway FOLDER --auth-only`, for every request. It runs as the
same unprivileged user as the rest, which alone can open the sockets, and keeps everything within the folder:

    nginx -e stderr -c nginx.conf -p FOLDER

It is equal in what it lets through, not in every word: nginx words its own errors, and its idea of a folded or doubled
header is its own; what is forwarded is written anew from the few headers below all the same.

>>> from pathlib import Path
>>> config = CoordinatorConfig(Path("/srv/archipel"), "Consortium", ("coord.example.org",))
>>> print(nginx_config(config).splitlines()[0])
daemon off;
"""

import re
from collections.abc import Iterable

from configs.coordinator import CoordinatorConfig
from configs.errors import ConfigError
from server.gateway.auth_only import CERTIFICATE_HEADER, PATH_HEADER, VERIFIED_HEADER
from server.gateway.limits import BURST_S
from server.gateway.paths import FORWARDED, KEY_HEADER, PATHS, SHELF_PATHS, SIGNATURE_HEADERS
from server.gateway.strict_http import HEAD_TIMEOUT_S, KEEP_ALIVE_S, MAX_CONNECTIONS, MAX_CONNECTIONS_EACH
from server.sockets import AUTH_SOCKET, SUPERLINK_SOCKET

_REQUEST_TIMEOUT_S = 60
_PATH = re.compile(r"[A-Za-z0-9._/+@-]+")  # nothing that nginx reads as its own: no space, quote, brace, $ or ;

_TEMPLATE = """\
daemon off;
worker_processes 1;
error_log stderr warn;
pid {folder}/nginx.pid;
events {{ worker_connections {worker_connections}; }}
http {{
    access_log off;
    server_tokens off;
    default_type text/plain;
    {temporary}

    # One hospital is one certificate; whoever has none is one address.
    map $ssl_client_fingerprint $who {{ "" $binary_remote_addr; default $ssl_client_fingerprint; }}
    map $ssl_client_verify $without_certificate {{ NONE 1; default 0; }}
    limit_req_zone $who zone=requests:10m rate={rate}r/s;
    limit_conn_zone $who zone=connections:10m;
    limit_req_status 429;
    limit_conn_status 429;

    upstream superlink {{ server unix:{sockets}/{superlink_socket}; keepalive 64; keepalive_timeout 2s; }}
    upstream authority {{ server unix:{sockets}/{auth_socket}; keepalive 64; keepalive_timeout 60s; }}

    server {{
        listen {listen} ssl backlog=512;
        ssl_protocols TLSv1.3;
        ssl_certificate {pki}/server.crt;
        ssl_certificate_key {pki}/server.key;
        ssl_client_certificate {pki}/ca.crt;
        ssl_verify_client {verify};
        ssl_verify_depth 1;
        ssl_session_cache off;
        ssl_session_tickets off;

        merge_slashes off;
        ignore_invalid_headers off;
        underscores_in_headers off;
        large_client_header_buffers 4 8k;
        client_header_timeout {head_timeout_s}s;
        client_body_timeout {timeout_s}s;
        send_timeout {timeout_s}s;
        keepalive_timeout {keep_alive_s}s;
        keepalive_requests 1000000;
        client_max_body_size {max_bytes};
        limit_conn connections {connections_each};

        # No certificate, or one that does not hold: as the rest of what is refused.
        error_page 495 496 =403 @refused;
        error_page 500 502 504 =502 @broken;
        location @refused {{ return 403 "refused\\n"; }}
        location @broken {{ return 502 "the SuperLink is away; try again later\\n"; }}

        # The request line as it came: no other method, spelling, encoding, query, absolute form or version.
        if ($request !~ "^(POST ({paths})|GET /health) HTTP/1\\.1$") {{ return 404; }}
        if ($http_upgrade) {{ return 400; }}

        location / {{ return 404; }}
        location = /health {{
            if ($ssl_client_verify != SUCCESS) {{ return 200 "ok"; }}
            proxy_pass http://authority;
            proxy_http_version 1.1;
            proxy_pass_request_headers off;
            proxy_set_header Connection "";
            proxy_set_header {verified_header} $ssl_client_verify;
            proxy_set_header {certificate_header} $ssl_client_escaped_cert;
        }}
        location = /archipel-auth {{
            internal;
            proxy_pass http://authority;
            proxy_http_version 1.1;
            proxy_method GET;
            proxy_pass_request_body off;
            proxy_pass_request_headers off;
            proxy_set_header Connection "";
            proxy_set_header Content-Length "";
            proxy_set_header {verified_header} $ssl_client_verify;
            proxy_set_header {certificate_header} $ssl_client_escaped_cert;
            proxy_set_header {key_header} $http_{key_variable};
            proxy_set_header {path_header} $request_uri;
{signature_headers}
        }}
{locations}
{shelf}
    }}
}}
"""

_LOCATION = """\
        location = {path} {{
            limit_req zone=requests burst={burst} nodelay;
            auth_request /archipel-auth;
            proxy_pass http://superlink;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_max_temp_file_size 0;
            proxy_connect_timeout 5s;
            proxy_read_timeout {timeout_s}s;
            proxy_send_timeout {timeout_s}s;
            proxy_next_upstream off;
            proxy_pass_request_headers off;
            proxy_set_header Host superlink;
            proxy_set_header Connection "";
{headers}
            proxy_ignore_headers X-Accel-Redirect X-Accel-Expires X-Accel-Limit-Rate X-Accel-Buffering X-Accel-Charset;
{hidden}
        }}"""
_SHELF = """\
        location = {path} {{
            limit_req zone=requests burst={burst} nodelay;
            proxy_pass http://authority;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_buffering off;
            proxy_max_temp_file_size 0;
            proxy_read_timeout {timeout_s}s;
            proxy_send_timeout {timeout_s}s;
            proxy_next_upstream off;
            proxy_pass_request_headers off;
            proxy_set_header Connection "";
            proxy_set_header {verified_header} $ssl_client_verify;
            proxy_set_header {certificate_header} $ssl_client_escaped_cert;
            proxy_set_header {key_header} $http_{key_variable};
        }}"""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
_HIDDEN = ("Server", "Set-Cookie", "Location", "Vary", "flwr-version-incompatibility-message")


def nginx_config(config: CoordinatorConfig, *, certificate_required: bool = True) -> str:
    """Return the configuration.

    Args:
        config: where to listen, where the keys and sockets lie, and the limits.
        certificate_required: False while some hospital is admitted by its message signatures alone.

    Raises:
        ConfigError: the folder's path holds what an nginx configuration reads as something else.
    """
    folder = str(config.folder)
    if not _PATH.fullmatch(folder):
        raise ConfigError(folder, ["expected a path of A-Z, a-z, 0-9 and . _ / + @ -, found others; move the folder"])
    return _TEMPLATE.format(
        folder=folder,
        sockets=config.sockets,
        pki=config.pki,
        listen=config.listen,
        worker_connections=3 * MAX_CONNECTIONS,
        temporary="\n    ".join(
            f"{kind}_temp_path {folder}/nginx-temp-{kind.replace('_', '-')};" for kind in _TEMPORARY
        ),
        rate=config.requests_per_second,
        verify="on" if certificate_required else "optional",
        superlink_socket=SUPERLINK_SOCKET,
        auth_socket=AUTH_SOCKET,
        head_timeout_s=int(HEAD_TIMEOUT_S),
        timeout_s=_REQUEST_TIMEOUT_S,
        keep_alive_s=KEEP_ALIVE_S,
        max_bytes=config.max_request_mb * 1_000_000,
        connections_each=MAX_CONNECTIONS_EACH,
        paths="|".join(path.decode() for path in (*PATHS, *SHELF_PATHS)),
        verified_header=VERIFIED_HEADER.decode(),
        certificate_header=CERTIFICATE_HEADER.decode(),
        key_header=KEY_HEADER.decode(),
        key_variable=_variable(KEY_HEADER.decode()),
        path_header=PATH_HEADER.decode(),
        signature_headers=_passed(SIGNATURE_HEADERS),
        locations="\n".join(_location(path.decode(), config) for path in PATHS),
        shelf="\n".join(_shelf(path.decode(), config) for path in SHELF_PATHS),
    )


def _location(path: str, config: CoordinatorConfig) -> str:
    return _LOCATION.format(
        path=path,
        burst=int(config.requests_per_second * BURST_S),
        timeout_s=_REQUEST_TIMEOUT_S,
        headers=_passed(FORWARDED),
        hidden="\n".join(f"            proxy_hide_header {name};" for name in _HIDDEN),
    )


def _shelf(path: str, config: CoordinatorConfig) -> str:
    return _SHELF.format(
        path=path,
        burst=int(config.requests_per_second * BURST_S),
        timeout_s=_REQUEST_TIMEOUT_S,
        verified_header=VERIFIED_HEADER.decode(),
        certificate_header=CERTIFICATE_HEADER.decode(),
        key_header=KEY_HEADER.decode(),
        key_variable=_variable(KEY_HEADER.decode()),
    )


def _passed(headers: Iterable[bytes]) -> str:
    names = [name.decode() for name in headers]
    return "\n".join(f"            proxy_set_header {name} $http_{_variable(name)};" for name in names)


def _variable(header: str) -> str:
    return header.replace("-", "_")
