{{/* Who else has installed a definition; empty if it does not exist, or is this release's. Called with a list: context, name. */}}
{{- define "rota-crds.owner" -}}
{{- $context := index . 0 -}}
{{- $annotations := dict -}}
{{- with lookup "apiextensions.k8s.io/v1" "CustomResourceDefinition" "" (index . 1) -}}
{{- $annotations = dig "metadata" "annotations" dict . -}}
{{- $name := get $annotations "meta.helm.sh/release-name" -}}
{{- $namespace := get $annotations "meta.helm.sh/release-namespace" -}}
{{- if or (ne $name $context.Release.Name) (ne $namespace $context.Release.Namespace) -}}
{{- if $name }}the release {{ $name }} in the namespace {{ $namespace }}{{ else }}something other than Helm{{ end -}}
{{- end -}}
{{- end -}}
{{- end -}}
