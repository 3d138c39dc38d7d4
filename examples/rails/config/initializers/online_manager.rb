# frozen_string_literal: true

# The presence store: a file that all processes of this machine share, or with PRESENCE_STORE=memory the memory of each
# process, which is enough for a single process.
store = ENV.fetch("PRESENCE_STORE", "sqlite:storage/presence_#{Rails.env}.sqlite3")

OnlineManager.setup("OnlineConfig", store: store == "memory" ? :memory : store)
