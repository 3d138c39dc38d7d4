# frozen_string_literal: true

module RuboCop
  module Cop
    module OnlineManager
      # A spec that sleeps for a while is slow where the machine is fast, and fails where it is slow.
      #
      # @example
      #   # bad
      #   sleep 0.5
      #   expect(manager).to be_online(7)
      #
      #   # good
      #   wait_until { manager.online?(7) }
      class BareSleep < Base
        MSG = "Wait on a condition, with a limit (spec/support/wait.rb), instead of for a while."
        RESTRICT_ON_SEND = %i[sleep].freeze

        # @!method bare_sleep?(node)
        def_node_matcher :bare_sleep?, <<~PATTERN
          (send {nil? self (const {nil? cbase} :Kernel)} :sleep ...)
        PATTERN

        def on_send(node)
          add_offense(node) if bare_sleep?(node)
        end
      end
    end
  end
end
