"""Settings of programs, ready to be copied or saved: the files of the gateway's ConfigMap, with the models that somebody may use."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from stoker.desired.client_files import KEY_VARIABLE
from stoker.portal.rendering import build_files, render, require_session, visible_models


@dataclass(frozen=True)
class Tool:
    """A program, and what to do with its file."""

    file: str
    name: str
    hint: str


TOOLS = (
    Tool("opencode.json", "opencode", "Save it as opencode.json in your project, or in ~/.config/opencode/."),
    Tool(
        "continue.yaml",
        "Continue",
        "Save it as ~/.continue/config.yaml, or start the command line with: cn --config continue.yaml",
    ),
    Tool("curl.sh", "curl", "Run it in a terminal."),
    Tool("python.py", "Python", "With the openai package: pip install openai"),
    Tool("langchain.py", "LangChain", "With the langchain-openai package: pip install langchain-openai"),
)


async def show_tools(request: web.Request) -> web.StreamResponse:
    """All of them on one page."""
    session, config = await require_session(request)
    models = visible_models(request, session, config)
    files = build_files(request, config, models)
    return await render(request, "tools.html", tools=TOOLS, files=files, variable=KEY_VARIABLE, models=models)


async def download_file(request: web.Request) -> web.StreamResponse:
    """One of them, to be saved."""
    session, config = await require_session(request)
    name = request.match_info["file"]
    text = build_files(request, config, visible_models(request, session, config)).get(name)
    if text is None:
        raise web.HTTPNotFound
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return web.Response(text=text, content_type="text/plain", charset="utf-8", headers=headers)


ROUTES = [web.get("/portal/tools", show_tools), web.get("/portal/tools/{file}", download_file)]
