# frozen_string_literal: true

CLOBBER.include("pkg")

# No part of `rake`, since spec/gem_spec.rb builds the gem too, and installs it.
desc "Build the gem into pkg/"
task :build do
  mkdir_p "pkg"
  sh "gem", "build", "--strict", "--output", "pkg/online_manager.gem", "online_manager.gemspec"
end
