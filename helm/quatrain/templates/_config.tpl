{{/* The YAML that QUATRAIN_CONFIG names, for (dict "root" $ "name" SERVICE "service" VALUES): what follows from the
     chart, then `config`, then the service's own `config`. Secrets are not in it: pods mount them as files. */}}
{{- define "quatrain.config" -}}
{{- $root := .root -}}
{{- $values := $root.Values -}}
{{- $service := .service -}}
{{- $most := mul (int64 $service.cacheGiB) 858993459 -}}
{{- $config := dict
  "server" (dict "host" "0.0.0.0" "port" (int $service.port) "health_port" 50060 "metrics_port" 9090
    "shutdown_grace" (int $service.drain.graceSeconds) "insecure" (not $values.tls.enabled))
  "telemetry" (dict "format" "json")
  "compute" (dict "device" (ternary "cuda" "cpu" (gt (int $service.gpus) 0)) "threads" (int $service.threads)
    "cache_dir" "/var/cache/quatrain" "cache_bytes" $most) -}}
{{- if $values.externalStorage.endpoint -}}
{{- $_ := set $config "storage" (merge (dict "kind" "s3") (omit $values.externalStorage "existingSecret")) -}}
{{- else -}}
{{- $_ := set $config "storage" (dict "kind" "s3" "bucket" $values.minio.bucket "secure" false
  "endpoint" (include "quatrain.address" (dict "root" $root "name" "minio" "port" 9000))) -}}
{{- end -}}
{{- if and $service.queue (not (include "quatrain.queueSecret" $root)) -}}
{{- $_ := set $config "queue" (dict "url" (printf "%s://%s/%v" (ternary "rediss" "redis" $values.externalRedis.tls)
  $values.externalRedis.address (int $values.externalRedis.database))) -}}
{{- end -}}
{{- if $values.tls.enabled -}}
{{- $tls := dict "cert" "/etc/quatrain/tls/tls.crt" "key" "/etc/quatrain/tls/tls.key" "ca" "/etc/quatrain/tls/ca.crt" -}}
{{- if and (eq .name "orchestrator") $values.tls.api.existingSecret -}}
{{- $_ := mergeOverwrite $tls (dict "api_cert" "/etc/quatrain/api-tls/tls.crt" "api_key" "/etc/quatrain/api-tls/tls.key") -}}
{{- end -}}
{{- if and (eq .name "orchestrator") $values.tls.api.clientCaSecret -}}
{{- $_ := set $tls "api_client_ca" "/etc/quatrain/api-client-ca/ca.crt" -}}
{{- end -}}
{{- $_ := set $config "tls" $tls -}}
{{- end -}}
{{- if $service.calls -}}
{{- $own := dict "pool" $values.pool -}}
{{- range $name, $called := fromYaml (include "quatrain.catalog" $root) -}}
{{- if has $name (without $service.calls "learner") -}}
{{- $_ := set $own $name (printf "dns:///%s" (include "quatrain.address" (dict "root" $root "name" $name "port" $called.port))) -}}
{{- end -}}
{{- if and (eq $name "learner") (has $name $service.calls) -}}
{{- $_ := set $config "learner" (dict "targets" (printf "dns:///%s" (include "quatrain.address" (dict "root" $root "name" $name "port" $called.port)))) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $config .name $own -}}
{{- end -}}
{{- if eq $service.kind "LeaderWorkerSet" -}}
{{- $_ := set $config "learner" (dict "ranks" (int $service.ranks)) -}}
{{- end -}}
{{- if eq .name "orchestrator" -}}
{{- /* Its cache also holds what is being uploaded or read from `sources`: half of it each. */ -}}
{{- $_ := set $config.compute "cache_bytes" (div $most 2) -}}
{{- $_ := set $config.orchestrator "max_upload_bytes" (div $most 2) -}}
{{- $_ := set $config "sources" (dict "max_model_bytes" (div $most 2)) -}}
{{- /* With the Hub open, its files share the models' half. */ -}}
{{- if $values.sources.hub.enabled -}}
{{- $_ := set $config.compute "cache_bytes" (div $most 4) -}}
{{- $_ := set $config.sources "hub" true -}}
{{- $_ := set $config.sources "hub_cache_bytes" (div $most 4) -}}
{{- $_ := set $config.sources "max_model_bytes" (div $most 4) -}}
{{- end -}}
{{- $_ := set $config "auth" (dict "tokens_file" "/etc/quatrain/tokens/tokens.yaml") -}}
{{- end -}}
{{- mergeOverwrite $config (deepCopy $values.config) (deepCopy $service.config) | toYaml -}}
{{- end -}}
