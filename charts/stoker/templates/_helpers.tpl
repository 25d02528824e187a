{{/* Prefix of names: the release, and "stoker" where the release is called otherwise. */}}
{{- define "stoker.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- define "stoker.operator" -}}
{{ include "stoker.fullname" . }}-operator
{{- end }}

{{- define "stoker.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "stoker.operator" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name is needed where serviceAccount.create is false" .Values.serviceAccount.name -}}
{{- end -}}
{{- end }}

{{/* A minimal, unchanging subset: selectors of Deployments cannot be changed. */}}
{{- define "stoker.selectorLabels" -}}
app.kubernetes.io/name: stoker
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "stoker.labels" -}}
{{ include "stoker.selectorLabels" . }}
app.kubernetes.io/part-of: stoker
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* registry/repository:tag or @digest; takes a dict of image and tag. */}}
{{- define "stoker.imageReference" -}}
{{- $name := .image.repository -}}
{{- if .image.registry -}}{{- $name = printf "%s/%s" (trimSuffix "/" .image.registry) .image.repository -}}{{- end -}}
{{- if .image.digest -}}{{ $name }}@{{ .image.digest }}{{- else -}}{{ $name }}:{{ .tag }}{{- end -}}
{{- end }}

{{- define "stoker.image" -}}
{{ include "stoker.imageReference" (dict "image" .Values.image "tag" (default .Chart.AppVersion .Values.image.tag)) }}
{{- end }}

{{- define "stoker.webUIImage" -}}
{{ include "stoker.imageReference" (dict "image" .Values.webUI.image "tag" .Values.webUI.image.tag) }}
{{- end }}

{{- define "stoker.envoyImage" -}}
{{ include "stoker.imageReference" (dict "image" .Values.envoy.image "tag" .Values.envoy.image.tag) }}
{{- end }}
