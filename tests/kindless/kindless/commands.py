"""The command line: the part of `kind` that pytest-kind and people use."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from . import kubeconfig
from .cleanup import destroy, sweep
from .cluster import PortMapping, check_name, find_cluster, list_clusters, read_cluster
from .create import Wish, create
from .errors import KindlessError
from .images import import_archive, load_local_image
from .node import run_control_plane, run_node
from .preflight import find_problems
from .progress import interrupt_on_termination, say
from .tools import KUBERNETES

INSIDE = {"_node": run_node, "_control-plane": run_control_plane}


def main() -> None:
    if len(sys.argv) == 3 and sys.argv[1] in INSIDE:
        INSIDE[sys.argv[1]](sys.argv[2])
    arguments = build_parser().parse_args()
    interrupt_on_termination()
    try:
        arguments.run(arguments)
    except KindlessError as error:
        sys.exit(f"ERROR: {error}")
    except KeyboardInterrupt:
        sys.exit("ERROR: interrupted")


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kind", description="Kubernetes clusters without Docker, compatible with kind."
    )
    verbs = parser.add_subparsers(metavar="COMMAND", required=True)

    group = verbs.add_parser("create", help="make a cluster").add_subparsers(required=True)
    command = leaf(group, "cluster", create_cluster)
    command.add_argument("--config", help="a kind Cluster file (or - for stdin); extraPortMappings are used")
    command.add_argument("--image", help="accepted and ignored: the version is built in")
    command.add_argument("--wait", default="", help="accepted and ignored: create always waits until the node is Ready")
    command.add_argument("--retain", action="store_true", help="keep what is there when creation fails")
    command.add_argument("--quiet", "-q", action="store_true")
    command.add_argument(
        "--control-plane-only", action="store_true", help="API server and controllers, no node; needs no root"
    )
    command.add_argument("--kwok-nodes", type=int, default=0, metavar="N", help="add N simulated nodes")
    command.add_argument(
        "--kwok-capacity", action="append", default=[], metavar="RESOURCE=QUANTITY", help="of each simulated node"
    )
    with_kubeconfig(command)

    group = verbs.add_parser("delete", help="remove clusters").add_subparsers(required=True)
    with_kubeconfig(leaf(group, "cluster", delete_cluster))
    command = leaf(group, "clusters", delete_clusters, named=False)
    command.add_argument("names", nargs="*")
    command.add_argument("--all", "-A", action="store_true")
    with_kubeconfig(command)

    group = verbs.add_parser("get", help="show clusters, nodes, kubeconfig").add_subparsers(required=True)
    leaf(group, "clusters", get_clusters, named=False)
    leaf(group, "nodes", get_nodes)
    leaf(group, "kubeconfig", get_kubeconfig)

    group = verbs.add_parser("export", help="write the kubeconfig again").add_subparsers(required=True)
    with_kubeconfig(leaf(group, "kubeconfig", export_kubeconfig))

    group = verbs.add_parser("load", help="give images to the node").add_subparsers(required=True)
    leaf(group, "docker-image", load_images).add_argument("images", nargs="+")
    leaf(group, "image-archive", load_archives).add_argument("archives", nargs="+")

    verbs.add_parser("preflight", help="install packages; say what the machine lacks").set_defaults(run=preflight)
    verbs.add_parser("version").set_defaults(run=show_version)
    return parser


def leaf(group: Any, name: str, run: Any, named: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = group.add_parser(name)
    parser.set_defaults(run=run)
    if named:
        parser.add_argument("--name", "-n", default=os.environ.get("KIND_CLUSTER_NAME") or "kind")
    return parser


def with_kubeconfig(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kubeconfig", default="", help="default: $KUBECONFIG or ~/.kube/config")


def chosen_kubeconfig(arguments: argparse.Namespace) -> Path:
    return Path(arguments.kubeconfig) if arguments.kubeconfig else kubeconfig.default_path()


def create_cluster(arguments: argparse.Namespace) -> None:
    capacity = dict(pair.partition("=")[::2] for pair in arguments.kwok_capacity)
    wish = Wish(
        name=arguments.name,
        kubeconfig=chosen_kubeconfig(arguments),
        control_plane_only=arguments.control_plane_only,
        port_mappings=read_port_mappings(arguments.config) if arguments.config else (),
        kwok_nodes=arguments.kwok_nodes,
        kwok_capacity=capacity,
        retain=arguments.retain,
        quiet=arguments.quiet,
    )
    create(wish)
    if not arguments.quiet:
        say(f'Set kubectl context to "kind-{arguments.name}"')


def read_port_mappings(path: str) -> list[PortMapping]:
    text = sys.stdin.read() if path == "-" else Path(path).read_text()
    nodes = parse_config(text).get("nodes") or [{}]
    if len(nodes) > 1:
        raise KindlessError(f"{path}: there is one node here; add simulated ones with --kwok-nodes")
    if unsupported := sorted(set(nodes[0]) - {"role", "image", "extraPortMappings"}):
        raise KindlessError(f"{path}: not supported without Docker: nodes[0].{unsupported[0]}")
    mappings = []
    for entry in nodes[0].get("extraPortMappings") or []:
        if str(entry.get("protocol", "TCP")).upper() != "TCP":
            raise KindlessError(f"{path}: extraPortMappings can forward TCP only")
        mappings.append(PortMapping(entry.get("listenAddress", "127.0.0.1"), entry["hostPort"], entry["containerPort"]))
    return mappings


def parse_config(text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text))
    except ValueError:
        pass
    try:
        import yaml
    except ImportError:
        raise KindlessError(f"--config in YAML needs PyYAML for {sys.executable}; or write the file as JSON") from None
    return dict(yaml.safe_load(text) or {})


def delete_cluster(arguments: argparse.Namespace) -> None:
    say(f'Deleting cluster "{arguments.name}" ...')
    delete(arguments.name, chosen_kubeconfig(arguments))
    sweep()


def delete(name: str, path: Path) -> None:
    check_name(name)
    cluster = find_cluster(name)
    if cluster:
        destroy(cluster)
    kubeconfig.remove_entries(name, path)


def delete_clusters(arguments: argparse.Namespace) -> None:
    names = [cluster.name for cluster in list_clusters()] if arguments.all else arguments.names
    for name in names:
        delete(name, chosen_kubeconfig(arguments))
    sweep()
    say(f"Deleted clusters: {json.dumps(names)}")


def get_clusters(_: argparse.Namespace) -> None:
    clusters = [cluster for cluster in list_clusters() if not cluster.dead]
    if not clusters:
        say("No kind clusters found.")
    for cluster in clusters:
        print(cluster.name)


def get_nodes(arguments: argparse.Namespace) -> None:
    cluster = read_cluster(arguments.name)
    if not cluster.control_plane_only:
        print(cluster.node_name)


def get_kubeconfig(arguments: argparse.Namespace) -> None:
    print(read_cluster(arguments.name).admin_kubeconfig.read_text())


def export_kubeconfig(arguments: argparse.Namespace) -> None:
    kubeconfig.add_entries(read_cluster(arguments.name), chosen_kubeconfig(arguments))
    say(f'Set kubectl context to "kind-{arguments.name}"')


def load_images(arguments: argparse.Namespace) -> None:
    cluster = read_cluster(arguments.name)
    for image in arguments.images:
        load_local_image(cluster, image)


def load_archives(arguments: argparse.Namespace) -> None:
    cluster = read_cluster(arguments.name)
    for archive in arguments.archives:
        import_archive(cluster, Path(archive))


def preflight(_: argparse.Namespace) -> None:
    problems = find_problems()
    for problem in problems:
        print(problem)
    sys.exit(1 if problems else 0)


def show_version(_: argparse.Namespace) -> None:
    print(f"kind v0.0.0-kindless (no container engine) kubernetes v{KUBERNETES}")
