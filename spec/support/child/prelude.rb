# frozen_string_literal: true

# Loaded first into each child process of RubyProcess.

require_relative "../warnings"

# A line is seen when it is printed, also by who leaves with `exit!`.
$stdout.sync = true

# Whoever runs the specs may ignore these, in the background or under nohup, and a child inherits that.
%w[HUP INT].each { |signal| trap(signal, "DEFAULT") }
