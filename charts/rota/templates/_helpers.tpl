{{- define "rota.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters, so that `-operator` and what Kubernetes appends still fit a label. */}}
{{- define "rota.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := include "rota.name" . -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What selectors use; never changes in the life of a release. Called with a list: context, component. */}}
{{- define "rota.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: rota
app.kubernetes.io/instance: {{ $context.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "rota.labels" -}}
{{- $context := index . 0 -}}
{{ include "rota.selector" . }}
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version | replace "+" "_" }}
{{- with $context.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Called with a list: context, values of the image. */}}
{{- define "rota.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 0).Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "rota.server.account" -}}
{{- default (printf "%s-server" (include "rota.fullname" .)) .Values.server.serviceAccount.name -}}
{{- end -}}

{{- define "rota.operator.account" -}}
{{- default (printf "%s-operator" (include "rota.fullname" .)) .Values.operator.serviceAccount.name -}}
{{- end -}}

{{- define "rota.endpoint" -}}
https://{{ include "rota.fullname" . }}.{{ .Release.Namespace }}.svc:7420
{{- end -}}

{{/* What the operator may do where agents and tasks are. */}}
{{- define "rota.operator.rules" -}}
- apiGroups: [rota.dev]
  resources: [agents]
  verbs: [get, list, watch]
# A task's resource goes by its TTL.
- apiGroups: [rota.dev]
  resources: [tasks]
  verbs: [get, list, watch, delete]
- apiGroups: [rota.dev]
  resources: [agents/status, tasks/status]
  verbs: [get, patch, update]
# Where the API server asks for it, so that owner references of pods may block their owner's deletion.
- apiGroups: [rota.dev]
  resources: [agents/finalizers, tasks/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
# Whether a namespace goes: its workers need not finish what they do.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
# A name cannot be asked for where something is made.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [rota-ca]
  verbs: [get, list, watch, patch, update, delete]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* Names, and the API server, which no selector finds: 443 by its Service, 6443 behind it. */}}
{{- define "rota.egress" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
    - port: 443
    - port: 6443
{{- with .Values.networkPolicy.egress }}
{{ toYaml . }}
{{- end }}
{{- end -}}
