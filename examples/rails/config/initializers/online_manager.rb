# frozen_string_literal: true

# Where it is kept who is online: a file that all processes of this machine share, or with PRESENCE_STORE=memory each
# process for itself, which will do for a single one.
store = ENV.fetch("PRESENCE_STORE", "sqlite:storage/presence_#{Rails.env}.sqlite3")

OnlineManager.setup("OnlineConfig", store: store == "memory" ? :memory : store)
