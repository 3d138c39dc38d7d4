# frozen_string_literal: true

# Writes a log line for each transition.
ActiveSupport::Notifications.subscribe(/\A(online|offline)\.online_manager\z/) do |name, _began, _ended, _id, payload|
  Rails.logger.info(format("%<name>s id=%<id>p reason=%<reason>s lateness=%<lateness>.3f duration=%<duration>.3f",
                           name:, **payload))
end
