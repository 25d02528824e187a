"""Ollama's own shape of the API: what its requests may say, how its list of models looks, and where its answers tell tokens. Pure.

An engine is shared, and Ollama lets each request change it for all: another context or another division among devices makes it load
the model anew, and a request can have it unloaded. That is the ModelDeployment's matter, so requests that try are refused, and how
long the model stays is written over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from stoker.gateway.openai_errors import ApiProblem, bad_body, max_tokens_refused
from stoker.gateway.table import Model

CHAT_PATH = "/api/chat"
GENERATE_PATH = "/api/generate"
TAGS_PATH = "/api/tags"

ENGINES_OWN = frozenset(
    {
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "use_mmap",
        "use_mlock",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "numa",
    }
)
"""Members of `options` for which Ollama loads a model anew: api.Runner of its source, and what earlier versions had there."""
READ_HERE = frozenset({"model", "options", "keep_alive", "stream"})
LIMIT = "num_predict"
STAYS = -1
"""As keep_alive: for good, as the engine is started (OLLAMA_KEEP_ALIVE)."""


def check_members(document: Mapping[str, Any], *, options_twice: bool = False) -> ApiProblem | None:
    """What a request may not say; None when it says nothing of the kind."""
    for name in document:
        # Go's parser takes a member for another one that is written differently.
        if name not in READ_HERE and name.casefold() in READ_HERE:
            return bad_body(f"Write `{name.casefold()}` in lower case.", "invalid_body", name.casefold())
    if options_twice:
        # Ollama would take what both say together, also what the second does not take back.
        return bad_body("Write `options` once.", "invalid_body", "options")
    options = document.get("options")
    if options is None:
        return None
    if not isinstance(options, dict):
        return bad_body("`options` must be an object.", "invalid_body", "options")
    if taken := sorted(ENGINES_OWN & options.keys()):
        return bad_body(
            f"`options.{taken[0]}` would load the model anew for everybody; leave it out. Its context and devices are set where it is "
            "deployed (ModelDeployment).",
            "unsupported_option",
            f"options.{taken[0]}",
        )
    return None


def check_limit(document: Mapping[str, Any], limit: int) -> ApiProblem | None:
    """Why the request asks for too many tokens; None when it does not, or does not say."""
    value = (document.get("options") or {}).get(LIMIT)
    if value is None or (isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= limit):
        return None
    return max_tokens_refused(f"options.{LIMIT}", value, limit, 1)


def more_members(document: Mapping[str, Any], max_tokens: int) -> dict[str, object]:
    """What is put at the end of the request's object, where it counts instead of what stands before."""
    more: dict[str, object] = {}
    if "keep_alive" in document:
        more["keep_alive"] = STAYS
    options = document.get("options") or {}
    if max_tokens and options.get(LIMIT) is None:
        more["options"] = {**options, LIMIT: max_tokens}
    return more


def describe_tags(models: Iterable[tuple[str, Model]]) -> dict[str, object]:
    """The list of models that can be asked in this shape; sizes and digests are the engines' matter."""
    found: list[dict[str, object]] = []
    for name, model in models:
        if CHAT_PATH in model.paths or GENERATE_PATH in model.paths:
            modified = datetime.fromtimestamp(model.created, UTC).isoformat().replace("+00:00", "Z")
            details = {"format": "", "family": "", "families": [], "parameter_size": "", "quantization_level": ""}
            entry = {"name": name, "model": name, "modified_at": modified, "size": 0, "digest": "", "details": details}
            found.append(entry)
    return {"models": found}


COUNT_LUA = r"""
function envoy_on_response(handle)
  local headers = handle:headers()
  local kind = headers:get("content-type") or ""
  if headers:get(":status") ~= "200" then return end
  if kind:find("application/x-ndjson", 1, true) ~= 1 and kind:find("application/json", 1, true) ~= 1 then return end
  local usage, rest = {}, ""
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      local text = rest .. chunk:getBytes(0, size)
      if text:find('eval_count"', 1, true) then
        -- They stand at the end of the last object, behind whatever the model said: the last ones count.
        for name, count in text:gmatch('"([%a_]+)"%s*:%s*(%d+)') do
          if name == "prompt_eval_count" then usage.prompt = tonumber(count) end
          if name == "eval_count" then usage.completion = tonumber(count) end
        end
        handle:streamInfo():dynamicMetadata():set("METADATA", "TOKENS", usage)
      end
      rest = text:sub(-64)
    end
  end
end
"""
"""Beside the filter that reads OpenAI's form (usage_filter), for answers that are one object a line."""
