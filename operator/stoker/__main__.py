"""``stoker ROLE``: one image, several processes; a role's code is imported only when it is asked for."""

from __future__ import annotations

import importlib
import sys

from stoker import __version__
from stoker.environment import NotConfigured

ROLES = {
    "operator": ("stoker.main", "reconciles Stoker's resources in a cluster"),
    "gateway": ("stoker.gateway.main", "policy service and answer relay beside Envoy, in an ApiGateway's pods"),
    "portal": ("stoker.portal.main", "pages where people see their models and make their own keys"),
    "usage": ("stoker.usage.main", "collects, keeps and tells what an ApiGateway's callers have used"),
    "agent": ("stoker.agent.main", "metrics, readiness and drain beside an engine, in a ModelDeployment's pods"),
    "fetch": ("stoker.fetch.main", "downloads weights into the cache, in a ModelDeployment's pods"),
}

USAGE = (
    "usage: stoker ROLE\n\n"
    + "\n".join(f"  {role:<9} {what}" for role, (_, what) in ROLES.items())
    + "\n\nA role takes no arguments: its settings come from the environment.\n"
)


def main() -> int:
    """Run the role named by the argument; 2 where there is no such role, or it is not told what it needs."""
    arguments = sys.argv[1:]
    if arguments[:1] in (["-h"], ["--help"]):
        sys.stdout.write(USAGE)
        return 0
    if arguments[:1] == ["--version"]:
        sys.stdout.write(f"stoker {__version__}\n")
        return 0
    if len(arguments) != 1 or arguments[0] not in ROLES:
        sys.stderr.write(USAGE)
        return 2
    (role,) = arguments
    module, _ = ROLES[role]
    try:
        result: int = importlib.import_module(module).main()
    except NotConfigured as error:
        sys.stderr.write(f"stoker {role}: {error}\n")
        return 2
    return result


if __name__ == "__main__":
    sys.exit(main())
