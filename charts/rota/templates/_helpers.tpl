{{- define "rota.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{/* At most 40 characters, so that `-operator` and the suffixes of Kubernetes still fit a label. */}}
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

{{/* Selector labels, constant for the lifetime of a release. Called with a list: context, component. */}}
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
{{- if not $image.repository -}}
{{- fail "image.repository and worker.image.repository are required, since no images of Rota are published: build and push them as docs/kubernetes.md#images describes" -}}
{{- end -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default (index . 0).Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{/* The tag of the database for trials does not default to the version of Rota. */}}
{{- define "rota.trial.image" -}}
{{- $image := .Values.store.postgresql.trial.image -}}
{{- if not (and $image.repository (or $image.tag $image.digest)) -}}
{{- fail "store.postgresql.trial.image requires a repository, and a tag or a digest" -}}
{{- end -}}
{{- include "rota.image" (list . $image) -}}
{{- end -}}

{{- define "rota.server.account" -}}
{{- default (printf "%s-server" (include "rota.fullname" .)) .Values.server.serviceAccount.name -}}
{{- end -}}

{{- define "rota.operator.account" -}}
{{- default (printf "%s-operator" (include "rota.fullname" .)) .Values.operator.serviceAccount.name -}}
{{- end -}}

{{/*
Objects of this name exist once per class and watched scope, so that Helm refuses a second release which would reconcile
the same agents and tasks.
*/}}
{{- define "rota.operator.scope" -}}
{{- with .Values.class }}{{ printf "rota-class-%s" . }}{{ else }}rota-class{{ end -}}
{{- end -}}

{{/* Fails if an object of the scope belongs to another release. Called with a list: context, object, description of the scope. */}}
{{- define "rota.operator.exclusive" -}}
{{- $context := index . 0 -}}
{{- $annotations := dig "metadata" "annotations" dict (index . 1) | default dict -}}
{{- $name := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- if and $name (or (ne $name $context.Release.Name) (ne $namespace $context.Release.Namespace)) -}}
{{- fail (printf "the release %s in the namespace %s already reconciles the agents and tasks of %s with the class %q, and both would run every task: set class to another name, operator.watchNamespaces to other namespaces, or uninstall that release" $name $namespace (index . 2) $context.Values.class) -}}
{{- end -}}
{{- end -}}

{{/* Secret with the certificate of the control plane. */}}
{{- define "rota.tls.secret" -}}
{{- if and .Values.tls.existingSecret .Values.tls.extraNames -}}
{{- fail "tls.extraNames has no effect on the certificate in tls.existingSecret: set one of them" -}}
{{- end -}}
{{- default "rota-tls" .Values.tls.existingSecret -}}
{{- end -}}

{{/* Name of the objects of the database for trials; empty without one. Values of earlier releases, which may be reused, have no switch. */}}
{{- define "rota.trial" -}}
{{- if (.Values.store.postgresql.trial).enabled -}}
{{- if .Values.store.postgresql.existingSecret -}}
{{- fail "store.postgresql.trial.enabled runs a database of its own: leave store.postgresql.existingSecret empty, or turn it off" -}}
{{- end -}}
{{- include "rota.fullname" . }}-trial-db
{{- end -}}
{{- end -}}

{{/* Secret with the URL of PostgreSQL; empty if records are in a file. */}}
{{- define "rota.store.secret" -}}
{{- default (include "rota.trial" .) .Values.store.postgresql.existingSecret -}}
{{- end -}}

{{/* Secret with the key that encrypts secrets of tasks; empty if the control plane makes it on its volume. */}}
{{- define "rota.key.secret" -}}
{{- default (include "rota.trial" .) .Values.server.keySecret -}}
{{- end -}}

{{- define "rota.endpoint" -}}
https://{{ include "rota.fullname" . }}.{{ .Release.Namespace }}.svc:7420
{{- end -}}

{{/*
Pod template of a component. Called with a list: context, component (`server` or `operator`). The component defines its
parts as `rota.COMPONENT.annotations`, `.container` (arguments, ports, startup probe), `.env`, `.mounts` and `.volumes`.
*/}}
{{- define "rota.pod" -}}
{{- $context := index . 0 -}}
{{- $component := index . 1 -}}
{{- $values := index $context.Values $component -}}
metadata:
  labels:
    {{- include "rota.labels" . | nindent 4 }}
    {{- with $values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    kubectl.kubernetes.io/default-container: {{ $component }}
    {{- with include (printf "rota.%s.annotations" $component) $context }}
    {{- . | nindent 4 }}
    {{- end }}
    {{- with $values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include (printf "rota.%s.account" $component) $context }}
  # Only the operator calls the API server.
  automountServiceAccountToken: {{ eq $component "operator" }}
  # Otherwise a Service named rota would set variables that look like settings.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ $values.terminationGracePeriodSeconds }}
  securityContext:
    {{- toYaml $context.Values.podSecurityContext | nindent 4 }}
  {{- with $context.Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- range $field := list "nodeSelector" "tolerations" "affinity" "priorityClassName" }}
  {{- with get $values $field }}
  {{- dict $field . | toYaml | nindent 2 }}
  {{- end }}
  {{- end }}
  {{- with $values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- range . }}
    {{- $own := dict "matchLabels" (include "rota.selector" (list $context $component) | fromYaml) }}
    - {{- merge (deepCopy .) (hasKey . "labelSelector" | ternary dict (dict "labelSelector" $own)) | toYaml | nindent 6 }}
    {{- end }}
  {{- end }}
  containers:
    - name: {{ $component }}
      image: {{ include "rota.image" (list $context $context.Values.image) }}
      imagePullPolicy: {{ $context.Values.image.pullPolicy }}
      {{- include (printf "rota.%s.container" $component) $context | nindent 6 }}
      env:
        - name: ROTA_LOG
          value: {{ $context.Values.log.filter | quote }}
        # The image has no home directory.
        - name: HOME
          value: /tmp
        {{- with include (printf "rota.%s.env" $component) $context }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with $values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      livenessProbe:
        httpGet:
          path: /livez
          port: http
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet:
          path: /readyz
          port: http
        periodSeconds: 5
        timeoutSeconds: 5
      resources:
        {{- toYaml $values.resources | nindent 8 }}
      securityContext:
        {{- toYaml $context.Values.securityContext | nindent 8 }}
      volumeMounts:
        - name: tmp
          mountPath: /tmp
        {{- with include (printf "rota.%s.mounts" $component) $context }}
        {{- . | nindent 8 }}
        {{- end }}
  volumes:
    - name: tmp
      emptyDir: {}
    {{- with include (printf "rota.%s.volumes" $component) $context }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end -}}

{{/* Permissions of the operator in the namespaces of agents, tasks and workflows. */}}
{{- define "rota.operator.rules" -}}
- apiGroups: [rota.dev]
  resources: [agents]
  verbs: [list, watch]
- apiGroups: [rota.dev]
  resources: [workflowtemplates, schedules]
  verbs: [get, list, watch]
# Tasks and workflows are deleted after their TTL.
- apiGroups: [rota.dev]
  resources: [tasks, workflows]
  verbs: [get, list, watch, delete]
- apiGroups: [rota.dev]
  resources: [agents/status, tasks/status, workflows/status, workflowtemplates/status, schedules/status]
  verbs: [patch]
# Required by some API servers for owner references that block the deletion of the owner.
- apiGroups: [rota.dev]
  resources: [agents/finalizers, tasks/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, create, delete]
# Records in each worker pod that the operator has created it.
- apiGroups: [""]
  resources: [pods/status]
  verbs: [patch]
# What worker pods may reach, and whether other policies restrict it.
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, create, patch, delete]
# Detects terminating namespaces, whose workers do not finish their tasks.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [get]
# RBAC cannot restrict the creation of objects by name.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [create]
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [{{ with .Values.class }}rota-ca-{{ . }}{{ else }}rota-ca{{ end }}]
  verbs: [get, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end -}}

{{/* DNS and the API server, which no selector matches: 443 by its Service, 6443 behind it. */}}
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
