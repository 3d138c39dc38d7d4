# frozen_string_literal: true

CLOBBER.include("pkg")

# Not part of the default task, since spec/gem_spec.rb also builds the gem, and installs it.
desc "Build the gem into pkg/"
task :build do
  mkdir_p "pkg"
  sh "gem", "build", "--strict", "--output", "pkg/online_manager.gem", "online_manager.gemspec"
end
