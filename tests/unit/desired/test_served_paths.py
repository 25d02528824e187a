from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from stoker.api.model_deployment import Task
from stoker.desired.served_paths import BASIC_PATHS, FURTHER_PATHS, served_paths
from stoker.gateway.endpoints import ENDPOINTS, PATHS_BY_TASK

DOCS = Path(__file__).parents[3] / "docs" / "gateway.md"


def test_every_task_opens_something_on_every_engine() -> None:
    for task in get_args(Task):
        for engine in ("LlamaCpp", "", *FURTHER_PATHS):
            assert set(served_paths(engine, task)) >= set(BASIC_PATHS[task])


def test_the_gateway_knows_every_path_that_it_may_be_told_to_open() -> None:
    told = {path for task in BASIC_PATHS for engine in FURTHER_PATHS for path in served_paths(engine, task)}
    assert told == set(ENDPOINTS)


def test_a_gateway_that_is_told_nothing_opens_what_every_engine_serves() -> None:
    for task, paths in PATHS_BY_TASK.items():
        assert paths == set(served_paths("", task))


def test_llama_cpp_opens_what_its_build_answers() -> None:
    assert served_paths("LlamaCpp", "Chat") == [
        "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens", "/tokenize",
        "/detokenize",
    ]  # fmt: skip
    assert served_paths("LlamaCpp", "Embedding") == ["/v1/embeddings", "/tokenize", "/detokenize"]


def test_the_table_in_the_docs_says_which_models_serve_a_path() -> None:
    told: dict[str, tuple[set[str], set[str]]] = {}
    for paths, tasks, engines in re.findall(r"^\| `POST (.+?) \| (.+?) \| (.+?) \|$", DOCS.read_text(), re.MULTILINE):
        for path in re.findall(r"/[a-z0-9_/]+", paths):
            told[path] = (set(re.findall(r"[A-Z]\w+", tasks)), set(re.findall(r"[A-Z]\w+", engines)))
    served: dict[str, tuple[set[str], set[str]]] = {path: (set(), set()) for path in ENDPOINTS}
    for engine, by_task in FURTHER_PATHS.items():
        for task, paths in by_task.items():
            for path in paths:
                served[path][0].add(task)
                served[path][1].add(engine)
    for task, paths in BASIC_PATHS.items():
        for path in paths:
            served[path][0].add(task)
            # "all", or all that have the task.
            served[path][1].clear()
    assert told == served
