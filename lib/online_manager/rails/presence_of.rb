# frozen_string_literal: true

class OnlineManager
  module Rails
    # The class method `presence_of` of channels and connections, which names the user of their heartbeats. Subclasses
    # inherit what it was given.
    module PresenceOf
      # Names the user whose heartbeats arrive. The block is evaluated in the channel or the connection, once for each
      # subscription, after its `subscribed`; the id is kept until the subscription ends. If it returns nil (nobody is
      # logged in), the subscription is accepted, and its heartbeats are ignored. With AnyCable it is evaluated for each
      # command, and sees no instance variable of `subscribed`.
      #
      #   presence_of { current_user.id }
      #   presence_of(namespace: "rooms") { params[:room] }
      #
      # @param namespace [String, Symbol, nil] the namespace of the manager that records the heartbeats
      # @param user_id [Proc] returns the user id
      # @yieldreturn [Object, nil] a user id
      # @return [void]
      # @raise [ArgumentError] without a block
      def presence_of(namespace: nil, &user_id)
        raise ArgumentError, "presence_of needs a block, such as `presence_of { current_user.id }`" unless user_id

        @online_manager_presence = [user_id, namespace]
      end

      # @private
      # @return [Array(Proc, Object), nil] the block and the namespace
      def online_manager_presence
        @online_manager_presence || (superclass.online_manager_presence if superclass.is_a?(PresenceOf))
      end
    end
  end
end
