# frozen_string_literal: true

# Writes to the table users who is online. Called by OnlineManager, not in a request.
#
# It is what `rails generate online_manager:install User` makes, and a broadcast.
class OnlineConfig
  # Seconds after the last heartbeat until a user is offline.
  def timeout = ENV.fetch("PRESENCE_TIMEOUT", 5)

  # Heartbeats come in through OnlineManager::Connection, and OnlineManager.current.seen(user.id).
  def setup; end

  def online(user_id, version:) = write(true, [user_id], [version])
  def offline(user_id, version:) = write(false, [user_id], [version])

  # Called instead when several users change together, for one UPDATE.
  def online_all(user_ids, version:) = write(true, user_ids, version)
  def offline_all(user_ids, version:) = write(false, user_ids, version)

  private

  # Each user's versions grow, so what comes late or twice changes nothing.
  def write(online, user_ids, versions)
    version = "CASE id #{"WHEN ? THEN ? " * user_ids.size}END"
    pairs = user_ids.zip(versions).flatten

    User.unscoped.where(id: user_ids).where("presence_version < #{version}", *pairs)
        .update_all(["online = ?, last_online_at = ?, presence_version = #{version}", online, Time.current, *pairs])
    broadcast
  end

  # Has the pages that are open ask for the list anew.
  def broadcast
    ActionCable.server.broadcast("users", { "changed" => true })
  end
end
