# frozen_string_literal: true

# Formats numbers and tables.
module Bench
  # A table in Markdown, which the terminal shows too.
  class Table
    attr_reader :title, :header, :rows, :remarks

    # @param title [String]
    # @param header [Array<String>]
    # @param rows [Array<Array<String>>]
    # @param remarks [String] paragraphs below
    def initialize(title, header, rows, remarks = "")
      @title = title
      @header = header
      @rows = rows
      @remarks = remarks
    end

    def to_s
      lines = [header, *rows].map { |cells| line(cells) }
      ruler = "|#{widths.map.with_index { |width, column| ruler_cell(width, column) }.join("|")}|"
      [lines.first, ruler, *lines.drop(1)].join("\n")
    end

    def to_h = { title:, header:, rows:, remarks: }

    private

    def widths
      @widths ||= [header, *rows].transpose.map { |cells| cells.map { |cell| cell.to_s.size }.max }
    end

    # Aligns names to the left and numbers to the right.
    def line(cells)
      padded = cells.each_with_index.map do |cell, column|
        column.zero? ? cell.to_s.ljust(widths[column]) : cell.to_s.rjust(widths[column])
      end
      "| #{padded.join(" | ")} |"
    end

    def ruler_cell(width, column) = column.zero? ? "-" * (width + 2) : "#{"-" * (width + 1)}:"
  end

  class << self
    # @return [String] the number with its significant digits
    def digits(number, most: 3)
      return "0" if number.zero?

      decimals = (most - 1 - Math.log10(number.abs).floor).clamp(0, most)
      whole, fraction = format("%.#{decimals}f", number).split(".")
      [thousands(whole), fraction].compact.join(".")
    end

    # @return [String] 1,000,000
    def thousands(number) = number.to_s.gsub(/(?<=\d)(?=(\d{3})+\z)/, ",")

    # @param nanoseconds [Numeric]
    def duration(nanoseconds)
      unit, size = { "s" => 1e9, "ms" => 1e6, "µs" => 1e3, "ns" => 1 }.find { |_, size| nanoseconds.abs >= size } ||
                   ["ns", 1]
      "#{digits(nanoseconds / size.to_f)} #{unit}"
    end

    # @return [String] a duration, and its ratio to ours
    def compared(durations, ours)
      duration = duration(median(durations))
      durations.equal?(ours) ? duration : "#{duration} (#{times(ratio(durations, ours))})"
    end

    # @param ratio [Numeric]
    def times(ratio) = "#{digits(ratio)} ×"
  end
end
