"""What Open WebUI itself makes of people from Keycloak, Authentik and Authelia, with the environment that Stoker renders."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from unit.identity_shapes import EMAIL, KEYCLOAK_AS_IT_COMES, KEYCLOAK_USERINFO_ONLY, SHAPES

from stoker.api import ApiGateway
from stoker.desired.web_ui_env import build_env

UNSEEN = (KEYCLOAK_AS_IT_COMES, KEYCLOAK_USERINFO_ONLY)
"""Open WebUI looks into the ID token, and asks userinfo only where that lacks the address: so everybody waits, and docs/web-ui.md says what to switch on."""


def test_people_of_the_three_products_become_what_roles_say(program: Path, tmp_path: Path) -> None:
    cases = []
    for shape in (*SHAPES, *UNSEEN):
        spec = {"webUI": {"url": "https://chat.example.com"}, "auth": {"oidc": shape.oidc()}}
        gateway = ApiGateway.model_validate({"metadata": {"name": "gateway", "namespace": "team-a"}, "spec": spec})
        assert gateway.spec.web_ui
        environment = {entry["name"]: entry.get("value") for entry in build_env(gateway, gateway.spec.web_ui)}
        nobody = {**shape.id_token, "realm_access": {"roles": ["x"]}, "resource_access": {}, "groups": ["x"], "roles": ["x"]}  # fmt: skip
        cases += [
            (environment, shape.id_token, shape.userinfo),
            (environment, nobody, {name: nobody.get(name, value) for name, value in shape.userinfo.items()}),
        ]
    done = subprocess.run(
        # Not from the script's folder, which has an open_webui of its own.
        [program.with_name("python"), "-P", Path(__file__).with_name("shapes_check.py")],
        input=json.dumps(cases),
        env={
            **{name: value for name, value in cases[0][0].items() if value is not None},
            "PATH": os.environ["PATH"],
            "DATA_DIR": str(tmp_path),
            "HOME": str(tmp_path),
            "STATIC_DIR": str(tmp_path / "static"),
            "WEBUI_SECRET_KEY": "x",
            # As its own program sets it: otherwise it looks for a checkout.
            "FROM_INIT_PY": "true",
        },
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    results = json.loads(done.stdout.rpartition("RESULTS")[2])
    for shape, (email, role, groups), (_, other, _) in zip(SHAPES, results[::2], results[1::2], strict=False):
        assert (email, role) == (EMAIL, "admin"), shape
        assert other in ("refused", "pending"), shape
        assert groups == (shape.userinfo | shape.id_token).get("groups"), shape
    assert [role for _, role, _ in results[2 * len(SHAPES) :: 2]] == ["pending", "pending"]
