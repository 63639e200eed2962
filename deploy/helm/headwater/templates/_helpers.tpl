{{- define "headwater.labels" -}}
app.kubernetes.io/name: headwater
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "headwater.selector" -}}
app.kubernetes.io/name: headwater
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .role }}
{{- end }}

{{- /* A value as it was written: helm takes numbers of a file for floats, and 10485760 is 1.048576e+07 then. */ -}}
{{- define "headwater.written" -}}
{{ if kindIs "float64" . }}{{ if eq . (floor .) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{- define "headwater.image" -}}
{{ .Values.image.repository }}:{{ include "headwater.written" (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{- define "headwater.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "headwater.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "headwater.environment" -}}
- {name: HEADWATER_BOOTSTRAP_SERVERS, value: {{ required "kafka.bootstrapServers is required" .Values.kafka.bootstrapServers | join "," | quote }}}
- {name: HEADWATER_PREFIX, value: {{ .Values.workspace.prefix | quote }}}
- {name: HEADWATER_PARTITIONS, value: {{ .Values.workspace.partitions | quote }}}
- {name: HEADWATER_REPLICATION_FACTOR, value: {{ .Values.workspace.replicationFactor | quote }}}
- {name: HEADWATER_SOURCES, value: {{ join "," .Values.workspace.sources | quote }}}
{{- range $name, $value := .Values.kafka.properties }}
- {name: HEADWATER_KAFKA__{{ $name | replace "." "_" | upper }}, value: {{ include "headwater.written" $value | quote }}}
{{- end }}
{{- end }}
