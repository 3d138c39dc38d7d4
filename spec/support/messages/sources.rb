# frozen_string_literal: true

# The places in the sources that word a message.
module Messages
  # A statement that raises, warns or reports.
  Site = Struct.new(:file, :line, :text) do
    def to_s = "#{file}:#{line}: #{text.lines.first.strip}"
  end

  # Finds such places by their text.
  module Sources
    ROOT = File.expand_path("../../..", __dir__)

    CALL = /(?<![\w.:@"'#&`])(?:raise|warn|report|abort|fail_with|say)\b(?=[ (]|$)|\.(?:warn|report|error|debug)\b[ ({]/
    # Raises again what has been raised.
    RAISED_AGAIN = /\braise(?: (?:e|error|exit|@exit))?(?: (?:if|unless) .*)?$/
    # Passes on a text that another place has worded, or is no message at all.
    PASSED_ON = [
      "fail_with(e.message, 1)", "NativeMember.report(store, namespace", "warn(warning)",
      "Integration.current.warn(message)",
      "::Rails.error.report(error, handled: true", "raise ArgumentError unless seconds.finite?"
    ].freeze

    # Errors are also made of a local variable `message`, which stands for them here.
    RUST_CALL = /
      \b(?:Error::new|gem_error|system_error|misconfigured)\( | \bstore_error\((?:ruby|$) |
      StoreError::[A-Z]\w+\((?!_) | \bErr\((?:format!|"|&\[) | :\ Fault\ = | vec!\[format! | let\ message\b.*=
    /x
    RUST_DEFINITION = %r{fn (?:gem|store|system)_error|let misconfigured|enum |^\s*//}
    RUST_TESTS = %r{/(?:tests|faults|model|against_model|simulator|simulator/\w+)\.rs\z}
    # The argument or the pattern `message`, and the text of an error that has been worded.
    RUST_PASSED_ON = /(?:, |StoreError::\w+\()message\)|error\.to_string\(\)\)/

    class << self
      # @return [Array<Site>] in lib
      def ruby
        files("lib/**/*.rb").flat_map do |file, lines|
          lines.each_index.filter_map do |index|
            next unless ruby?(lines[index])

            # A statement goes on after a backslash, a comma, and an `or`.
            length = lines[index..].find_index { |line| !line.match?(/(?:\\|,|\bor)$/) }
            Site.new(file, index + 1, lines[index, length + 1].join("\n"))
          end
        end
      end

      # @return [Array<Site>] in the crates, without their tests, the model and the simulator
      def rust
        sources = files("ext/*/src/**/*.rs").reject { |file, _| file.match?(RUST_TESTS) }
        sources.flat_map do |file, lines|
          lines = lines.take_while { |line| !line.include?("#[cfg(test)]") }
          lines.each_index.filter_map do |index|
            next if !lines[index].match?(RUST_CALL) || lines[index].match?(RUST_DEFINITION)

            text = statement(lines, index)
            Site.new(file, index + 1, text) unless text.match?(RUST_PASSED_ON)
          end
        end
      end

      private

      def ruby?(line)
        line.match?(CALL) && !line.match?(/^\s*(?:#|def )/) && !line.match?(RAISED_AGAIN) &&
          PASSED_ON.none? { |passed_on| line.include?(passed_on) }
      end

      # From a line to the one where all brackets are closed, and no string goes on.
      def statement(lines, index)
        open = 0
        length = lines[index..].find_index do |line|
          open += line.count("({[") - line.count(")}]")
          open <= 0 && !line.match?(/[=\\]$/)
        end
        lines[index, length + 1].join("\n")
      end

      def files(pattern)
        Dir[pattern, base: ROOT].sort.to_h { |file| [file, File.readlines("#{ROOT}/#{file}", chomp: true)] }
      end
    end
  end
end
