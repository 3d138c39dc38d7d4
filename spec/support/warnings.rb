# frozen_string_literal: true

# Makes Ruby's warnings about our own code errors, and drops those about other people's. Also loaded into the child
# processes of RubyProcess, so it needs nothing but Ruby.
module OwnWarnings
  LIB = File.expand_path("../../lib", __dir__)
  FOREIGN = [*Gem.path, RbConfig::CONFIG["rubylibprefix"]].freeze
  ABOUT = /\A(?<path>[^\n]+?):\d+: warning: /

  # @param message [String] also what `warn "…"` prints, which starts with no file and line and passes through
  def warn(message, ...)
    path = message.b[ABOUT, :path] or return super
    raise message.chomp if path.start_with?(LIB)

    super unless path.start_with?(*FOREIGN)
  end
end

Warning.singleton_class.prepend(OwnWarnings)
