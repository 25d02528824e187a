"""Envoy's access logs: a line a request, in a file for what an engine has served, else on standard output."""

from __future__ import annotations

from stoker.gateway import access_log
from stoker.gateway.envoy.parts import EXT_AUTHZ, Document, extension
from stoker.gateway.settings import Settings
from stoker.gateway.usage_filter import METADATA, TOKENS


def access_logs(settings: Settings) -> list[Document]:
    """One JSON line a request: never a header, query or body of the client, only names and numbers.

    What was sent to an engine goes into a file, by which in-flight requests and usage are counted (see access_log) and from which
    the relay passes it on to people (see served): a second line of Envoy's own would cost nine microseconds. What strangers send
    leaves nothing there, and stands on Envoy's standard output.
    """
    fields = {
        "time": "%START_TIME%",
        "request_id": "%REQ(X-REQUEST-ID):64%",
        "method": "%REQ(:METHOD)%",
        "path": "%PATH(NQ:PATH:256)%",
        "code": "%RESPONSE_CODE%",
        "flags": "%RESPONSE_FLAGS%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "type": "%RESP(CONTENT-TYPE):40%",
        # Whole, and taken apart where it is read (endings.parse_lines): each field of metadata that Envoy looks up costs a line over
        # a microsecond.
        "said": f"%DYNAMIC_METADATA({EXT_AUTHZ})%",
        "tokens": f"%DYNAMIC_METADATA({METADATA}:{TOKENS})%",
        "ms": "%DURATION%",
        "first_byte_ms": "%RESPONSE_DURATION%",
        "bytes_in": "%BYTES_RECEIVED%",
        "bytes_out": "%BYTES_SENT%",
        "upstream": "%UPSTREAM_HOST%",
        "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
        "protocol": "%PROTOCOL%",
    }
    log_format = {"json_format": fields, "omit_empty_values": True}
    file = extension(
        "envoy.access_loggers.file",
        "access_loggers.file.v3.FileAccessLog",
        path=str(settings.log / access_log.CURRENT),
        log_format=log_format,
    )
    stdout = extension("envoy.access_loggers.stdout", "access_loggers.stream.v3.StdoutAccessLog", log_format=log_format)
    # There is no filter that turns another round: no ticket says "-", and without one it matches.
    return [
        {**stdout, "filter": _by_ticket({"string_match": {"exact": "-"}}, otherwise=True)},
        {**file, "filter": _by_ticket({"present_match": True}, otherwise=False)},
    ]


def _by_ticket(match: Document, *, otherwise: bool) -> Document:
    """Whatever goes to an engine has one, and nothing else."""
    matcher = {"filter": EXT_AUTHZ, "path": [{"key": "x-gw-ticket"}], "value": match}
    return {"metadata_filter": {"matcher": matcher, "match_if_key_not_found": otherwise}}
