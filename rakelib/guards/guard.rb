# frozen_string_literal: true

require "yaml"

module Guards
  # A guard: a line of code, its replacement in a trial, and the example that must then fail.
  # An entry in spec/guards/*.yml:
  #
  # guard::   the behaviour that the line guards, as a sentence
  # file::    the file with the line
  # line::    the whole line, or several lines, which must occur exactly once; indentation is ignored
  # becomes:: the replacement; "" removes the line
  # spec::    the file of the example: RSpec's, or a Rust test
  # example:: the full description of the example, or the name of the Rust test
  class Guard
    KEYS = %w[guard file line becomes spec example].freeze

    attr_reader :name, :file, :spec, :example

    # @return [Array<Guard>] all guards
    def self.all
      Dir["spec/guards/*.yml"].flat_map { |list| YAML.safe_load_file(list).map { |entry| new(list, entry) } }
    end

    # @param list [String] the file of the entry
    # @param entry [Hash]
    def initialize(list, entry)
      raise "#{list}: an entry has #{KEYS.join(", ")}, got #{entry.inspect}" unless entry.keys.sort == KEYS.sort

      @name, @file, @line, @becomes, @spec, @example = entry.values_at(*KEYS)
    end

    # Whether the example is a cargo test and not an RSpec example.
    def cargo? = @spec.end_with?(".rs")

    # Whether the extension must be rebuilt before the example can see the change.
    def extension? = @file.end_with?(".rs", ".lua") && !cargo?

    # @param root [String] the folder of a checkout
    # @return [String, nil] why the entry does not fit the checkout; nil if it does
    def fault(root = ".")
      missing = [@file, @spec].reject { |path| File.file?(File.join(root, path)) }
      return "there is no #{missing.join(" and no ")}" unless missing.empty?

      times = File.read(File.join(root, @file)).scan(pattern).size
      "its line is there #{times} times in #{@file}, and has to be there once:\n#{@line}" if times != 1
    end

    # Replaces the line while the block runs.
    def apply(root)
      path = File.join(root, @file)
      source = File.read(path)
      File.write(path, source.sub(pattern) { @becomes.gsub(/^/, Regexp.last_match(:indent)) })
      yield
    ensure
      File.write(path, source) if source
    end

    private

    # Matches whole lines, indented as much as the first one.
    def pattern
      lines = @line.lines(chomp: true).map { |line| Regexp.escape(line) }
      /^(?<indent> *)#{lines.join("\n\\k<indent>")}$/
    end
  end
end
