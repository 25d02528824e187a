"""Envoy's access logs: a line a request for people, the same in a file for what counts, and the numbers for Prometheus."""

from __future__ import annotations

from stoker.gateway import access_log
from stoker.gateway.decision import ALLOWED
from stoker.gateway.envoy.parts import EXT_AUTHZ, Document, extension
from stoker.gateway.envoy.stats import stats_log
from stoker.gateway.settings import Settings
from stoker.gateway.usage_filter import METADATA, TOKENS


def access_logs(settings: Settings) -> list[Document]:
    """One JSON line a request: never a header, query or body of the client, only names and numbers.

    All on standard output, for people; what was sent to an engine in a file, too, by which in-flight requests and usage are counted
    (see access_log). What strangers send leaves nothing there.
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
        # Whole, and taken apart where it is read (endings.parse_lines): each field of metadata that Envoy looks up costs over a
        # microsecond, and a line had a dozen of them, twice.
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
    sent_to_engine = {
        "metadata_filter": {
            "matcher": {
                "filter": EXT_AUTHZ,
                "path": [{"key": "x-gw-reason"}],
                "value": {"string_match": {"exact": ALLOWED}},
            },
            "match_if_key_not_found": False,
        }
    }
    file = extension(
        "envoy.access_loggers.file",
        "access_loggers.file.v3.FileAccessLog",
        path=str(settings.log / access_log.CURRENT),
        log_format=log_format,
    )
    stdout = extension("envoy.access_loggers.stdout", "access_loggers.stream.v3.StdoutAccessLog", log_format=log_format)
    counted = stats_log(
        f"%DYNAMIC_METADATA({EXT_AUTHZ}:x-gw-model)%",
        {name: f"%DYNAMIC_METADATA({METADATA}:{TOKENS}:{name})%" for name in ("prompt", "completion")},
        sent_to_engine,
    )
    return [stdout, {**file, "filter": sent_to_engine}, counted]
