# frozen_string_literal: true

require "json"
require_relative "bench"
require_relative "report/goals"
require_relative "report/machine"
require_relative "report/plot"

module Bench
  # Writes docs/benchmarks.md and its plots from the answers in tmp/bench/results.
  class Report
    PATH = File.join(ROOT, "docs/benchmarks.md")
    PLOTS = File.join(ROOT, "docs/benchmarks")

    # @param questions [Array<String>] in the order of the report
    def initialize(questions)
      @results = questions.to_h { |name| [name, read(name)] }.compact
    end

    def write
      draw
      File.write(PATH, "#{[head, *goals, *machine, *plots, *answers].join("\n\n")}\n")
    end

    private

    def read(name)
      path = File.join(FOLDER, "results/#{name}.json")
      JSON.parse(File.read(path)) if File.exist?(path)
    end

    def head
      [<<~MARKDOWN.chomp, trial].compact.join("\n\n")
        # Benchmarks

        `rake bench` writes this page: it measures everything in less than half an hour. (`rake bench:heartbeat` and so on measure
        one part, `bin/setup --bench` installs the contenders.) Seconds depend on the machine, ratios hardly do. The contenders
        take turns in one run, each in a process of its own. A figure is the median of at least five rounds; a ratio is the
        median of the rounds' ratios. The gem is built as `gem install` builds it.
      MARKDOWN
    end

    def trial
      return unless @results.values.any? { |result| result["is_trial"] }

      "> **This was a trial run** with fewer users or rounds: the figures mean nothing."
    end

    def goals
      table = Goals.new(@results).table
      ["## Goals", table, table.remarks]
    end

    def machine
      rows = Machine.new(@results).to_h.to_a
      ["## Machine and versions", Table.new("", ["", ""], rows)]
    end

    def plots
      ["## Over the number of users", "![What a heartbeat costs](benchmarks/heartbeat.svg)",
       "![What a user takes in memory](benchmarks/memory.svg)"]
    end

    def answers
      @results.flat_map do |name, result|
        ["## #{question(name)}", *result["tables"].flat_map { |table| section(table) }, "<sub>`bench/#{name}.rb`</sub>"]
      end
    end

    # The first comment of the question's file.
    def question(name)
      lines = File.readlines(File.join(ROOT, "bench/#{name}.rb"), chomp: true).drop(2)
      lines.take_while { |line| line.start_with?("#") }.map { |line| line.delete_prefix("# ") }.join(" ")[/.*?\?/]
    end

    def section(table)
      title, header, rows, remarks = table.values_at("title", "header", "rows", "remarks")
      ["**#{title}**", Table.new(title, header, rows), *remarks.chomp.then { |text| text unless text.empty? }]
    end

    def draw
      Plot.new(File.join(PLOTS, "heartbeat.svg"), "Duration of a heartbeat of a known user", "%.0s %cs",
               curves("heartbeat", "/1/") { |nanoseconds| nanoseconds / 1e9 }).draw
      Plot.new(File.join(PLOTS, "memory.svg"), "Resident memory for each user", "%.0f B",
               curves("memory", "/") { |bytes| bytes }).draw
    end

    # @yield converts a figure to a value of the plot
    # @return [Hash] see Plot
    def curves(question, separator)
      figures = @results.dig(question, "figures") || {}
      %w[integers UUIDs].to_h do |kind|
        curves = Hash.new { |hash, name| hash[name] = {} }
        figures.each do |path, value|
          found = path.match(%r{\A#{kind}/(\d+)#{separator}(?!ours to )(.*)\z})
          curves[found[2]][found[1].to_i] = yield value if found
        end
        ["#{kind.delete_suffix("s")} ids", curves]
      end
    end
  end
end
