# frozen_string_literal: true

require "yaml"

module Bench
  # Compares the figures with bench/goals.yml.
  class Goals
    PATH = File.join(ROOT, "bench/goals.yml")

    # @param results [Hash{String => Hash}] by question
    def initialize(results)
      @goals = YAML.load_file(PATH).map { |goal| Goal.new(goal, results) }
    end

    # @return [Table] its remarks are the notes
    def table
      noted = @goals.select(&:note)
      rows = @goals.map do |goal|
        number = noted.index(goal)
        [goal.what, goal.wanted, goal.measured, number ? "#{goal.verdict} (note #{number + 1})" : goal.verdict]
      end
      notes = noted.map.with_index(1) { |goal, number| "#{number}. #{goal.note}" }
      Table.new("", %w[what goal measured reached], rows, notes.join("\n"))
    end
  end

  # An entry of bench/goals.yml.
  class Goal
    def initialize(goal, results)
      @goal = goal
      @parts = goal.fetch("parts").map { |part| GoalPart.new(part, results) }
    end

    def what = @goal.fetch("what")

    def note = @goal["note"]&.gsub(/\s+/, " ")&.strip

    def wanted = @parts.map(&:wanted).uniq.join("<br>")

    def measured = @parts.map(&:measured).join("<br>")

    def verdict
      return "–" if @parts.all? { |part| part.value.nil? }

      missed = @parts.reject(&:reached?)
      if missed.empty? then "yes"
      elsif missed.size == @parts.size then "**no**"
      else
        "**no**: #{missed.map(&:of).join(", ")}"
      end
    end
  end

  # One bound of a goal.
  class GoalPart
    # @return [String, nil] what the bound is about
    attr_reader :of

    # @return [Numeric, nil] the worst figure; nil if it was not measured
    attr_reader :value

    def initialize(part, results)
      @of, @most, @least, @unit = part.values_at("of", "most", "least", "unit")
      values = part.flat_map do |question, paths|
        paths.is_a?(Array) ? (results.dig(question, "figures") || {}).values_at(*paths) : []
      end
      @value = @most ? values.compact.max : values.compact.min
    end

    def reached?
      return false if value.nil?

      @most ? value <= @most : value >= @least
    end

    # Without trailing zeros, which a measurement may have.
    def wanted
      limit = format(@most || @least).sub(/(?<=\.\d)0+(?= )/, "").sub(/\.0(?= )/, "")
      named("#{@most ? "≤" : "≥"} #{limit}")
    end

    def measured = named(value ? format(value) : "not measured")

    private

    def named(text) = of ? "#{of}: #{text}" : text

    def format(number)
      case @unit
      when "times" then Bench.times(number)
      when "nanoseconds" then Bench.duration(number)
      when "percent" then "#{Bench.digits(number * 100)} %"
      when "part" then Bench.digits(number)
      when "bytes" then "#{number.round} B"
      else Bench.thousands(number.round)
      end
    end
  end
end
