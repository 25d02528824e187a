"""Runs inside Open WebUI's own environment: what its sign-on makes of somebody's claims. JSON in: [[environment, id_token, userinfo], …]; out: roles and groups."""

import asyncio
import json
import sys
from types import SimpleNamespace
from typing import Any


async def main() -> None:
    from open_webui.utils import oauth

    manager = object.__new__(oauth.OAuthManager)

    async def others() -> int:
        return 5

    oauth.Users.get_num_users = others
    results = []
    for environment, id_token, userinfo in json.load(sys.stdin):
        config = settings(environment)

        async def runtime_config(config: SimpleNamespace = config) -> SimpleNamespace:
            return config

        oauth.get_oauth_runtime_config = runtime_config
        # As its callback does: userinfo is asked where the ID token lacks the address or the name.
        claims = id_token
        if config.OAUTH_EMAIL_CLAIM not in id_token or "name" not in id_token:
            claims = {**id_token, **userinfo}
        try:
            role = await manager.get_user_role(None, claims)
        except oauth.HTTPException:
            role = "refused"
        groups = oauth._get_claim(claims, config.OAUTH_GROUPS_CLAIM)
        results.append([claims.get(config.OAUTH_EMAIL_CLAIM), role, groups])
    print("RESULTS" + json.dumps(results))


def settings(environment: dict[str, Any]) -> SimpleNamespace:
    lists = ("OAUTH_ALLOWED_ROLES", "OAUTH_ADMIN_ROLES")
    split = {name: [role for role in environment[name].split(",") if role] for name in lists}
    return SimpleNamespace(**{**environment, **split, "ENABLE_OAUTH_ROLE_MANAGEMENT": True})


asyncio.run(main())
