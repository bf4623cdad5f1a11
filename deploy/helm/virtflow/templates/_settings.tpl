{{/* A setting's value as its environment variable has it: lists as a,b and maps as key=value,key=value. */}}
{{- define "virtflow.text" -}}
{{- if kindIs "slice" . -}}
{{- join "," . -}}
{{- else if kindIs "map" . -}}
{{- $pairs := list -}}
{{- range $key, $value := . }}{{ $pairs = append $pairs (printf "%s=%s" $key (include "virtflow.text" $value)) }}{{ end -}}
{{- join "," $pairs -}}
{{- else if and (kindIs "float64" .) (eq (floor .) .) -}}
{{- int64 . -}}
{{- else -}}
{{- . -}}
{{- end -}}
{{- end }}

{{/*
The environment of a part: the settings of all sections that it reads, and those that the chart decides. Takes {root, part, own}; `own` is a
dictionary of SECTION.KEY.
*/}}
{{- define "virtflow.environment" -}}
{{- $root := .root -}}
{{- $all := include "virtflow.settings.bus" $root | fromYaml -}}
{{- range $section := index ($root.Files.Get "files/sections.json" | fromJson) .part -}}
{{- range $key, $value := index $root.Values.settings $section }}{{ $_ := set $all (printf "%s.%s" $section $key) $value }}{{ end -}}
{{- if and (eq $section "web") $root.Values.web.secret }}{{ $_ := set $all "web.config_file" (printf "/etc/virtflow/web/%s" $root.Values.web.file) }}{{ end -}}
{{- end -}}
{{- range $key, $value := .own }}{{ $_ := set $all $key $value }}{{ end -}}
{{- range $key := keys $all | sortAlpha }}
- {name: VIRTFLOW_{{ $key | replace "." "_" | upper }}, value: {{ include "virtflow.text" (index $all $key) | quote }}}
{{- end }}
{{- end }}

{{/* What leads to the brokers and to the registry. */}}
{{- define "virtflow.settings.bus" -}}
{{- $kafka := .Values.kafka -}}
{{- with $kafka.bootstrapServers }}
kafka.bootstrap_servers: {{ . | quote }}
{{- end }}
kafka.security_protocol: {{ printf "%s%s" (empty $kafka.sasl.mechanism | ternary "" "SASL_") ($kafka.tls.enabled | ternary "SSL" "PLAINTEXT") }}
{{- if $kafka.sasl.mechanism }}
kafka.sasl_mechanism: {{ $kafka.sasl.mechanism }}
kafka.sasl_username: {{ $kafka.sasl.username | quote }}
kafka.sasl_password_file: /etc/virtflow/kafka-password/{{ $kafka.sasl.password.key }}
{{- end }}
{{- if and $kafka.tls.enabled $kafka.tls.ca.secret }}
kafka.tls_ca_file: /etc/virtflow/kafka-ca/{{ $kafka.tls.ca.key }}
{{- end }}
{{- if and $kafka.tls.enabled $kafka.tls.clientSecret }}
kafka.tls_certificate_file: /etc/virtflow/kafka-client/tls.crt
kafka.tls_key_file: /etc/virtflow/kafka-client/tls.key
{{- end }}
{{- if .Values.registry.password.secret }}
registry.password_file: /etc/virtflow/registry-password/{{ .Values.registry.password.key }}
{{- end }}
{{- if .Values.registry.ca.secret }}
registry.tls_ca_file: /etc/virtflow/registry-ca/{{ .Values.registry.ca.key }}
{{- end }}
{{- end }}

{{/* Secrets by the folder below /etc/virtflow that they are mounted at. Takes {root, part}. A map of folder to name. */}}
{{- define "virtflow.secrets" -}}
{{- $values := .root.Values -}}
{{- if $values.kafka.sasl.mechanism }}
kafka-password: {{ $values.kafka.sasl.password.secret }}
{{- end }}
{{- if and $values.kafka.tls.enabled $values.kafka.tls.ca.secret }}
kafka-ca: {{ $values.kafka.tls.ca.secret }}
{{- end }}
{{- if and $values.kafka.tls.enabled $values.kafka.tls.clientSecret }}
kafka-client: {{ $values.kafka.tls.clientSecret }}
{{- end }}
{{- if $values.registry.password.secret }}
registry-password: {{ $values.registry.password.secret }}
{{- end }}
{{- if $values.registry.ca.secret }}
registry-ca: {{ $values.registry.ca.secret }}
{{- end }}
{{- if and $values.web.secret (has "web" (index (.root.Files.Get "files/sections.json" | fromJson) .part)) }}
web: {{ $values.web.secret }}
{{- end }}
{{- if eq .part "adapter" }}
tls: {{ $values.adapter.tls.secret | default (printf "%s-adapter-tls" (include "virtflow.fullname" .root)) }}
{{- end }}
{{- if and (eq .part "history") $values.history.s3.url $values.history.s3.credentials.secret }}
s3: {{ $values.history.s3.credentials.secret }}
{{- end }}
{{- end }}

{{- define "virtflow.secrets.volumes" -}}
{{- range $folder, $name := include "virtflow.secrets" . | fromYaml }}
- {name: {{ $folder }}, secret: {secretName: {{ $name }}, defaultMode: 0440}}
{{- end }}
{{- end }}

{{- define "virtflow.secrets.mounts" -}}
{{- range $folder, $name := include "virtflow.secrets" . | fromYaml }}
- {name: {{ $folder }}, mountPath: /etc/virtflow/{{ $folder }}, readOnly: true}
{{- end }}
{{- end }}
