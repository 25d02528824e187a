"""``kubectl stoker`` against a gateway that answers."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from e2e.client import Service
from e2e.kube import Kube

PROGRAM = os.path.join(os.path.dirname(sys.executable), "kubectl-stoker")


def stoker(kube: Kube, service: Service, *arguments: str) -> str:
    environment = {**os.environ, "KUBECONFIG": str(kube.cluster.kubeconfig_path), "STOKER_API_KEY": service.gateway.key}
    where = ["--namespace", service.namespace, "--gateway", "gateway", "--url", service.gateway.url]
    done = subprocess.run([PROGRAM, *arguments, *where], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_question_is_answered_and_counted(kube: Kube, service: Service) -> None:
    assert stoker(kube, service, "ask", "smollm2", "Say hello.").strip()
    table = stoker(kube, service, "usage", "--by", "model").splitlines()
    assert table[0].split()[:2] == ["MODEL", "REQUESTS"]
    assert table[-1].startswith("total")


def test_a_model_that_is_not_there_is_told_in_the_gateways_words(kube: Kube, service: Service) -> None:
    with pytest.raises(AssertionError, match="`nowhere` does not exist"):
        stoker(kube, service, "ask", "nowhere", "Say hello.")
