# frozen_string_literal: true

require "yaml"

module Guards
  # A line that guards against something, what takes its place for a trial, and the example that must then fail.
  # An entry in spec/guards/*.yml:
  #
  # guard::   what it guards against
  # file::    where it is
  # line::    the whole line, or a few; there must be one such place. How far to the right it is does not matter
  # becomes:: what takes its place; "" takes it away
  # spec::    the file of the example: RSpec's, or a test of the tracker's
  # example:: its full description, or the name of the test
  class Guard
    KEYS = %w[guard file line becomes spec example].freeze

    attr_reader :name, :file, :spec, :example

    # @return [Array<Guard>] all that there are
    def self.all
      Dir["spec/guards/*.yml"].flat_map { |list| YAML.safe_load_file(list).map { |entry| new(list, entry) } }
    end

    # @param list [String] the file that the entry is in
    # @param entry [Hash]
    def initialize(list, entry)
      raise "#{list}: an entry has #{KEYS.join(", ")}, got #{entry.inspect}" unless entry.keys.sort == KEYS.sort

      @name, @file, @line, @becomes, @spec, @example = entry.values_at(*KEYS)
    end

    # Whether the example is one of cargo's, and not of RSpec's.
    def cargo? = @spec.end_with?(".rs")

    # Whether the extension has to be built for the example to see a change.
    def extension? = @file.end_with?(".rs", ".lua") && !cargo?

    # @param root [String] a checkout
    # @return [String, nil] what is wrong with the entry there
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

    # Whole lines, all as far to the right as the first one is in the file.
    def pattern
      lines = @line.lines(chomp: true).map { |line| Regexp.escape(line) }
      /^(?<indent> *)#{lines.join("\n\\k<indent>")}$/
    end
  end
end
