# frozen_string_literal: true

module RuboCop
  module Cop
    module OnlineManager
      # A spec that sleeps for a fixed time is slow on a fast machine, and fails on a slow one.
      #
      # @example
      #   # bad
      #   sleep 0.5
      #   expect(manager).to be_online(7)
      #
      #   # good
      #   wait_until { manager.online?(7) }
      class BareSleep < Base
        MSG = "Wait for a condition with a limit (spec/support/wait.rb) instead of sleeping for a fixed time."
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
