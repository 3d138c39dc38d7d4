# frozen_string_literal: true

require "fileutils"

module Bench
  # The measurements of one question: alternates contenders, keeps figures and tables, and reports progress.
  class Run
    # The default number of rounds of a comparison.
    ROUNDS = 5

    # @param name [String]
    def initialize(name)
      @name = name
      @figures = {}
      @tables = []
      @done = 0.0
      @share = 1.0
      @progress = ENV.key?("BENCH_PROGRESS") ? IO.for_fd(Integer(ENV.fetch("BENCH_PROGRESS")), "w") : nil
    end

    # @return [Integer] the number, or BENCH_ROUNDS in a trial run
    def rounds(number = ROUNDS) = Integer(ENV.fetch("BENCH_ROUNDS", number))

    # @param cases [Array] measured one after the other
    def each(cases)
      share = @share
      @share = share / cases.size
      cases.each do |element|
        start = @done
        yield element
        report_progress(start + @share)
      end
    ensure
      @share = share
    end

    # Measures all contenders in each round, in a random order, so that other load on the machine affects all of them
    # alike.
    #
    # @param contenders [Hash{String => Object}]
    # @yieldparam contender [Object] its value
    # @yieldparam round [Integer]
    # @return [Hash{String => Array}] what the block returned, by contender
    def alternate(contenders, rounds: self.rounds)
      samples = contenders.transform_values { [] }
      each((0...rounds).to_a) do |round|
        contenders.keys.shuffle(random: Random.new(round)).each do |name|
          samples[name] << yield(contenders[name], round)
        end
      end
      samples
    end

    # Keeps a figure for the goals and the plots.
    #
    # @param path [String]
    # @param value [Numeric, Array, Hash]
    def figure(path, value)
      @figures[path] = value
    end

    # Prints a table and keeps it for the report.
    #
    # @param remarks [String] paragraphs below the table
    def table(title, header, rows, remarks: "")
      table = Table.new(title, header, rows, remarks)
      @tables << table.to_h
      puts "", title, "", table, "", remarks
    end

    # Writes the answer to tmp/bench/results.
    def save
      is_trial = Bench.scale < 1 || ENV.key?("BENCH_ROUNDS")
      answer = { name: @name, ruby: RUBY_DESCRIPTION, is_trial:, figures: @figures, tables: @tables }
      folder = File.join(FOLDER, "results")
      FileUtils.mkdir_p(folder)
      File.write(File.join(folder, "#{@name}.json"), JSON.pretty_generate(answer))
    end

    # Reports progress to rake for its progress bar. `each` and `alternate` call it themselves.
    #
    # @param done [Float] from 0 to 1
    def report_progress(done)
      @done = done
      @progress&.puts(done)
      @progress&.flush
    end
  end
end
