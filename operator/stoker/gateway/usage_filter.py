"""Envoy's part in counting tokens: a Lua filter that reads `usage` out of answers as they pass, without holding them back.

Tried on Envoy 1.40: json_to_metadata keeps a whole answer and turns one of more than the connection's buffer (1 MiB: a few hundred
embeddings) into a 500; sse_to_metadata is marked as work in progress and would need a filter beside it for what is hidden. In JSON
an unescaped `"usage":` cannot stand inside a text, so what a model says cannot be taken for it; of several the last counts.

Towards the engine it puts x-gw-add at the end of the body, such as stream_options.include_usage for a stream that did not ask; then
it takes the chunk that only tells usage out of the answer. Of an event that is cut in two the first part waits for the second.
"""

from __future__ import annotations

from stoker.gateway.ollama import COUNT_LUA

METADATA = "stoker.usage"
TOKENS = "tokens"
"""The place of the numbers in the metadata."""
LONGEST_TAIL = 256
"""Bytes at the end of a body in which its object ends, or nothing can be added to it: bodies that end later are refused."""
FIELDS = ("prompt", "completion", "cached", "reasoning")
"""Tokens, as they stand in the metadata and in the access log; cached is a part of prompt, reasoning one of completion."""

_COUNT = r"""
local LONGEST_USAGE, NEWLINE = 4096, 10

-- OpenAI's names, those of its Responses API, and Anthropic's, which counts what came from the cache apart.
local function take(usage, object)
  local told = {}
  -- All members in one pass, for each look from the beginning costs as much; of two with one name the first.
  for name, number in object:gmatch('"([%w_]+)"%s*:%s*(%d+)') do
    told[name] = told[name] or tonumber(number)
  end
  local read, input, total = told.cache_read_input_tokens, told.input_tokens, told.total_tokens
  usage.completion = told.completion_tokens or told.output_tokens or usage.completion
  usage.cached = read or told.cached_tokens or usage.cached
  usage.reasoning = told.reasoning_tokens or usage.reasoning
  if input then
    usage.prompt = input + (read or 0) + (told.cache_creation_input_tokens or 0)
  else
    usage.prompt = told.prompt_tokens or (total and total - (usage.completion or 0)) or usage.prompt
  end
end

-- Looks for usage in text; what is left over may be the beginning of more.
local function look(state, text)
  local from, found = 1, false
  while true do
    local at = text:find('"usage"', from, true)
    if not at then break end
    local object, after = text:match('^"usage"%s*:%s*(%b{})()', at)
    if object then
      if not state.stream then state.usage = {} end
      take(state.usage, object)
      found, from = true, after
    elseif #text - at < LONGEST_USAGE and text:match('^"usage"%s*:?%s*$', at) or text:match('^"usage"%s*:%s*{', at) then
      return found, text:sub(at, at + LONGEST_USAGE)
    else
      from = at + 7
    end
  end
  return found, text:match('"[usage]*$', math.max(from, #text - 6)) or ""
end

-- The text without events that only tell usage.
local function without_usage(text)
  local kept, from = {}, 1
  while from <= #text do
    local stop = text:match('\n\r?\n()', from) or #text + 1
    local event = text:sub(from, stop - 1)
    if not (event:find('"usage"%s*:%s*{') and event:find('"choices"%s*:%s*%[%s*%]')) then
      kept[#kept + 1] = event
    end
    from = stop
  end
  return table.concat(kept)
end

function envoy_on_response(handle)
  local headers = handle:headers()
  local kind = headers:get("content-type") or ""
  local stream = kind:find("text/event-stream", 1, true) == 1
  if headers:get(":status") ~= "200" or not (stream or kind:find("application/json", 1, true) == 1) then return end
  local told = stream and handle:streamInfo():dynamicMetadata():get("METADATA")
  local hide = told and told["hide"] == true
  local state, rest, waiting = {stream = stream, usage = {}}, "", ""
  for chunk in handle:bodyChunks() do
    local size = chunk:length()
    if size > 0 then
      local text = chunk:getBytes(0, size)
      if rest ~= "" or text:find('"usage', 1, true) then
        local found
        found, rest = look(state, rest .. text)
        if found then
          -- Asked for anew: such objects do not outlive a wait for the next chunk. All numbers in one call, for calls are dear.
          handle:streamInfo():dynamicMetadata():set("METADATA", "TOKENS", state.usage)
        end
      elseif text:byte(-1) ~= NEWLINE then
        -- Events end with an empty line, so this is one that is cut in two, or a plain answer.
        rest = text:match('"[usage]*$', -6) or ""
      end
      if hide then
        local whole = waiting .. text
        local ready, held = whole, ""
        local last, before = whole:byte(-1), whole:byte(-2)
        if last ~= NEWLINE or not (before == NEWLINE or before == 13 and whole:byte(-3) == NEWLINE) then
          local stop = whole:match("^.*\n\r?\n()") or 1
          -- Only what may become an event with usage waits; a comment or [DONE] goes on as it comes.
          if whole:find('^data:%s*{', stop) or whole:find('^d?a?t?a?:?%s*$', stop) then
            ready, held = whole:sub(1, stop - 1), whole:sub(stop)
          end
        end
        if ready:find('"usage"', 1, true) then ready = without_usage(ready) end
        waiting = held
        if ready ~= text then chunk:setBytes(ready) end
      end
    end
  end
end
"""

_ADD = r"""
function envoy_on_request(handle)
  local more = handle:headers():get("x-gw-add")
  if not more then return end
  handle:headers():remove("x-gw-add")
  local body = handle:body()
  if not body then return end
  local size = body:length()
  local tail = math.min(size, LONGEST_TAIL)
  local close = body:getBytes(size - tail, tail):match("^.*()}%s*$")
  if not close then return end
  body:setBytes(body:getBytes(0, size - tail + close - 1) .. "," .. more .. "}")
  if more:find('"stream_options"', 1, true) then
    handle:streamInfo():dynamicMetadata():set("METADATA", "hide", true)
  end
end
"""


def _named(source: str) -> str:
    # Without LuaJIT's compiler: such short runs through calls that it cannot compile cost Envoy 9 µs a request with it, for nothing.
    return "jit.off()\n" + source.replace("METADATA", METADATA).replace("TOKENS", TOKENS).replace(
        "LONGEST_TAIL", str(LONGEST_TAIL)
    )


COUNT = "count"
ADD_AND_COUNT = "add"
OLLAMA = "ollama"
SOURCES = {COUNT: _named(_COUNT), ADD_AND_COUNT: _named(_ADD + _COUNT), OLLAMA: _named(_ADD + COUNT_LUA)}
"""By name, as routes choose them: a request to which nothing is added must not pay for a function that looks."""
