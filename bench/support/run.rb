# frozen_string_literal: true

require "fileutils"

module Bench
  # One question's measurements: takes turns, keeps figures and tables, and tells how far it is.
  class Run
    # How many rounds a comparison has, unless it says otherwise.
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

    # @return [Integer] so many rounds, or fewer in a trial run
    def rounds(number = ROUNDS) = Integer(ENV.fetch("BENCH_ROUNDS", number))

    # @param cases [Array] what is measured one after the other
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

    # Measures all contenders in each round, in an order drawn anew, so that whatever else the machine
    # does in the meantime hits each of them alike.
    #
    # @param contenders [Hash{String => Object}]
    # @yieldparam contender [Object] its value
    # @yieldparam round [Integer]
    # @return [Hash{String => Array}] the block's answers
    def alternate(contenders, rounds: self.rounds)
      samples = contenders.transform_values { [] }
      each((0...rounds).to_a) do |round|
        contenders.keys.shuffle(random: Random.new(round)).each do |name|
          samples[name] << yield(contenders[name], round)
        end
      end
      samples
    end

    # Keeps a number for the goals and the plots.
    #
    # @param path [String]
    # @param value [Numeric, Array, Hash]
    def figure(path, value)
      @figures[path] = value
    end

    # Prints a table and keeps it for the report.
    #
    # @param remarks [String] paragraphs below it
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

    # Tells rake how far it is, for its progress bar. `each` and `alternate` do so themselves.
    #
    # @param done [Float] from 0 to 1
    def report_progress(done)
      @done = done
      @progress&.puts(done)
      @progress&.flush
    end
  end
end
