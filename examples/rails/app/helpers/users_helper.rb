# frozen_string_literal: true

# Texts of the list.
module UsersHelper
  # @param user [User]
  # @return [String] such as "online", or "seen 5 minutes ago"
  def presence_of(user)
    return "online" if user.online?

    user.last_online_at ? "seen #{time_ago_in_words(user.last_online_at)} ago" : "never seen"
  end
end
