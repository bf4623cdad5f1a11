{{/* The head of a pod's specification: account, place and images' secrets. Takes {root, component, values}. */}}
{{- define "virtflow.pod" -}}
serviceAccountName: {{ include "virtflow.fullname" .root }}-{{ .component }}
automountServiceAccountToken: {{ eq .component "adapter" }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets: {{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end }}

{{/* A pod's metadata. Takes {root, component, values}. */}}
{{- define "virtflow.pod.metadata" -}}
labels: {{- include "virtflow.selector" . | nindent 2 }}
{{- with .values.podAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "virtflow.centre.security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "virtflow.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* The container of a service of the centre, with its probes. Takes {root, component, part, command, port, own, values}. */}}
{{- define "virtflow.centre.container" -}}
- name: {{ .component }}
  image: {{ include "virtflow.image" (dict "root" .root "name" .root.Values.image.centre) }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  args: {{ toJson .command }}
  env:
    {{- with .fields }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
    {{- include "virtflow.environment" . | nindent 4 }}
  ports:
    - {name: metrics, containerPort: {{ .port }}}
    {{- with .ports }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  # Ready is who has its sources; a broker that is silent makes it unready and restarts nothing.
  readinessProbe: {httpGet: {path: /readyz, port: metrics{{ if .root.Values.web.tls }}, scheme: HTTPS{{ end }}}, periodSeconds: 5, timeoutSeconds: 3}
  livenessProbe: {httpGet: {path: /healthz, port: metrics{{ if .root.Values.web.tls }}, scheme: HTTPS{{ end }}}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
  resources: {{- toYaml .values.resources | nindent 4 }}
  securityContext: {{- include "virtflow.container.security" . | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    {{- include "virtflow.secrets.mounts" . | nindent 4 }}
    {{- with .mounts }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}

{{/* Volumes of a pod of the centre. Takes {root, part}, and volumes beside. */}}
{{- define "virtflow.centre.volumes" -}}
- {name: tmp, emptyDir: {}}
{{- include "virtflow.secrets.volumes" . }}
{{- with .volumes }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Copies of a component on different nodes as far as there are some. Takes {root, component}. */}}
{{- define "virtflow.apart" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels: {{- include "virtflow.selector" . | nindent 12 }}
{{- end }}
