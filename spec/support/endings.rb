# frozen_string_literal: true

require "json"
require "yaml"
require_relative "ruby_process"

# The table of spec/support/endings.yml: each way in which a reactor ends, at each place, with each reactor, with one
# manager and with two.
module Endings
  REACTORS = %i[thread eventmachine fiber].freeze
  PATH = "#{RubyProcess::ROOT}/spec/support/endings.yml".freeze

  # What a cell must do.
  Expected = Struct.new(:passes_on, :status, :says, :alive, :offline, keyword_init: true) do
    # @param managers [Integer] how many the cell has
    # @return [Array<Integer>] those that live on, beginning with 1
    def alive_of(managers) = alive & [*1..managers]

    # @return [Hash] attributes of the outcome
    def end
      { hung: false, exitstatus: (status if status.is_a?(Integer)), termsig: Signal.list[status] }
    end
  end

  # One cell of the table.
  Cell = Struct.new(:place, :ending, :reactor, :managers, :expected) do
    def name = "#{ending} #{place} (#{reactor}, #{managers == 1 ? "one manager" : "two managers"})"

    # @param plain [Boolean] whether the process does without the gem
    # @return [Hash] what the process of the cell is given
    def given(plain: false) = { name:, place:, ending:, managers:, passes_on: expected.passes_on, plain: }
  end

  class << self
    # @return [Hash{String => Hash{String => Hash}}] for each place, the row of each ending
    def rows = @rows ||= YAML.safe_load_file(PATH)

    # @return [Array<Cell>]
    def cells(reactor)
      rows.flat_map do |place, endings|
        endings.flat_map do |ending, row|
          expected = expected(row, reactor)
          [1, 2].map { |managers| Cell.new(place, ending, reactor, managers, expected) }
        end
      end
    end

    private

    def expected(row, reactor)
      row = row.merge(row.fetch(reactor.to_s, {})).reject { |key, _| key == "because" || REACTORS.include?(key.to_sym) }
      Expected.new(offline: "all", **row.transform_keys(&:to_sym))
    end
  end
end
