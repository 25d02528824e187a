{{/* Written by `make generate` from operator/stoker/codegen/rbac.py; do not edit. */}}
{{- define "stoker.rules.namespaced" -}}
# Stoker's kinds: read them.
- apiGroups: ["stoker.dev"]
  resources: ["inferenceengines", "modeldeployments", "apigateways", "apikeys"]
  verbs: ["get", "list", "watch"]
# Stoker's kinds: report on them.
- apiGroups: ["stoker.dev"]
  resources: ["inferenceengines/status", "modeldeployments/status", "apigateways/status", "apikeys/status"]
  verbs: ["get", "patch", "update"]
# The <gateway>-admin key.
- apiGroups: ["stoker.dev"]
  resources: ["apikeys"]
  verbs: ["create", "patch", "delete"]
# Children: engines, gateways, and what of a gateway has a volume.
- apiGroups: ["apps"]
  resources: ["deployments", "statefulsets"]
  verbs: ["get", "list", "watch", "create", "patch", "delete"]
# Children: addresses, identities, weight caches, configuration files of engines; chat templates are read by name.
- apiGroups: [""]
  resources: ["services", "serviceaccounts", "persistentvolumeclaims", "configmaps"]
  verbs: ["get", "list", "watch", "create", "patch", "delete"]
# Children: who may reach engines and gateways.
- apiGroups: ["networking.k8s.io"]
  resources: ["networkpolicies"]
  verbs: ["get", "list", "watch", "create", "patch", "delete"]
# Children: host names that lead to gateways.
- apiGroups: ["networking.k8s.io"]
  resources: ["ingresses"]
  verbs: ["get", "list", "watch", "create", "patch", "delete"]
# Children: host names that lead to gateways, in clusters with the Gateway API; never watched.
- apiGroups: ["gateway.networking.k8s.io"]
  resources: ["httproutes"]
  verbs: ["get", "create", "patch", "delete"]
# Children: gateways stay up while nodes are drained.
- apiGroups: ["policy"]
  resources: ["poddisruptionbudgets"]
  verbs: ["get", "list", "watch", "create", "patch", "delete"]
# Children: what a gateway's policy service may read.
- apiGroups: ["rbac.authorization.k8s.io"]
  resources: ["roles", "rolebindings"]
  verbs: ["get", "list", "watch", "create", "patch", "delete"]
# Granted to gateways (nobody can grant what they do not hold): the endpoints of models.
- apiGroups: ["discovery.k8s.io"]
  resources: ["endpointslices"]
  verbs: ["get", "list", "watch"]
# Generated keys, gateway configuration, source tokens: by name, never listed; update guards rotations against races.
- apiGroups: [""]
  resources: ["secrets"]
  verbs: ["get", "create", "update", "patch", "delete"]
# Granted to gateways, for their own configuration Secrets by name; the operator itself does not use it.
- apiGroups: [""]
  resources: ["secrets"]
  verbs: ["list", "watch"]
# Pods: why they do not start, how far downloads are; patch takes one out of routing.
- apiGroups: [""]
  resources: ["pods"]
  verbs: ["get", "list", "watch", "patch"]
# What an engine said before it ended, where its last words point further back.
- apiGroups: [""]
  resources: ["pods/log"]
  verbs: ["get"]
# Events on Stoker's kinds.
- apiGroups: [""]
  resources: ["events"]
  verbs: ["create", "patch"]
- apiGroups: ["events.k8s.io"]
  resources: ["events"]
  verbs: ["create", "patch"]
{{- end }}
{{- define "stoker.rules.cluster" -}}
# Whether a node offers the accelerator; which namespaces a selector means.
- apiGroups: [""]
  resources: ["nodes", "namespaces"]
  verbs: ["get", "list", "watch"]
# How large the devices of dynamic resource allocation are, where the cluster knows them.
- apiGroups: ["resource.k8s.io"]
  resources: ["resourceslices"]
  verbs: ["get", "list", "watch"]
# Framework: notices that the kinds are installed or changed.
- apiGroups: ["apiextensions.k8s.io"]
  resources: ["customresourcedefinitions"]
  verbs: ["get", "list", "watch"]
{{- end }}
{{- define "stoker.rules.ownNamespace" -}}
# Leader election.
- apiGroups: ["coordination.k8s.io"]
  resources: ["leases"]
  verbs: ["get", "create", "patch", "update"]
{{- end }}
{{- define "stoker.rules.view" -}}
# Joined to the built-in view role.
- apiGroups: ["stoker.dev"]
  resources: ["inferenceengines", "modeldeployments", "apigateways", "apikeys"]
  verbs: ["get", "list", "watch"]
- apiGroups: ["stoker.dev"]
  resources: ["modeldeployments/scale"]
  verbs: ["get"]
{{- end }}
{{- define "stoker.rules.edit" -}}
# Joined to the built-in edit and admin roles.
- apiGroups: ["stoker.dev"]
  resources: ["inferenceengines", "modeldeployments", "apigateways", "apikeys"]
  verbs: ["create", "update", "patch", "delete", "deletecollection"]
- apiGroups: ["stoker.dev"]
  resources: ["modeldeployments/scale"]
  verbs: ["update", "patch"]
{{- end }}
