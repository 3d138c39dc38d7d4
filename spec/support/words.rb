# frozen_string_literal: true

# Finds words that the project's vocabulary has replaced, in code, comments, messages, documents and file names.
class Words
  # A word at a place: `replacement` says what to write instead.
  Finding = Struct.new(:path, :line, :word, :replacement, :text, keyword_init: true) do
    def to_s = "#{path}:#{line}: #{word.inspect}: write #{replacement}\n    #{text}"
  end

  # What separates two words of a phrase: spaces, or the end of a line and the beginning of the next comment line.
  GAP = %r{(?:[ \t]+|[ \t]*\n[ \t]*(?:(?:\#|///?|//!|--|\*)[ \t]+)?)}
  private_constant :GAP

  # @param replacements [Hash{String => String}] what to write instead of a word, or of several words with "|" between
  #   them. A word may be a phrase. Case does not matter
  def initialize(replacements)
    @replacements = replacements.flat_map { |words, replacement| words.split("|").map { |word| [word, replacement] } }
    @patterns = @replacements.map do |word, replacement|
      [/(?<![[:alpha:]])#{word.split.map { |part| Regexp.escape(part) }.join(GAP.source)}(?![[:alpha:]])/i, replacement]
    end
  end

  # @return [Array<String>] all words
  def to_a = @replacements.map(&:first)

  # @param path [String] the path of a file, whose words count too
  # @param text [String] its contents
  # @return [Array<Finding>]
  def find(path, text)
    in_path = matches(path.tr("/.-", "   ")).map { |_, word, replacement| [0, word, replacement] }
    lines = text.lines(chomp: true)
    (in_path + matches(text)).map do |line, word, replacement|
      Finding.new(path:, line:, word:, replacement:, text: line.zero? ? path : lines[line - 1].strip)
    end
  end

  private

  # @return [Array<Array>] of each match its line, its text and the replacement
  def matches(text)
    # The parts of an identifier count as words: `tell_again`, `TellAgain`.
    text = text.gsub(/(?<=[a-z0-9])(?=[A-Z])/, " ").tr("_", " ")
    found = @patterns.flat_map do |pattern, replacement|
      text.to_enum(:scan, pattern).map do
        match = Regexp.last_match
        [match.pre_match.count("\n") + 1, match[0].split(%r{[\s#*/!-]+}).join(" "), replacement]
      end
    end
    found.sort_by(&:first)
  end
end
