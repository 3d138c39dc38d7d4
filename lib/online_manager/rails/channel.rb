# frozen_string_literal: true

require "active_support/concern"
require_relative "presence_of"

class OnlineManager
  # Lets a channel of ActionCable receive heartbeats, besides its other actions:
  #
  #   class ChatChannel < ApplicationCable::Channel
  #     include OnlineManager::Channel
  #     presence_of { current_user.id }
  #   end
  #
  # The client sends the heartbeats: with `OnlineManager.subscribe(consumer, "ChatChannel")` of online_manager.js, or by
  # performing the action `heartbeat` three times per timeout. The server does not send them on its behalf, since the
  # socket of a laptop whose lid is shut stays open for minutes.
  #
  # When a subscription ends, its user's deadline is half a timeout away. Another tab's next heartbeat (a third of a
  # timeout) comes sooner, and so does a page that reloads; so the user stays online.
  #
  # Exceptions of a heartbeat go where those of any action go: to the `rescue_from` of the channel or the connection,
  # and to the log. The connection stays open.
  #
  # With AnyCable each command gets a channel object of its own, so this needs no instance variable: what it keeps in
  # some saves work, or makes it more exact, where the object lives as long as the subscription.
  module Channel
    extend ActiveSupport::Concern

    included do
      # Runs after the channel's own `after_subscribe` callbacks, since the one that is declared first runs last: they
      # may reject the subscription, or set up what `presence_of` needs.
      after_subscribe :online_manager_subscribed, unless: :subscription_rejected?
      after_unsubscribe :online_manager_unsubscribed
    end

    # The channel's class methods.
    module ClassMethods
      include Rails::PresenceOf

      # @private
      # @return [OnlineManager, nil] the manager that runs in the namespace. Once it is stopped it is still returned:
      #   clients send heartbeats while a server shuts down, and a stopped manager ignores them.
      def online_manager_in(namespace)
        @online_manager = OnlineManager.current(namespace) || @online_manager
      end
    end

    # The action `heartbeat`: records a heartbeat of the subscription's user, on a thread of ActionCable. Does nothing
    # if the block of `presence_of` returned nil.
    #
    # @return [void]
    # @raise [Error] if no manager is set up in the namespace
    # @raise what the block of `presence_of` raises, or {OnlineManager#seen}
    def heartbeat
      return unless online_manager_user_id

      online_manager.seen(online_manager_user_id)
      @online_manager_seen = true
      # ActionCable runs a connection's messages on several threads, so the subscription may have ended meanwhile: then
      # this heartbeat must not keep its user online for a whole timeout.
      return online_manager_unsubscribed if @online_manager_ended

      online_manager_transmit_interval if @online_manager_interval
    end

    private

    def online_manager_subscribed
      @online_manager_seen = false
      online_manager_transmit_interval if online_manager_user_id
    end

    # Without a heartbeat it does nothing: the subscription has not kept its user online. An object that has not
    # subscribed itself does not know of the heartbeats.
    def online_manager_unsubscribed
      @online_manager_ended = true
      return if @online_manager_seen == false || subscription_rejected? || !online_manager_user_id

      online_manager.leave(online_manager_user_id, after: online_manager.timeout / 2)
    rescue StandardError => e
      # Raised here, it would keep ActionCable from unsubscribing the connection's other subscriptions.
      rescue_with_handler(e) || logger.error("OnlineManager: #{e.message} (#{e.class})")
    end

    # Transmits the interval of heartbeats, in seconds: to a client that has subscribed, and when the timeout has
    # changed.
    def online_manager_transmit_interval
      interval = online_manager.timeout / 3
      return if interval == @online_manager_interval

      @online_manager_interval = interval
      transmit({ "online_manager" => { "heartbeat_every" => interval } })
    end

    # The subscription's user id. The block of `presence_of` runs once for each object, so that a heartbeat costs no
    # query.
    def online_manager_user_id
      return @online_manager_user_id if defined?(@online_manager_user_id)

      @online_manager_user_id = online_manager_presence_owner.instance_exec(&online_manager_presence.first)
    end

    def online_manager
      namespace = online_manager_presence.last
      self.class.online_manager_in(namespace) or
        raise Error, "no manager runs#{" in the namespace #{namespace.inspect}" if namespace}: " \
                     "call OnlineManager.setup in an initializer"
    end

    def online_manager_presence
      owner = online_manager_presence_owner
      owner.class.online_manager_presence or
        raise Error, "#{owner.class} does not name the user of its heartbeats: add `presence_of { current_user.id }`"
    end

    # The object whose class has `presence_of`.
    def online_manager_presence_owner = self
  end
end
