# frozen_string_literal: true

threads_count = Integer(ENV.fetch("RAILS_MAX_THREADS", 5))
threads threads_count, threads_count

port ENV.fetch("PORT", 3000)

# With two workers or more it is a cluster. The workers share the file of the presence store, so nothing else is needed:
# each worker participates from its first heartbeat on, and has no connection to the store before.
workers Integer(ENV.fetch("WEB_CONCURRENCY", 0))
preload_app! ENV.fetch("PRELOAD_APP", "true") == "true"
