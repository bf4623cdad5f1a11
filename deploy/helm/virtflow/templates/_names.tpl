{{/* The beginning of all names: the release's, or the one that was given. */}}
{{- define "virtflow.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels of an object. Takes {root, component}. */}}
{{- define "virtflow.labels" -}}
{{ include "virtflow.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{/* Labels that select a component's pods; they never change. Takes {root, component}. */}}
{{- define "virtflow.selector" -}}
app.kubernetes.io/name: virtflow
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* Metadata of a component's object. Takes {root, component}. */}}
{{- define "virtflow.metadata" -}}
name: {{ include "virtflow.fullname" .root }}-{{ .component }}
namespace: {{ .root.Release.Namespace }}
labels: {{- include "virtflow.labels" . | nindent 2 }}
{{- end }}

{{/* An image by tag or digest. Takes {root, name}. */}}
{{- define "virtflow.image" -}}
{{- $image := .root.Values.image -}}
{{- $tag := $image.tag | default .root.Chart.AppVersion -}}
{{- with $image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ .name }}{{ hasPrefix "sha256:" $tag | ternary "@" ":" }}{{ $tag }}
{{- end }}

{{/* The ServiceAccount of a component that never speaks to the API server. Takes {root, component}. */}}
{{- define "virtflow.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata: {{- include "virtflow.metadata" . | nindent 2 }}
automountServiceAccountToken: false
{{- end }}

{{/* The headless Service by which a component's pods are found, ready or not: one that waits for the broker is scraped, too. Takes {root, component, port}. */}}
{{- define "virtflow.service" -}}
apiVersion: v1
kind: Service
metadata: {{- include "virtflow.metadata" . | nindent 2 }}
spec:
  clusterIP: None
  publishNotReadyAddresses: true
  selector: {{- include "virtflow.selector" . | nindent 4 }}
  ports: [{name: metrics, port: {{ .port }}, targetPort: metrics}]
{{- end }}
