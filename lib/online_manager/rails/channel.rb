# frozen_string_literal: true

require "active_support/concern"
require_relative "presence_of"

class OnlineManager
  # Makes a channel of ActionCable carry heartbeats, besides whatever else it does:
  #
  #   class ChatChannel < ApplicationCable::Channel
  #     include OnlineManager::Channel
  #     presence_of { current_user.id }
  #   end
  #
  # It is the client who beats, with `OnlineManager.subscribe(consumer, "ChatChannel")` of online_manager.js, or with
  # whatever performs the action `heartbeat` three times per timeout. The server never does so by itself: a laptop that
  # is shut keeps its socket for minutes.
  #
  # When a subscription ends, its user has half a timeout left. That is longer than it takes another tab to beat, or a
  # reloaded page to come back, so neither takes a user offline who is still there.
  #
  # What a heartbeat raises goes where it does with any action: to the channel's or the connection's `rescue_from`, and
  # to the log. The connection stays.
  module Channel
    extend ActiveSupport::Concern

    included do
      # Last, since these callbacks run in reverse: what others of them refuse or set up is done.
      after_subscribe :online_manager_subscribed, unless: :subscription_rejected?
      after_unsubscribe :online_manager_unsubscribed
    end

    # What a channel can say.
    module ClassMethods
      include Rails::PresenceOf
    end

    # The action that is a heartbeat. It is ignored if the block of `presence_of` has answered nil.
    #
    # @return [void]
    # @raise [Error] if no manager has been set up
    # @raise what `presence_of`, or a heartbeat itself raises
    def heartbeat
      return unless online_manager_user_id

      online_manager.seen(online_manager_user_id)
      @online_manager_seen = true
      # ActionCable runs a connection's messages on several threads, so this one may have been overtaken by the end.
      @online_manager_ended ? online_manager_unsubscribed : online_manager_transmit_interval
    end

    private

    def online_manager_subscribed
      online_manager_transmit_interval if online_manager_user_id
    end

    # A subscription that has never beaten keeps nobody online, and takes nobody offline.
    def online_manager_unsubscribed
      @online_manager_ended = true
      online_manager.leave(online_manager_user_id, after: online_manager.timeout / 2) if @online_manager_seen
    rescue StandardError => e
      # Raised here it would keep the connection's other subscriptions from ending.
      rescue_with_handler(e) || logger.error("OnlineManager: #{e.message} (#{e.class})")
    end

    # The client has to know how often to beat: when it has subscribed, and again when the timeout has changed.
    def online_manager_transmit_interval
      interval = online_manager.timeout / 3
      return if interval == @online_manager_interval

      @online_manager_interval = interval
      transmit({ "online_manager" => { "heartbeat_every" => interval } })
    end

    # Once for each subscription: a heartbeat is to cost no query, and a user does not become another one.
    def online_manager_user_id
      return @online_manager_user_id if defined?(@online_manager_user_id)

      @online_manager_user_id = online_manager_presence_owner.instance_exec(&online_manager_presence.first)
    end

    # One that has been stopped does as well: it ignores heartbeats, which go on while a server shuts down.
    def online_manager
      namespace = online_manager_presence.last
      @online_manager = OnlineManager.current(namespace) || @online_manager or
        raise Error, "no manager runs#{" in the namespace #{namespace.inspect}" if namespace}: " \
                     "call OnlineManager.setup in an initializer"
    end

    def online_manager_presence
      owner = online_manager_presence_owner
      owner.class.online_manager_presence or
        raise Error, "#{owner.class} does not say whose heartbeats it carries: add `presence_of { current_user.id }`"
    end

    # Who says whose heartbeats they are.
    def online_manager_presence_owner = self
  end
end
