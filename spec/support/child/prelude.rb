# frozen_string_literal: true

# Loaded first into each child process of RubyProcess.

require_relative "../warnings"

# Flush each line at once, also before `exit!`.
$stdout.sync = true

# The specs may run with these signals ignored, in the background or under nohup, and a child inherits that.
%w[HUP INT].each { |signal| trap(signal, "DEFAULT") }
