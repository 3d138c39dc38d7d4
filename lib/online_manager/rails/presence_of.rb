# frozen_string_literal: true

class OnlineManager
  module Rails
    # The class method `presence_of` of a channel, and of a connection: whose heartbeats it carries. Subclasses inherit
    # it.
    module PresenceOf
      # Says whose heartbeats they are. The block runs on the channel or the connection, once for each subscription,
      # after its `subscribed`; the id is kept until the subscription ends. Where nobody is logged in it answers nil:
      # nobody is refused then, there are just no heartbeats.
      #
      #   presence_of { current_user.id }
      #   presence_of(namespace: "rooms") { params[:room] }
      #
      # @param namespace [String, Symbol, nil] of the manager that gets the heartbeats
      # @param user_id [Proc] answers whose they are
      # @yieldreturn [Object, nil] a user id
      # @return [void]
      # @raise [ArgumentError] if there is no block
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
