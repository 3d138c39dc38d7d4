# frozen_string_literal: true

# Turns Ruby's warnings about our own code into errors, and drops warnings about installed gems and Ruby's libraries.
# Also loaded into the child processes of RubyProcess, so it requires nothing.
module OwnWarnings
  LIB = File.expand_path("../../lib", __dir__)
  FOREIGN = [*Gem.path, RbConfig::CONFIG["rubylibprefix"]].freeze
  ABOUT = /\A(?<path>[^\n]+?):\d+: warning: /

  # @param message [String] also the text of `warn "…"`, which has no file and line, and is passed on
  def warn(message, ...)
    path = message.b[ABOUT, :path] or return super
    raise message.chomp if path.start_with?(LIB)

    super unless path.start_with?(*FOREIGN)
  end
end

Warning.singleton_class.prepend(OwnWarnings)
